"""The search for a range against brute force, closed forms and SciPy."""

import numpy as np
import pytest
import torch
from scipy import integrate, optimize, special
from torch import Tensor

from flyweight.errors import InputError
from flyweight.quantization.exact_scale import exact_scale
from flyweight.quantization.noise_clip import noise_clip
from flyweight.quantization.ranges import find_range


def laplace(n: int, seed: int = 0) -> Tensor:
    return torch.distributions.Laplace(0.0, 1.0).icdf((torch.arange(n) + torch.rand(n, generator=seeded(seed))) / n)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def error(values: np.ndarray, scale: float, zero: int, low: int, high: int) -> float:
    whole = np.clip(np.round(values / scale) + zero, low, high) - zero
    return float(0.5 * np.square(whole * scale - values).sum())


@pytest.mark.parametrize(("bits", "published"), [(2, 2.83), (3, 3.86), (4, 5.03)])
def test_noise_clip_of_laplace_is_the_published_one(bits: int, published: float) -> None:
    found = noise_clip(laplace(1_000_000)[None], bits).item()
    assert found == pytest.approx(published, rel=0.01)
    assert found == pytest.approx(special.lambertw(3 * 4**bits).real, rel=1e-3)  # a e^a = 3 * 4^M


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_mse_clip_of_laplace_is_the_minimum_of_the_integral(bits: int) -> None:
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1

    def expected(scale: float) -> float:
        total = 0.0
        for q in range(low, high + 1):
            left = -60.0 if q == low else (q - 0.5) * scale
            right = 60.0 if q == high else (q + 0.5) * scale
            total += integrate.quad(lambda x, at: (x - at) ** 2 * 0.5 * np.exp(-abs(x)), left, right, (q * scale,))[0]
        return total

    best = optimize.minimize_scalar(expected, bounds=(0.2, 4.0), method="bounded").x
    assert find_range(laplace(400_000), bits).scale.item() == pytest.approx(best, rel=0.01)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_symmetric_mse_is_the_minimum_of_brute_force(bits: int) -> None:
    values = torch.randn(5, 200, generator=seeded(bits)) ** 3
    found = find_range(values, bits, axis=0)
    for channel in range(5):
        row = values[channel].double().numpy()
        tried = np.geomspace(1e-3, 1.05, 4_000) * np.abs(row).max() / found.high
        best = min(error(row, scale, 0, found.low, found.high) for scale in tried)
        assert found.error[channel].item() <= best * (1 + 1e-6)
        own = error(row, float(found.scale[channel]), 0, found.low, found.high)
        assert own == pytest.approx(found.error[channel].item(), rel=1e-4)


def test_the_grid_search_of_many_values_is_near_the_global_minimum(monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.randn(3, 20_000, generator=seeded(5)) ** 3
    for bits in (3, 4):
        best = find_range(values, bits, axis=0).error
        with monkeypatch.context() as changed:
            changed.setattr("flyweight.quantization.ranges.worth_exact", lambda rows, high: False)
            assert bool((find_range(values, bits, axis=0).error <= best * 1.005).all())


@pytest.mark.parametrize("bits", [3, 4, 8])
def test_affine_mse_is_near_the_minimum_of_brute_force(bits: int) -> None:
    row = torch.randn(400, generator=seeded(bits)).exp() - 0.5
    found = find_range(row, bits, symmetric=False)
    values = row.double().numpy()
    best = np.inf
    for share in np.geomspace(0.05, 1.0, 400):
        scale = share * (values.max() - min(values.min(), 0)) / found.high
        for zero in range(min(found.high, 24) + 1):
            best = min(best, error(values, scale, zero, 0, found.high))
    assert found.error.item() <= best * 1.02


def test_exact_scale_of_two_values_by_hand() -> None:
    assert exact_scale(torch.tensor([[1.0, 3.0], [2.0, 2.0], [0.0, 0.0]]), -2, 1).tolist() == [3.0, 2.0, 0.0]


def test_mse_is_never_above_minmax_and_percentile() -> None:
    values = torch.randn(64, 300, generator=seeded(1)) * torch.logspace(-3, 3, 64)[:, None]
    values[:, 0] *= 30
    for symmetric in (True, False):
        least = find_range(values, 8, axis=0, symmetric=symmetric).error
        for method in ("minmax", "percentile"):
            other = find_range(values, 8, axis=0, symmetric=symmetric, method=method).error
            assert bool((least <= other * (1 + 1e-9)).all())


def test_minmax_holds_all_values() -> None:
    values = torch.tensor([-3.0, 0.2, 5.0])
    affine = find_range(values, 8, symmetric=False, method="minmax")
    assert affine.scale.item() == pytest.approx(8 / 255)
    assert affine.zero_point.item() == round(3 / (8 / 255))
    assert find_range(values, 8, method="minmax").scale.item() == pytest.approx(5 / 127)


def test_percentile_leaves_the_outlier_out() -> None:
    values = torch.cat([torch.linspace(-1, 1, 100_001), torch.tensor([1_000.0])])
    assert find_range(values, 8, method="percentile").most.item() == pytest.approx(1.0, abs=1e-3)


def test_a_histogram_gives_what_its_values_give() -> None:
    values = torch.tensor([-2.0, -1.0, 0.5, 3.0])
    counts = torch.tensor([5.0, 40.0, 9.0, 1.0])
    repeated = values.repeat_interleave(counts.long())
    for symmetric in (True, False):
        one = find_range(values, 3, counts=counts, symmetric=symmetric)
        other = find_range(repeated, 3, symmetric=symmetric)
        assert one.error.item() == pytest.approx(other.error.item(), rel=1e-5)
    assert find_range(values, 4, counts=counts, method="noise").scale.item() == pytest.approx(
        find_range(repeated, 4, method="noise").scale.item()
    )


def test_values_that_lie_on_a_grid_are_exact() -> None:
    whole = torch.randint(-127, 128, (4, 500), generator=seeded(2)).float()
    whole[:, 0] = 127
    scales = torch.tensor([0.5, 0.25, 2.0, 1.0])
    assert find_range(whole * scales[:, None], 8, axis=0).error.max().item() < 1e-6


def test_zero_is_represented_and_zeros_have_scale_one() -> None:
    found = find_range(torch.rand(3, 100, generator=seeded(3)) + 5.0, 8, symmetric=False, axis=0)
    assert bool((found.least <= 0).all())
    assert find_range(torch.zeros(2, 5), 8, axis=0).scale.tolist() == [1.0, 1.0]
    assert find_range(torch.zeros(5), 4).scale.item() == 1.0


def test_what_cannot_be_ranged_is_refused_in_words() -> None:
    with pytest.raises(InputError, match="2 of 3 values are NaN or infinite"):
        find_range(torch.tensor([1.0, torch.nan, torch.inf]), 8)
    with pytest.raises(InputError, match=r"no values .* shape \(0, 4\)"):
        find_range(torch.zeros(0, 4), 8)
    with pytest.raises(InputError, match="bits=1"):
        find_range(torch.ones(3), 1)
    with pytest.raises(InputError, match="'max' is unknown; use one of mse, minmax"):
        find_range(torch.ones(3), 8, method="max")
    with pytest.raises(InputError, match="for symmetric ranges"):
        find_range(torch.ones(3), 8, method="noise", symmetric=False)

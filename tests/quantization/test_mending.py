"""Smoothing and bias correction: exact where they must be, better where they may be."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flyweight.graph.trace import trace
from flyweight.graph.traced import TracedModel
from flyweight.quantization.bias_correction import correct_biases
from flyweight.quantization.build import Mending, build
from flyweight.quantization.insert import Rounding
from flyweight.quantization.observe import observe
from flyweight.quantization.rescale import rescale
from flyweight.quantization.sites import find_sites
from flyweight.quantization.smooth import smooth


class Normed(nn.Module):
    """A norm with two loud channels before a layer, a ReLU before the next, as in a transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.wide, self.narrow = nn.LayerNorm(16), nn.Linear(16, 32), nn.Linear(32, 8)
        with torch.no_grad():
            self.norm.weight[:2] = 60.0
            self.wide.weight[:, :2] *= 0.02

    def forward(self, x: Tensor) -> Tensor:
        return self.narrow(F.relu(self.wide(self.norm(x))))


@pytest.fixture(scope="module")
def normed() -> tuple[TracedModel, dict[str, Tensor]]:
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        inputs = {"x": torch.randn(256, 16)}
        return trace(Normed().eval(), inputs), inputs


def far(one: Tensor, other: Tensor) -> float:
    return float((one - other).square().mean().sqrt() / other.std())


def test_smoothing_changes_no_output_and_evens_the_channels(normed: tuple[TracedModel, dict[str, Tensor]]) -> None:
    traced, inputs = normed
    smoothed = trace(traced, {})
    sites = find_sites(smoothed)[0]
    done, left = smooth(smoothed, sites, [inputs], 0.5)
    assert len(done) == 2
    assert not left
    with torch.no_grad():
        assert far(smoothed(**inputs), traced(**inputs)) < 1e-5
    before, after = (
        observe(model, [inputs], {sites[0].input: -1})[sites[0].input].largest for model in (traced, smoothed)
    )
    weight = traced.body.wide.weight.abs().amax(0)
    wanted = (before * weight).sqrt()  # equation 4 with a = 1/2: both become sqrt(|X| |W|), but for one factor
    assert torch.allclose(after / after.mean(), wanted / wanted.mean(), rtol=1e-4)


def test_smoothing_makes_integers_err_less(normed: tuple[TracedModel, dict[str, Tensor]]) -> None:
    traced, inputs = normed
    layers = dict.fromkeys(("wide", "narrow"), "int8")
    errors = []
    with torch.no_grad():
        for strength in (None, 0.5):
            built = build(traced, layers, Rounding(), Mending(smooth=strength), [inputs])  # type: ignore[arg-type]
            errors.append(far(built.model(**inputs), traced(**inputs)))
    assert errors[1] < 0.7 * errors[0]


def test_factors_that_nothing_can_take_exactly_change_nothing(normed: tuple[TracedModel, dict[str, Tensor]]) -> None:
    class Curved(nn.Module):
        """GELU lies between: f(c x) is not c f(x)."""

        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(16, 16), nn.Linear(16, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.two(F.gelu(self.one(x)))

    inputs = normed[1]
    traced = trace(Curved().eval(), inputs)
    site = find_sites(traced)[0][1]
    node = next(node for node in traced.body.graph.nodes if node.name == site.input)
    before = {name: value.clone() for name, value in traced.state_dict().items()}
    assert rescale(traced, node, [site], torch.full((16,), 2.0)) is None
    assert all(torch.equal(value, before[name]) for name, value in traced.state_dict().items())
    done, left = smooth(traced, [site], [inputs], 0.5)
    assert not done
    assert "nothing before it can take the factors exactly" in left[0].why


@pytest.mark.parametrize("layer", [nn.Linear(6, 4, bias=False), nn.Conv2d(6, 4, 1, groups=2), nn.Conv2d(6, 4, 1)])
def test_the_mean_output_is_that_of_the_float_layer(layer: nn.Module) -> None:
    shape = (512, 6) if isinstance(layer, nn.Linear) else (512, 6, 2, 2)
    inputs = {"input": torch.rand(shape, generator=torch.Generator().manual_seed(0)) + 1.0}
    traced = trace(layer.eval(), inputs)
    (site,) = find_sites(traced)[0]
    rounding = Rounding(activations=False, per_channel=False)
    layers = {site.name: "int4" if isinstance(layer, nn.Conv2d) else "int8"}
    plain = build(traced, layers, rounding, Mending(bias_correction=False), [inputs]).model  # type: ignore[arg-type]
    mean = observe(traced, [inputs], {site.input: 1 if len(shape) == 4 else -1})[site.input].mean
    with torch.no_grad():
        wanted = traced(**inputs).transpose(0, 1).flatten(1).mean(1)
        wrong = (plain(**inputs).transpose(0, 1).flatten(1).mean(1) - wanted).abs().max()
        assert correct_biases(plain, [site], {site.name: mean}) == (site.name,)
        right = (plain(**inputs).transpose(0, 1).flatten(1).mean(1) - wanted).abs().max()
    assert right < 1e-5
    assert wrong > 20 * right

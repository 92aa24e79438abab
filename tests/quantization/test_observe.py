"""What is seen of activations, and what is said where nothing can be."""

import pytest
import torch
from test_quantize import images
from torch import Tensor, nn

from flyweight.errors import InputError
from flyweight.graph.fold_batch_norm import fold_batch_norm
from flyweight.graph.trace import trace
from flyweight.quantization.build import Mending, build
from flyweight.quantization.insert import Rounding
from flyweight.quantization.observe import calibration, observe
from flyweight.quantization.placement import place
from flyweight.quantization.sites import find_sites


class Roots(nn.Module):
    """Takes a root in the middle, which is not a number below zero."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 2)
        nn.init.ones_(self.one.weight)
        nn.init.zeros_(self.one.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(torch.sqrt(self.one(x)))


def test_means_and_sizes_of_channels_are_those_of_all_batches() -> None:
    batches = [torch.randn(10, 3, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]
    traced = trace(nn.Linear(3, 2).eval(), {"input": batches[0]})
    (site,) = find_sites(traced)[0]
    seen = observe(traced, [{"input": batch} for batch in batches], {site.input: -1})[site.input]
    everything = torch.cat(batches)
    assert torch.allclose(seen.mean, everything.mean(0), atol=1e-6)
    assert torch.equal(seen.largest, everything.abs().amax(0))
    assert seen.histogram.count == 90


def test_an_activation_that_is_no_number_is_refused_by_name() -> None:
    inputs = {"x": torch.randn(64, 4, generator=torch.Generator().manual_seed(0))}
    traced = trace(Roots().eval(), {"x": torch.zeros(4, 4) + 100})
    site = find_sites(traced)[0][1]
    with pytest.raises(InputError, match=r"The output of 'sqrt' .* holds \d+ NaN or infinite values of 256 on calib"):
        observe(traced, [inputs], {site.input: -1})


def test_an_activation_that_is_always_the_same_or_zero_is_rounded_exactly() -> None:
    class Dead(nn.Module):
        """The first layer gives nothing, or one number."""

        def __init__(self, bias: float) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 2)
            nn.init.zeros_(self.one.weight)
            nn.init.constant_(self.one.bias, bias)

        def forward(self, x: Tensor) -> Tensor:
            return self.two(torch.relu(self.one(x)))

    for bias in (0.0, -1.0, 0.7):
        inputs = {"x": torch.randn(16, 4)}
        model = Dead(bias).eval()
        traced = trace(model, inputs)
        built = build(traced, {"one": "int8", "two": "int8"}, Rounding(), Mending(), [inputs])
        with torch.no_grad():
            assert torch.allclose(built.model(**inputs), model(**inputs), atol=2e-2)
            assert bool(torch.isfinite(built.model(**inputs)).all())


def test_quantisers_stand_where_engines_run_integers() -> None:
    task = images()
    inputs = next(task.batches("train"))[0]
    traced = trace(task.model, inputs)
    folded = fold_batch_norm(traced)
    placed = {one.node: set(one.readers) for one in place(folded, find_sites(folded)[0])}
    first = next(node for node in folded.body.graph.nodes if node.op == "placeholder")
    assert placed[first.name] == {"conv2d"}  # the network's input
    relus = [name for name in placed if name.startswith("relu")]
    assert len(relus) == 5  # after the ReLU, not between it and its layer
    sums = [node for node in folded.body.graph.nodes if str(node.target) == "aten.add.Tensor"]
    assert not any(node.name in placed for node in sums)
    for node in sums:
        terms = [one for one in node.all_input_nodes if one.target is not torch.ops.aten.max_pool2d.default]
        assert {term.name for term in terms} <= set(placed)
    assert any("pool" in name for name in placed)  # the average, before and after it


def test_calibration_draws_whole_batches_by_seed() -> None:
    task = images()
    assert sum(len(one["image"]) for one in calibration(task, rows=100)) == 100
    assert sum(len(one["image"]) for one in calibration(task, rows=10)) == 10
    one, other = calibration(task, 10, seed=1), calibration(task, 10, seed=1)
    assert torch.equal(one[0]["image"], other[0]["image"])

"""A shrunk model is physically smaller and gives what the model gives with the cut units at zero."""

import copy
import random
from collections.abc import Mapping, Sequence

import pytest
import torch
from coupled_nets import CASES, NORMED, traced_case
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, fx, nn

from flyweight.cost.macs import count_macs
from flyweight.errors import InputError
from flyweight.graph.coupled.axes import at_rows, size_of
from flyweight.graph.coupling import find_groups
from flyweight.graph.shrink import macs_of, shrink, silenced, try_shrink
from flyweight.graph.trace import trace
from flyweight.graph.traced import TracedModel, tensor_of

Keep = dict[str, list[int]]


def some(traced: TracedModel, seed: int, names: Sequence[str] | None = None) -> Keep:
    """Keep a random part of every group, or of those that are named."""
    choose = random.Random(seed)
    groups = [group for group in find_groups(traced)[0] if names is None or group.name in names]
    return {
        group.name: sorted(choose.sample(range(len(group.units)), choose.randint(1, len(group.units) - 1)))
        for group in groups
    }


def at_zero(traced: TracedModel, keep: Mapping[str, Sequence[int]]) -> TracedModel:
    """Set to zero what the groups say goes with the units that are cut."""
    model = copy.deepcopy(traced)
    for group in find_groups(traced)[0]:
        for number, unit in enumerate(group.units):
            if group.name in keep and number not in keep[group.name]:
                for place in unit.places:
                    tensor = tensor_of(model.body, place.tensor)
                    tensor.data.index_fill_(place.dim, torch.tensor(place.index), 0)
    return model


def same(one: nn.Module, other: nn.Module, inputs: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        torch.testing.assert_close(one(**inputs), other(**inputs), rtol=1e-3, atol=1e-4)


def cases() -> list[tuple[str, int]]:
    return [(name, seed) for name in CASES for seed in range(2)] + [(name, 0) for name in NORMED]


@pytest.mark.parametrize(("name", "seed"), cases())
def test_a_shrunk_model_gives_the_outputs_of_the_model_with_the_cut_units_at_zero(name: str, seed: int) -> None:
    case, traced = {**CASES, **NORMED}[name], traced_case(name)
    keep = some(traced, seed, list(case.groups))
    found = try_shrink(traced, keep)
    assert (found.skipped, found.kept) == ((), {group: tuple(units) for group, units in keep.items()})
    for rows in (1, 7):
        inputs = case.inputs(rows)
        same(found.model, at_zero(traced, keep), inputs)
        same(silenced(traced, keep), at_zero(traced, keep), inputs)


@pytest.mark.parametrize("name", [*CASES, *NORMED])
def test_every_tensor_is_shorter_by_just_what_its_groups_lose(name: str) -> None:
    traced = traced_case(name)
    keep = some(traced, 1)
    lost: dict[tuple[str, int], int] = {}
    for group in find_groups(traced)[0]:
        for number in set(range(len(group.units))) - set(keep[group.name]):
            for place in group.units[number].places:
                key = place.tensor, place.dim
                lost[key] = lost.get(key, 0) + len(place.index)
    model = shrink(traced, keep)
    for tensor_name, tensor in traced.body.state_dict().items():
        wanted = [length - lost.get((tensor_name, dim), 0) for dim, length in enumerate(tensor.shape)]
        if all(key[0] != tensor_name for key in lost) and tensor_name in ("decoder.weight",):
            continue  # the second name of a tied weight
        assert list(tensor_of(model.body, tensor_name).shape) == wanted


@pytest.mark.parametrize("name", [*CASES, *NORMED])
def test_predicted_macs_are_those_that_are_counted_on_the_built_model(name: str) -> None:
    traced, row = traced_case(name), {**CASES, **NORMED}[name].inputs(1)
    for seed in range(2):
        keep = some(traced, seed)
        assert macs_of(traced, keep) == count_macs(shrink(traced, keep), row).total
    assert macs_of(traced, {}) == count_macs(traced, row).total


@pytest.mark.parametrize("name", [*CASES, *NORMED])
def test_nodes_of_a_shrunk_graph_know_the_shapes_they_give(name: str) -> None:
    traced, inputs = traced_case(name), {**CASES, **NORMED}[name].inputs(5)
    model = shrink(traced, some(traced, 2))
    seen: list[str] = []

    class Watch(fx.Interpreter):
        def run_node(self, n: fx.Node) -> object:
            result, noted = super().run_node(n), n.meta.get("val")
            pairs = zip(result, noted, strict=True) if isinstance(noted, (list, tuple)) else [(result, noted)]
            for one, note in pairs:
                if isinstance(note, Tensor):
                    seen.append(n.name)
                    assert tuple(one.shape) == tuple(at_rows(size_of(length), 5) for length in note.shape), n.name
            return result

    with torch.no_grad():
        Watch(model.body).run(*inputs.values())
    assert len(seen) > 3


@pytest.mark.parametrize("name", [*CASES, *NORMED])
def test_a_shrunk_model_can_be_shrunk_again_and_left_alone_stays_itself(name: str) -> None:
    case, traced = {**CASES, **NORMED}[name], traced_case(name)
    before = copy.deepcopy(traced.state_dict())
    once = shrink(traced, some(traced, 3))
    keep = some(once, 4)
    assert not try_shrink(once, keep).skipped
    assert all(torch.equal(before[key], tensor) for key, tensor in traced.state_dict().items())
    same(shrink(traced, {}), traced, case.inputs(3))


def test_a_shrunk_model_is_traced_anew_and_trains() -> None:
    case, traced = CASES["joint"], traced_case("joint")
    small = shrink(traced, some(traced, 0))
    fresh = trace(Wrapped(small), case.inputs(4))
    same(fresh, small, case.inputs(6))
    small.train()
    small(**case.inputs(4)).sum().backward()
    assert all(parameter.grad is not None for parameter in small.parameters())


class Wrapped(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x=x)


class Stream(nn.Module):
    """A residual stream of one width with norms over it."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.inlet, self.up, self.down = nn.Linear(3, dim), nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        self.before, self.after, self.head = nn.LayerNorm(dim), nn.RMSNorm(dim), nn.Linear(dim, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inlet(x)
        x = x + self.down(nn.functional.gelu(self.up(self.before(x))))
        return self.head(self.after(x))


def test_a_thinner_stream_is_the_thinner_architecture_with_the_weights_that_are_left() -> None:
    """Norms take their means over what is cut, so zeros are no reference; the same class at that width is."""
    inputs = {"x": torch.randn(4, 3)}
    small = shrink(trace(Stream(8, 6).eval(), inputs), {"inlet": [0, 3, 4, 7, 6], "up": [1, 5]})
    thin = Stream(5, 2).eval()
    thin.load_state_dict(small.body.state_dict())
    same(small, thin, inputs)


def test_tables_that_are_cut_get_memory_of_their_own() -> None:
    model = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 3))
    traced = trace(model.eval(), {"input": torch.tensor([1, 2])})
    before = model[0].weight.detach().clone()
    small = shrink(traced, {"0": [1, 3]})
    with torch.no_grad():
        small.body.get_submodule("0").weight.zero_()  # type: ignore[operator,union-attr]
    assert torch.equal(model[0].weight, before)
    assert small.body.get_submodule("0").embedding_dim == 2


class Sigmoids(nn.Module):
    """A sum of sigmoids changes by one half for each unit that is cut: that is not the model with it at zero."""

    def __init__(self) -> None:
        super().__init__()
        self.odd, self.fine, self.head = nn.Linear(3, 5), nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.fine(x).relu()) + self.odd(x).sigmoid().sum(1, keepdim=True)


def test_a_group_that_fails_its_check_is_left_whole_and_listed_and_the_rest_is_cut() -> None:
    traced = trace(Sigmoids().eval(), {"x": torch.randn(2, 3)})
    found = try_shrink(traced, {"odd": [0, 1], "fine": [0, 3]})
    assert found.kept == {"fine": (0, 3)}
    assert [one.what for one in found.skipped] == ["odd"]
    assert "against the model with those units at zero" in found.skipped[0].why
    assert found.model.body.get_submodule("odd").weight.shape == (5, 3)
    assert found.model.body.get_submodule("fine").weight.shape == (2, 3)


@pytest.mark.parametrize(
    ("keep", "words"),
    [
        ({"nothing": [0]}, "no group 'nothing'"),
        ({"left": [0, 6]}, "units 0 to 5; seen 6"),
        ({"left": []}, "at least one of its 6 units"),
    ],
)
def test_wrong_units_are_refused_with_what_the_group_has(keep: Keep, words: str) -> None:
    for verb in (shrink, macs_of):
        with pytest.raises(InputError, match=words):
            verb(traced_case("concat"), keep)


class Drawn(nn.Module):
    """A net of layers drawn at random: each reads some of what came before."""

    def __init__(self, steps: list[tuple[str, int, int, int]], images: bool) -> None:
        super().__init__()
        self.steps, self.images = steps, images
        self.layers = nn.ModuleList()
        widths = [4]
        for kind, source, other, size in steps:
            wide, beside = widths[source % len(widths)], widths[other % len(widths)]
            layer, width = self._layer(kind, wide, beside, size)
            self.layers.append(layer)
            widths.append(width)
        self.head = nn.Linear(widths[-1] * (4 if images else 1), 2)

    def _dense(self, wide: int, out: int) -> nn.Module:
        return nn.Conv2d(wide, out, 3, padding=1) if self.images else nn.Linear(wide, out)

    def _layer(self, kind: str, wide: int, beside: int, size: int) -> tuple[nn.Module, int]:
        if kind == "residual":
            return self._dense(wide, beside), beside
        if kind == "concat":
            return nn.Identity(), wide + beside
        if kind == "gate":
            return self._dense(wide, 2 * size), size
        if kind == "norm":
            return (nn.BatchNorm2d if self.images else nn.BatchNorm1d)(wide), wide
        if kind == "depthwise":
            return (nn.Conv2d(wide, wide, 3, padding=1, groups=wide), wide) if self.images else (nn.PReLU(wide), wide)
        if kind == "grouped":
            return (nn.Conv2d(2 * wide, 2 * size, 1, groups=2), 2 * size) if self.images else (nn.GLU(), wide)
        return self._dense(wide, size), size

    def forward(self, x: Tensor) -> Tensor:
        values = [x]
        for (kind, source, other, _), layer in zip(self.steps, self.layers, strict=True):
            one, two = values[source % len(values)], values[other % len(values)]
            if kind == "residual":
                values.append(layer(one).relu() + two)
            elif kind == "concat":
                values.append(torch.cat([one, two], 1))
            elif kind == "gate":
                gate, value = layer(one).chunk(2, 1)
                values.append(gate.sigmoid() * value)
            elif kind == "grouped":
                values.append(layer(torch.cat([one, one], 1)))
            else:
                values.append(layer(one).tanh())
        return self.head(values[-1].flatten(1))


STEPS = st.tuples(
    st.sampled_from(["dense", "residual", "concat", "gate", "norm", "depthwise", "grouped"]),
    st.integers(0, 9),
    st.integers(0, 9),
    st.integers(2, 6),
)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(st.lists(STEPS, min_size=2, max_size=7), st.booleans(), st.integers(0, 999))
def test_random_networks_shrink_to_themselves_with_units_at_zero(
    steps: list[tuple[str, int, int, int]], images: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    model = Drawn(steps, images).eval()
    inputs = {"x": torch.randn(3, 4, 2, 2) if images else torch.randn(3, 4)}
    traced = trace(model, inputs)
    keep = some(traced, seed)
    found = try_shrink(traced, keep)
    assert found.skipped == ()
    same(found.model, at_zero(traced, keep), inputs)
    assert macs_of(traced, keep) == count_macs(found.model, {"x": inputs["x"][:1]}).total


class Bags(nn.Module):
    """Offsets must start at 0 and rise: made-up ones seldom do."""

    def __init__(self) -> None:
        super().__init__()
        self.bag, self.first, self.last = nn.EmbeddingBag(5, 4), nn.Linear(4, 3), nn.Linear(3, 2)

    def forward(self, tags: Tensor, start: Tensor) -> Tensor:
        return self.last(self.first(self.bag(tags, start)).relu())


def test_bags_with_offsets_are_checked_on_a_batch_that_is_given() -> None:
    inputs = {"tags": torch.tensor([1, 2, 3, 4, 0]), "start": torch.tensor([0, 2, 3])}
    traced = trace(Bags().eval(), inputs)
    keep = {"bag": [0, 3], "first": [2]}
    for found in (try_shrink(traced, keep), try_shrink(traced, keep, inputs)):
        assert found.skipped == ()
        same(found.model, at_zero(traced, keep), inputs)

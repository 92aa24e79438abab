"""Groups hold all that must be cut together, and what cannot be cut is listed with the reason."""

import time

import numpy as np
import pytest
import torch
from coupled_nets import CASES, NORMED, traced_case
from torch import Tensor, nn

from flyweight.graph.coupled.analysis import components
from flyweight.graph.coupling import Group, Place, find_groups
from flyweight.graph.trace import trace
from flyweight.graph.traced import tensor_of
from flyweight.zoo.models.dcnv2 import DCNv2
from flyweight.zoo.models.resnet import ResNet


def groups_of(model: nn.Module | str, **inputs: Tensor) -> tuple[dict[str, Group], dict[str, str]]:
    traced = traced_case(model) if isinstance(model, str) else trace(model.eval(), inputs)
    groups, skipped = find_groups(traced)
    return {group.name: group for group in groups}, {one.what: one.why for one in skipped}


def places(group: Group, unit: int) -> dict[tuple[str, int], tuple[int, ...]]:
    return {(place.tensor, place.dim): place.index for place in group.units[unit].places}


def test_a_neuron_is_its_row_its_bias_and_the_column_that_reads_it() -> None:
    groups, skipped = groups_of(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), input=torch.zeros(2, 4))
    (group,) = groups.values()
    assert (group.name, group.kind, group.layers) == ("0", "neurons", ("0", "2"))
    assert group.units[1].places == (Place("0.weight", 0, (1,)), Place("0.bias", 0, (1,)), Place("2.weight", 1, (1,)))
    assert skipped == {"2": "its 2 outputs stay: the model returns it"}


@pytest.mark.parametrize("name", [*CASES, *NORMED])
def test_the_groups_of_each_network_are_as_many_and_as_large_as_its_design_says(name: str) -> None:
    sizes = {group.name: len(group.units) for group in find_groups(traced_case(name))[0]}
    assert sizes == CASES[name].groups if name in CASES else sizes.items() >= NORMED[name].groups.items()


@pytest.mark.parametrize("name", [*CASES, *NORMED])
def test_units_of_all_groups_lie_apart_and_inside_their_tensors(name: str) -> None:
    traced = traced_case(name)
    seen: set[tuple[str, int, int]] = set()
    for group in find_groups(traced)[0]:
        for unit in group.units:
            for place in unit.places:
                assert max(place.index) < tensor_of(traced.body, place.tensor).shape[place.dim]
                new = {(place.tensor, place.dim, index) for index in place.index}
                assert not new & seen
                seen |= new


def test_a_channel_takes_all_its_pixels_from_the_linear_layer_behind_flatten() -> None:
    groups, _ = groups_of("flatten")
    assert places(groups["conv"], 2)["head.weight", 1] == (8, 9, 10, 11)
    assert places(groups["extra"], 1)["head.weight", 1] == (25,)


def test_a_head_takes_its_part_of_query_key_and_value() -> None:
    groups, _ = groups_of("library attention")
    head = groups["attention"]
    assert head.kind == "heads"
    assert places(head, 1)["attention.in_proj_weight", 0] == (2, 3, 10, 11, 18, 19)
    assert places(head, 1)["attention.out_proj.weight", 1] == (2, 3)


def test_an_axis_of_a_table_is_cut_with_the_cross_layers_that_multiply_it() -> None:
    groups, _ = groups_of("dcnv2")
    item = groups["tables.item"]
    assert item.kind == "embedding"
    assert places(item, 3) == {
        **dict.fromkeys([("tables.item.weight", 1)], (3,)),
        **dict.fromkeys([(f"cross.{i}.weight", dim) for i in (0, 1) for dim in (0, 1)], (7,)),
        **dict.fromkeys([("cross.0.bias", 0), ("cross.1.bias", 0), ("mlp.0.weight", 1), ("head.weight", 1)], (7,)),
    }


def test_a_tied_weight_has_one_set_of_units_under_the_name_that_parameters_have() -> None:
    groups, skipped = groups_of("tied")
    assert groups["items"].kind == "embedding"
    assert set(places(groups["items"], 0)) == {("items.weight", 1), ("hidden.weight", 1)} | {
        *(("back.weight", 0), ("back.bias", 0))
    }
    assert skipped == {"items": "its 9 outputs stay: the model returns it"}


class Uncuttable(nn.Module):
    """Each layer's outputs meet something that cannot bear a cut."""

    def __init__(self) -> None:
        super().__init__()
        self.soft, self.mean, self.sort, self.rnn = (nn.Linear(4, 6) for _ in range(4))
        self.fft, self.joined, self.free = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 6)
        self.cell, self.head = nn.GRU(6, 5, batch_first=True), nn.Linear(25, 2)

    def forward(self, x: Tensor) -> Tensor:
        soft = self.soft(x).softmax(1) + self.free(x)
        sort = self.sort(x).sort(dim=1).values + self.mean(x).mean(1, keepdim=True)
        turned = torch.cat([torch.fft.fft(self.fft(x)).real, self.joined(x) * x], 1)
        run = self.cell(self.rnn(x).unsqueeze(1))[0].squeeze(1)
        return self.head(torch.cat([soft, sort, turned, run], 1))


def test_what_cannot_be_cut_is_listed_with_the_operator_that_forbids_it() -> None:
    groups, skipped = groups_of(Uncuttable(), x=torch.randn(3, 4))
    assert groups == {}
    assert "aten.softmax.int goes along it" in skipped["soft"]
    assert "aten.mean.dim goes over it" in skipped["mean"]
    assert "aten.sort" in skipped["sort"]
    assert "aten.gru" in skipped["rnn"]
    assert "in module cell" in skipped["rnn"]
    assert "fft" in skipped["fft"]
    assert "joined with the model's input 'x'" in skipped["joined"]
    assert skipped["free"] == "its 6 outputs stay: aten.softmax.int goes along it"  # added to softmax's result


def test_a_layer_that_is_one_unit_is_listed() -> None:
    class OneHead(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.head = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.layer(x).view(-1, 2, 2).softmax(2).cumsum(1).flatten(1))

    groups, skipped = groups_of(OneHead(), x=torch.randn(3, 3))
    assert groups == {}
    assert "aten.cumsum" in skipped["layer"] or "aten.softmax" in skipped["layer"]


def test_components_are_the_sets_that_pairs_connect() -> None:
    one, other = np.array([5, 1, 7, 8]), np.array([4, 5, 8, 2])
    assert components(9, [(one, other)]).tolist() == [0, 1, 2, 3, 1, 1, 6, 2, 2]


def test_components_agree_with_a_walk_over_random_graphs() -> None:
    generator = np.random.default_rng(0)
    for _ in range(20):
        one, other = generator.integers(0, 60, (2, 40))
        lowest = list(range(60))
        for _ in range(60):
            for a, b in zip(one, other, strict=True):
                lowest[a] = lowest[b] = min(lowest[a], lowest[b])
        assert components(60, [(one[:20], other[:20]), (one[20:], other[20:])]).tolist() == lowest


@pytest.mark.parametrize(
    ("model", "inputs"),
    [
        (lambda: ResNet(blocks=2), lambda: {"image": torch.zeros(2, 3, 32, 32)}),
        (lambda: DCNv2({f"f{i}": 100 for i in range(25)}), lambda: {f"f{i}": torch.tensor([1, 2]) for i in range(25)}),
    ],
    ids=["resnet", "default ranker"],
)
def test_groups_of_the_benchmarks_models_are_found_within_two_seconds(model, inputs) -> None:  # type: ignore[no-untyped-def]
    traced = trace(model().eval(), inputs())
    start = time.process_time()
    find_groups(traced)
    assert time.process_time() - start < 2

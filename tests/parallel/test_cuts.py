"""Every legal cut of every network gives two stages that, one after the other, are the whole; others say why not."""

import pytest
import torch
from torch import Tensor, nn

from flyweight.graph.trace import trace
from flyweight.parallel.cuts import find_cuts, operators_of, table_weights
from flyweight.parallel.split import stage_module
from graph.coupled_nets import CASES, NORMED, traced_case


@pytest.mark.parametrize("name", [*CASES, *NORMED])
def test_stages_of_every_legal_cut_give_the_whole_in_micro_batches(name: str) -> None:
    traced, inputs = traced_case(name), {**CASES, **NORMED}[name].inputs(6)
    cuts = find_cuts(traced)
    assert len(cuts.legal) + len(cuts.refused) == len(operators_of(traced.body)) - 1
    with torch.no_grad():
        wanted = traced(**inputs)
        for cut in cuts.legal:
            first, second = stage_module(traced, None, cut), stage_module(traced, cut, None)
            for rows in (slice(0, 4), slice(4, 6)):
                given = {key: value[rows] for key, value in inputs.items()}
                sent = first(**{key: given[key] for key in first.reads})
                assert sum(one[0].numel() * one.element_size() for one in sent) == cut.bytes
                found = second(*sent, **{key: given[key] for key in second.reads})
                torch.testing.assert_close(found, wanted[rows], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [*CASES, *NORMED])
def test_stages_share_the_weights_of_the_model_and_hold_each_once(name: str) -> None:
    traced = traced_case(name)
    for cut in find_cuts(traced).legal:
        held = [{id(one) for one in stage_module(traced, *ends).parameters()} for ends in ((None, cut), (cut, None))]
        whole = {id(one) for one in traced.parameters()}
        assert held[0] & held[1] <= table_weights(traced.body)
        assert whole <= held[0] | held[1]


def test_a_weight_that_both_sides_read_forbids_every_cut_between() -> None:
    """What both train would drift apart."""

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.last = nn.Linear(3, 3), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.layer(self.layer(x).relu()).relu())

    cuts = find_cuts(trace(Twice().eval(), {"x": torch.randn(4, 3)}))
    assert cuts.reasons() == {"layer.weight is read on both sides": 2}
    assert [cut.after for cut in cuts.legal] == [2, 3]


def test_a_table_that_scores_too_is_held_by_both_stages_and_trained_by_none() -> None:
    traced = traced_case("tied")
    cut = find_cuts(traced).legal[0]
    first, second = (dict(stage_module(traced, *ends).named_parameters()) for ends in ((None, cut), (cut, None)))
    table, scoring = first["traced.body.items.weight"], second["traced.body.decoder.weight"]
    assert table.data_ptr() == scoring.data_ptr()
    assert not scoring.requires_grad


def test_what_is_changed_in_place_behind_a_cut_is_not_sent() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(inplace=True), nn.Linear(4, 2))
    traced = trace(model.eval(), {"input": torch.randn(4, 3)})
    cuts = find_cuts(traced)
    assert cuts.reasons() == {"what would have to be sent is changed in place behind it": 1}
    for cut in cuts.legal:
        first, second = stage_module(traced, None, cut).train(), stage_module(traced, cut, None).train()
        sent = tuple(one.detach().requires_grad_(True) for one in first(input=torch.randn(4, 3)))
        second(*sent).sum().backward()
        assert all(one.grad is not None for one in sent)


def test_what_has_no_row_for_each_row_is_not_sent() -> None:
    class Mixes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            both = self.first(x).mean(0)
            return self.second(x * both)

    traced = trace(Mixes().eval(), {"x": torch.randn(4, 3)})
    assert "a tensor without a row for each row of the batch would have to be sent" in find_cuts(traced).reasons()

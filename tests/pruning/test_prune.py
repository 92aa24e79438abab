"""Prune as a step: targets met, widths on multiples, the original untouched, settings and impossible limits refused."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import flyweight as fw
from flyweight.cost.macs import count_macs
from flyweight.errors import InputError
from flyweight.graph.coupling import find_groups
from flyweight.graph.sparse_weight import SparseWeight
from flyweight.graph.trace import trace
from flyweight.graph.traced import TracedModel, tensor_of
from flyweight.pruning.blocks import find_blocks, without_blocks
from flyweight.pruning.calibration import first_inputs
from flyweight.pruning.choose_units import Slice, by_macs, in_order, slices_of
from flyweight.pruning.masks import free_masks, pattern_masks
from flyweight.pruning.prune import Prune
from flyweight.pruning.schedule import cubic_ratios, geometric_shares
from flyweight.pruning.share_weights import ShareWeights, shared
from flyweight.pruning.sparse_packing import with_dense_weights
from small_tasks import batches, seeded, train


class Classifier(nn.Module):
    """An 8 x 8 picture through two hidden layers and a residual block; three classes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(64, 48), nn.Linear(48, 32)
        self.up, self.down = nn.Linear(32, 24), nn.Linear(24, 32)
        self.last = nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.second(torch.relu(self.first(x.flatten(1)))))
        x = x + self.down(torch.relu(self.up(x)))
        return self.last(x)


def pictures(rows: int, seed: int) -> tuple[dict[str, Tensor], Tensor]:
    """Noise with a bright corner, a bright edge or neither: only some pixels matter."""
    generator = torch.Generator().manual_seed(seed)
    kind = torch.randint(3, (rows,), generator=generator)
    x = torch.randn(rows, 8, 8, generator=generator)
    x[:, :3, :3] += (kind == 1).float()[:, None, None]
    x[:, 7, :] += (kind == 2).float()[:, None]
    return {"x": x}, kind


@pytest.fixture(scope="module")
def task() -> fw.Task:
    data = {"train": batches(*pictures(3_000, 0), size=256), "validation": batches(*pictures(1_000, 1), size=256)}
    model = seeded(Classifier)
    train(model, data["train"], nn.functional.cross_entropy, epochs=4)
    return fw.Task(
        model=model, inputs={"x": fw.Field()}, test=data["validation"], metric="accuracy", output="columns", **data
    )


def accuracy(task: fw.Task, model: nn.Module) -> float:
    scores = task.scores("validation", model)
    return float((scores.outputs.argmax(1) == scores.targets).mean())


def macs(model: nn.Module) -> int:
    return count_macs(model, {"x": torch.zeros(1, 8, 8)}).total


def units_of(model: nn.Module, task: fw.Task) -> dict[str, int]:
    return {group.name: len(group.units) for group in find_groups(trace(model, first_inputs(task)))[0]}


WHOLE = 64 * 48 + 48 * 32 + 2 * 32 * 24 + 32 * 3


def test_a_layers_ratio_halves_every_width(task: fw.Task) -> None:
    change = Prune(ratio=0.5, scope="layer", multiple=4).apply(task)
    before, after = units_of(task.model, task), units_of(change.model, task)
    assert all(after[name] * 2 == units for name, units in before.items())
    assert macs(change.model) == 64 * 24 + 24 * 16 + 2 * 16 * 12 + 16 * 3
    assert macs(task.model) == WHOLE


@pytest.mark.parametrize("rounds", [1, 2])
def test_a_global_ratio_takes_that_share_of_all_units(task: fw.Task, rounds: int) -> None:
    change = Prune(ratio=0.5, multiple=1, rounds=rounds).apply(task)
    cut = [record for record in change.done if record["what"] == "group"]
    gone = sum(record["units_before"] - record["units_after"] for record in cut)
    assert gone == sum(units_of(task.model, task).values()) // 2
    assert all(record["units_after"] >= 1 for record in cut)


@pytest.mark.parametrize("multiple", [4, 8])
def test_widths_land_on_multiples(task: fw.Task, multiple: int) -> None:
    change = Prune(ratio=0.4, multiple=multiple).apply(task)
    cut = [record for record in change.done if record["what"] == "group"]
    assert cut
    assert all(record["units_after"] % multiple == 0 for record in cut)


@pytest.mark.parametrize("rounds", [1, 3])
def test_a_limit_of_macs_is_kept_and_not_overdone(task: fw.Task, rounds: int) -> None:
    change = Prune(max_macs=WHOLE // 3, multiple=1, rounds=rounds).apply(task)
    widest = 64 + 32  # what one unit of the first layer costs
    assert WHOLE // 3 - widest <= macs(change.model) <= WHOLE // 3
    record = next(record for record in change.done if record["what"] == "model")
    assert (record["macs_before"], record["macs_after"]) == (WHOLE, macs(change.model))


def test_saliency_beats_chance(task: fw.Task) -> None:
    drops = {
        (saliency, seed): accuracy(task, Prune(ratio=0.6, saliency=saliency, seed=seed, multiple=1).apply(task).model)
        for saliency, seed in (("taylor", 0), ("fisher", 0), ("random", 0), ("random", 1))
    }
    chance = (drops["random", 0] + drops["random", 1]) / 2
    assert drops["taylor", 0] > chance + 0.05
    assert drops["fisher", 0] > chance + 0.05


def test_recovery_brings_back_what_a_round_took(task: fw.Task) -> None:
    change = Prune(ratio=0.8, multiple=1, rounds=2, recover=1.0).apply(task)
    rounds = [record for record in change.done if record["what"] == "round"]
    assert len(rounds) == 2
    assert all(record["after"] >= record["before"] for record in rounds)
    assert rounds[-1]["macs"] == macs(change.model)


def test_the_users_model_stays_as_it_was(task: fw.Task) -> None:
    before = {name: value.clone() for name, value in task.model.state_dict().items()}
    for step in (Prune(ratio=0.5, recover=0.5), Prune(ratio=0.9, structured=False, recover=0.5), ShareWeights()):
        step.apply(task)
        assert all(torch.equal(value, before[name]) for name, value in task.model.state_dict().items())


def test_kinds_that_a_model_lacks_leave_it_whole(task: fw.Task) -> None:
    change = Prune(ratio=0.5, kinds=("heads",)).apply(task)
    assert change.model is task.model
    assert "no unit of the kinds heads" in change.skipped[-1].why


def test_a_model_within_its_limit_is_left(task: fw.Task) -> None:
    change = Prune(max_macs=10_000_000).apply(task)
    assert change.model is task.model
    assert f"takes {WHOLE:,} multiply-accumulates a row, within max_macs=10,000,000" in change.skipped[0].why


def test_a_limit_that_cannot_be_reached_says_what_can(task: fw.Task) -> None:
    with pytest.raises(InputError, match=r"max_macs=10 cannot be reached.*still takes [\d,]+ multiply-accumulates"):
        Prune(max_macs=10).apply(task)


def test_a_block_is_the_branch_of_a_residual_stream(task: fw.Task) -> None:
    traced = trace(task.model, first_inputs(task))
    (block,) = find_blocks(traced)
    assert block.name == "down"
    inputs, _, _ = next(task.batches("validation"))
    with torch.no_grad():
        x = torch.relu(task.model.first(inputs["x"].flatten(1)))  # type: ignore[operator]
        wanted = task.model.last(torch.relu(task.model.second(x)))  # type: ignore[operator]
        seen = without_blocks(traced, [block])(**inputs)
    assert torch.allclose(wanted, seen, atol=1e-5)


def test_blocks_go_by_ratio_and_by_macs(task: fw.Task) -> None:
    change = Prune(ratio=0.9, kinds=("blocks",)).apply(task)
    assert {"what": "block", "name": "down"} in change.done
    assert macs(change.model) == WHOLE - 2 * 32 * 24
    limited = Prune(max_macs=WHOLE // 2, kinds=("neurons", "blocks"), multiple=1).apply(task)
    assert macs(limited.model) <= WHOLE // 2


def test_blocks_of_a_sum_that_is_no_residual_stay() -> None:
    class TwoBranches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.left(x) + self.right(x)  # type: ignore[no-any-return]

    assert find_blocks(trace(TwoBranches().eval(), {"x": torch.rand(3, 4)})) == ()


@pytest.mark.parametrize("saliency", ["taylor", "fisher", "magnitude", "activation", "random"])
def test_single_weights_go_in_the_share_asked_for(task: fw.Task, saliency: str) -> None:
    change = Prune(ratio=0.8, structured=False, saliency=saliency, rounds=2).apply(task)
    assert isinstance(change.model, TracedModel)
    records = [record for record in change.done if record["what"] == "weights"]
    kept, of = (sum(record[key] for record in records) for key in ("kept", "of"))
    assert kept == pytest.approx(0.2 * of, abs=len(records))
    weights = [tensor_of(with_dense_weights(change.model).body, record["name"]) for record in records]
    assert sum(int((weight != 0).sum()) for weight in weights) == kept
    assert any("no engine here multiplies faster" in skipped.why for skipped in change.skipped)


def test_zeros_stay_zeros_through_recovery_and_sharing(task: fw.Task) -> None:
    sparse = Prune(ratio=0.8, structured=False, rounds=2, recover=0.5).apply(task)
    masks = _dense(sparse.model)
    coded = ShareWeights(bits=4, recover=0.5).apply(task.with_model(sparse.model))
    for name, weight in _dense(coded.model).items():
        assert not bool((weight[masks[name] == 0] != 0).any())
        assert len(torch.unique(weight)) <= 16


def _dense(model: nn.Module) -> dict[str, Tensor]:
    return {name: module().detach() for name, module in model.named_modules() if isinstance(module, SparseWeight)}


def test_a_pattern_keeps_n_of_every_m(task: fw.Task) -> None:
    change = Prune(pattern="2:4", structured=False, recover=0.5).apply(task)
    assert isinstance(change.model, TracedModel)
    weights = _dense(change.model)
    assert weights
    for weight in weights.values():
        assert int((weight.reshape(-1, 4) != 0).sum(1).max()) == 2


def test_a_layer_that_no_pattern_fits_is_listed() -> None:
    masks, left = pattern_masks({"a": torch.rand(3, 6), "b": torch.rand(2, 8)}, "2:4")
    assert masks.keys() == {"b"}
    assert left == {"a": "its 6 inputs are no multiple of 4"}


def test_a_pattern_runs_along_the_inputs_of_a_filter() -> None:
    (mask,) = pattern_masks({"conv": torch.rand(5, 8, 3, 3)}, "1:4")[0].values()
    assert torch.equal(mask.view(5, 2, 4, 3, 3).sum(2), torch.ones(5, 2, 3, 3, dtype=torch.int64))


def test_no_layer_loses_all_its_weights() -> None:
    masks = free_masks({"weak": torch.full((4, 4), 1e-9), "strong": torch.rand(100, 100) + 1}, 0.5)
    assert int(masks["weak"].sum()) == 1


def test_schedules_end_at_their_target() -> None:
    """Zhu & Gupta 2017, eq. 1, of 4 rounds to 0.9; and three equal cuts to an eighth."""
    assert cubic_ratios(0.9, 4) == pytest.approx([0.9 * (1 - x**3) for x in (0.75, 0.5, 0.25, 0.0)])
    assert geometric_shares(0.125, 3) == pytest.approx([0.5, 0.25, 0.125])


def test_pieces_go_cheapest_first_and_leave_one_step() -> None:
    pieces = slices_of("g", torch.tensor([9.0, 1.0, 5.0, 7.0, 3.0]), step=2)
    assert [piece.units for piece in pieces] == [(1,), (4, 2)]
    assert [piece.cost for piece in pieces] == [1.0, 4.0]
    other = slices_of("h", torch.tensor([2.0, 2.0, 8.0]), step=1)
    ordered = in_order([pieces, other])
    assert [(piece.group, piece.cost) for piece in ordered] == [("g", 1), ("h", 2), ("h", 2), ("g", 4)]


def test_what_turns_out_not_to_be_needed_is_given_back() -> None:
    """To take 10 away of 15, cheapest first: 3, then 2, then 10, after which the first two were for nothing."""
    gains = {"a": 3, "b": 2, "c": 10}
    ordered = [Slice("a", (0,), 1.0), Slice("b", (0,), 2.0), Slice("c", (0,), 3.0)]
    chosen = by_macs(ordered, 5.0, lambda gone: 15 - sum(gains[piece.group] for piece in gone))
    assert chosen == [ordered[2]]


def test_shared_values_are_centroids() -> None:
    weight = torch.tensor([[0.0, 1.0, 1.2], [-3.0, -3.2, 0.0]])
    coded = shared(weight, bits=2)
    assert torch.allclose(coded.codebook[coded.codes], torch.tensor([[0.0, 1.0, 1.2], [-3.1, -3.1, 0.0]]), atol=0.11)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "exactly one of ratio= and max_macs=; seen none"),
        ({"ratio": 0.5, "max_macs": 10}, "seen ratio=0.5, max_macs=10"),
        ({"ratio": 0.0}, r"must lie between 0 and 1, both excluded.*seen 0.0"),
        ({"ratio": 1.5}, "seen 1.5"),
        ({"ratio": True}, "seen True"),
        ({"max_macs": 0}, "max_macs must be a whole number of at least 1; seen 0"),
        ({"ratio": 0.5, "saliency": "vibes"}, "use one of taylor, fisher, magnitude, activation, random"),
        ({"ratio": 0.5, "scope": "galaxy"}, "scope must be"),
        ({"ratio": 0.5, "rounds": 0}, "rounds must be a whole number of at least 1"),
        ({"ratio": 0.5, "multiple": 0}, "multiple must be a whole number of at least 1"),
        ({"ratio": 0.5, "recover": -1}, "recover must be a number of epochs"),
        ({"ratio": 0.5, "kinds": ("atoms",)}, "kind 'atoms' is unknown; use some of neurons, channels"),
        ({"ratio": 0.5, "kinds": ()}, "kinds must be a tuple"),
        ({"pattern": "2:4"}, "add structured=False"),
        ({"pattern": "4:2", "structured": False}, 'must be "n:m" with 0 < n < m'),
        ({"max_macs": 5, "structured": False}, "zeros among the weights take no multiply-accumulate away"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Prune(**settings)


@pytest.mark.parametrize("bits", [0, 9, 2.5, True])
def test_bits_that_no_code_has_are_refused(bits: Any) -> None:
    with pytest.raises(InputError, match="whole number from 1 to 8"):
        ShareWeights(bits=bits)

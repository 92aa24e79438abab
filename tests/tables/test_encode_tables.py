"""The step as a whole: targets met, errors in words, the same codes for the same seed, nothing lost on Ctrl-C."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import flyweight as fw
from flyweight.tables.coded_embedding import CodedEmbedding
from flyweight.tables.recalibration import Recalibrated
from flyweight.tables.search import Search
from flyweight.tables.sizes import table_bytes
from flyweight.task.progress import shown_on
from small_tasks import FIELDS, ITEMS, USERS, Ranker, batches, seeded, splits, trained_task, world


@pytest.fixture(scope="module")
def task() -> fw.Task:
    return trained_task(seeded(Ranker))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "exactly one of bits_per_row=, ratio=, max_drop=, codings=; seen none"),
        ({"ratio": 10, "max_drop": 0.1}, "seen ratio=10, max_drop=0.1"),
        ({"ratio": 0}, "ratio must be a positive number; seen 0"),
        ({"ratio": -3.0}, "ratio must be a positive number; seen -3.0"),
        ({"max_drop": float("nan")}, "max_drop must be a positive number; seen nan"),
        ({"bits_per_row": float("inf")}, "bits_per_row must be a positive number; seen inf"),
        ({"bits_per_row": "4"}, "bits_per_row must be a positive number; seen '4'"),
        ({"ratio": True}, "seen True"),
    ],
)
def test_targets_that_make_no_sense_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(fw.InputError) as error:
        fw.EncodeTables(**settings)
    assert words in str(error.value)


def test_step_is_a_step() -> None:
    assert isinstance(fw.EncodeTables(ratio=2), fw.Step)
    assert fw.EncodeTables(ratio=2) == fw.EncodeTables(ratio=2, seed=0)


@pytest.mark.parametrize("settings", [{"ratio": 1}, {"ratio": 2.5}, {"ratio": 8}, {"ratio": 40}, {"bits_per_row": 12}])
def test_byte_target_is_met(task: fw.Task, settings: dict[str, float]) -> None:
    before = table_bytes(task.model)
    change = fw.EncodeTables(**settings).apply(task)
    after = table_bytes(change.model)
    assert before == 4 * 8 * (USERS + ITEMS)
    allowed = before / settings["ratio"] if "ratio" in settings else (USERS + ITEMS) * settings["bits_per_row"] / 8
    assert 0 < after <= allowed
    tables = [done for done in change.done if done["what"] == "table"]
    assert [done["name"] for done in tables] == ["user", "item"]
    assert sum(done["bytes_before"] for done in tables) == before
    assert sum(done["bytes_after"] for done in tables) == after
    assert change.settings == {**settings, "seed": 0}
    assert [point.table_bytes for point in change.curve if point.chosen] == [after]
    assert all(point.ratio == pytest.approx(before / point.table_bytes) for point in change.curve)


def test_target_beyond_one_vector_a_table_is_refused_with_numbers(task: fw.Task) -> None:
    with pytest.raises(fw.InputError, match=r"cannot be coded in 1 bytes.*already takes 32.*at most a ratio of 460"):
        fw.EncodeTables(ratio=10_000).apply(task)


def test_drop_target_takes_the_smallest_inside(task: fw.Task) -> None:
    change = fw.EncodeTables(max_drop=0.05).apply(task)
    (chosen,) = [point for point in change.curve if point.chosen]
    assert chosen.drop.high <= 0.05
    assert table_bytes(change.model) == chosen.table_bytes < table_bytes(task.model)


def test_drop_that_nothing_keeps_leaves_the_tables_with_the_reason(task: fw.Task) -> None:
    change = fw.EncodeTables(max_drop=1e-9).apply(task)
    if change.done:  # half precision may keep the order of every pair
        assert table_bytes(change.model) < table_bytes(task.model)
    else:
        assert change.model is task.model
        assert [one.what for one in change.skipped] == ["user", "item"]
        assert "no coding keeps the drop and its interval within 1e-09" in change.skipped[0].why


def test_same_seed_gives_the_same_codes_and_another_does_not(task: fw.Task) -> None:
    one, same, other = (fw.EncodeTables(ratio=8, seed=seed).apply(task).model.state_dict() for seed in (0, 0, 1))
    assert list(one) == list(same)
    assert all(torch.equal(value, same[name]) for name, value in one.items())
    assert list(one) != list(other) or not all(torch.equal(value, other[name]) for name, value in one.items())


def test_users_model_is_left_as_it_was(task: fw.Task) -> None:
    task.model.train()
    state = {name: value.clone() for name, value in task.model.state_dict().items()}
    change = fw.EncodeTables(ratio=8).apply(task)
    assert task.model.training
    assert all(torch.equal(value, state[name]) for name, value in task.model.state_dict().items())
    assert all(parameter.grad is None for parameter in task.model.parameters())
    assert not any(module._forward_hooks for module in task.model.modules())
    assert all(parameter.requires_grad for parameter in task.model.parameters())
    task.model.eval()
    ours = {id(parameter) for parameter in task.model.parameters()}
    assert not ours & {id(parameter) for parameter in change.model.parameters()}


def test_model_handed_on_scores_like_the_chosen_point(task: fw.Task) -> None:
    change = fw.EncodeTables(ratio=4).apply(task)
    from sklearn.metrics import roc_auc_score

    before, after = task.scores("test"), task.scores("test", change.model)
    lost = roc_auc_score(before.targets, before.outputs) - roc_auc_score(after.targets, after.outputs)
    assert lost < 0.05


def test_padding_row_stays_exact() -> None:
    class Padded(Ranker):
        def __init__(self) -> None:
            super().__init__()
            self.item = nn.Embedding(ITEMS, 8, padding_idx=3)

    task = trained_task(seeded(Padded))
    change = fw.EncodeTables(ratio=20).apply(task)
    inner = change.model.model if isinstance(change.model, Recalibrated) else change.model
    assert isinstance(inner.item, CodedEmbedding)
    assert torch.equal(inner.item(torch.tensor([3])), task.model.item.weight[3:4])


def test_model_without_tables_is_handed_back_and_said_so() -> None:
    class Dense(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Linear(1, 1)

        def forward(self, price: Tensor) -> Tensor:
            return self.last(price.unsqueeze(1)).squeeze(1)

    def make(rows: int, seed: int) -> Any:
        columns, clicked = world(rows, seed)
        return {"price": columns["price"]}, clicked

    task = trained_task(Dense(), splits(make), inputs={"price": fw.Field()})
    change = fw.EncodeTables(ratio=8).apply(task)
    assert change.model is task.model
    assert [str(one) for one in change.skipped] == ["the model: it has no table to code"]


class StopAfter:
    """A display on which the user presses Ctrl-C when so many trials are done."""

    def __init__(self, trials: int) -> None:
        self.left, self.words = trials, ""

    def begin(self, words: str, total: int | None, seconds: float | None) -> None:
        self.words = words

    def advance(self, units: int) -> None:
        if self.words.startswith("Allocating"):
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt

    def end(self) -> None:
        self.words = ""


@pytest.mark.parametrize(("settings", "trials"), [({"ratio": 8}, 1), ({"ratio": 8}, 2), ({"max_drop": 0.2}, 1)])
def test_interrupt_gives_the_best_so_far(task: fw.Task, settings: dict[str, float], trials: int) -> None:
    with shown_on(StopAfter(trials)):
        change = fw.EncodeTables(**settings).apply(task)
    assert change.interrupted
    assert table_bytes(change.model) < table_bytes(task.model) / 7
    assert sum(point.chosen for point in change.curve) == 1
    assert not fw.EncodeTables(ratio=8).apply(task).interrupted


def test_interrupt_before_anything_is_inside_goes_on_as_an_interrupt(task: fw.Task) -> None:
    with pytest.raises(KeyboardInterrupt), shown_on(StopAfter(1)):
        fw.EncodeTables(max_drop=1e-9).apply(task)


def test_budget_is_met_by_every_trial_however_tight(task: fw.Task, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[float, int]] = []
    real = Search._allocate

    def noted(self: Search, budget: float, damages: Any) -> Any:
        choice, folded = real(self, budget, damages)
        seen.append((budget, sum(table.bytes() for table in self.bench.tables_of(choice).values())))
        return choice, folded

    monkeypatch.setattr(Search, "_allocate", noted)
    for ratio in (460, 300, 100):
        fw.EncodeTables(ratio=ratio).apply(task)
    assert seen
    assert all(size <= budget for budget, size in seen)


def odd(name: str) -> fw.Task:
    """Tasks that are legal and out of the ordinary."""
    data = splits()
    settings: dict[str, Any] = {}
    model = seeded(Ranker)
    if name == "small validation":
        data["validation"] = batches(*world(40, 2), size=7)
    elif name == "three groups":
        for split in ("validation", "test"):
            for inputs, _ in data[split]:
                inputs["user_id"] %= 3
        settings["group"] = "user_id"
    elif name == "int32 ids":
        for inputs, _ in (batch for split in data.values() for batch in split):
            inputs |= {key: value.int() for key, value in inputs.items() if key != "price"}
    elif name == "float64":
        model = model.double()
        for inputs, _ in (batch for split in data.values() for batch in split):
            inputs["price"] = inputs["price"].double()
        settings["loss"] = lambda out, target: nn.functional.binary_cross_entropy_with_logits(out, target.double())
    elif name == "scalar loss":
        task = trained_task(model, data)
        return fw.Task(model, FIELDS, task.train, task.validation, task.test, loss=nn.BCEWithLogitsLoss())
    elif name == "callable metric":
        settings["metric"] = lambda outputs, targets: float(((outputs > 0) == targets).mean())
    return trained_task(model, data, **settings)


@pytest.mark.parametrize(
    "name",
    ["small validation", "three groups", "int32 ids", "float64", "scalar loss", "callable metric"],
)
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_odd_but_legal_tasks_are_coded(name: str) -> None:
    task = odd(name)
    change = fw.EncodeTables(ratio=8).apply(task)
    assert table_bytes(change.model) * 8 <= table_bytes(task.model)
    assert torch.isfinite(torch.from_numpy(task.scores("test", change.model).outputs)).all()

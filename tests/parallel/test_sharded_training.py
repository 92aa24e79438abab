"""Tables over two processes: the steps of one, whatever the optimiser, the cut and the way of looking up."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from sharded_lessons import CASES, ITEMS, lesson, settings, train_all
from staged_tasks import transformer
from torch import nn

import flyweight as fw
from flyweight.parallel.launch import joined, run_ranks
from flyweight.parallel.sharded import resume
from flyweight.parallel.sharded.files import gather_model, read_placed
from flyweight.parallel.sharded.lesson import Lesson, ShardedTraining, fresh
from flyweight.parallel.sharded.model import plan_tables
from flyweight.parallel.sharded.plan import RowShard, place_tables
from flyweight.parallel.sharded.tables import DRAWN_ROWS, Rows, start_rows
from flyweight.parallel.sharded.torchrec_versions import load_torchrec
from flyweight.parallel.sharded.training import train_part, train_sharded

OPTIMIZERS = {"sgd": torch.optim.SGD, "adagrad": torch.optim.Adagrad, "adam": torch.optim.Adam}


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """What two processes left of every case."""
    kept = tmp_path_factory.mktemp("tables")
    return run_ranks(partial(train_all, kept=kept), 2), kept


def alone(own: Lesson, how: ShardedTraining) -> tuple[nn.Module, list[float]]:
    """Train by PyTorch alone, on whole batches, and return the model and the loss of each step."""
    model, losses = own.model.train(), []
    tables = [m for m in model.modules() if isinstance(m, (nn.Embedding, nn.EmbeddingBag)) and m is not model.tied]
    for table in tables:
        table.sparse = how.table_optimizer == "adam"
    of_tables = {id(table.weight) for table in tables}
    dense = [one for one in model.parameters() if id(one) not in of_tables]
    rows = [table.weight for table in tables if table.weight.requires_grad]
    kind = OPTIMIZERS[how.table_optimizer]
    moved = [(kind(dense, lr=how.dense_rate), how.dense_rate)]
    moved.append(((torch.optim.SparseAdam if kind is torch.optim.Adam else kind)(rows, lr=how.table_rate), 0.05))
    batches, total = list(own.batches()) * 2, 6
    for number, (inputs, target, _) in enumerate(batches):
        pieces = -(-len(target) // how.batch_rows)
        for turn in range(pieces):
            at = slice(turn * how.batch_rows, (turn + 1) * how.batch_rows)
            given = {name: value[at] for name, value in inputs.items()}
            with torch.no_grad():
                said = None if own.teacher is None else own.teacher(**given)
            for optimizer, rate in moved:
                optimizer.zero_grad()
                optimizer.param_groups[0]["lr"] = rate * (1 - 0.5 * (number + turn / pieces) / total)
            value = own.loss(model(**given), target[at], said)
            value.backward()
            for optimizer, _ in moved:
                optimizer.step()
            losses.append(float(value.detach()))
    return model.eval(), losses


@pytest.mark.parametrize("case", CASES)
def test_two_processes_step_as_pytorch_does_alone(case: str, left: tuple[dict[str, Any], Path]) -> None:
    found, kept = left
    number, own = list(CASES).index(case), lesson(case)
    model = gather_model(lesson(case).model, read_placed(kept / str(number)), kept / str(number))
    wanted, losses = alone(own, settings(case))
    both = [torch.tensor(found[f"{number}-{rank}"]["losses"]) for rank in (0, 1)]
    torch.testing.assert_close(sum(both), torch.tensor(losses), rtol=1e-5, atol=1e-6)
    start = dict(lesson(case).model.named_parameters())
    for name, value in wanted.named_parameters():
        torch.testing.assert_close(dict(model.named_parameters())[name], value, rtol=1e-4, atol=2e-5)
        still = name.split(".")[0] in ("frozen", "unused", "idle")
        assert torch.equal(value, start[name]) == still, name


def test_ranks_hold_their_part_and_say_what_they_hold(left: tuple[dict[str, Any], Path]) -> None:
    memory = [left[0][f"0-{rank}"]["memory"] for rank in (0, 1)]
    first, second = ((ITEMS // 2 * 8 + 15 * 8 + 6 * 4 + frozen * 4) * 4 for frozen in (4, 3))  # float32, of 7 rows
    assert [one["tables"] for one in memory] == [first, second]
    assert all(one["peak"] > 1e8 for one in memory)


@pytest.fixture
def group(tmp_path: Path) -> Iterator[torch.device]:
    """This process as the only rank."""
    load_torchrec()
    with joined(0, 1, f"file://{tmp_path}/meeting", gpus=False) as device:
        yield device


def test_tables_on_no_device_are_drawn_where_they_belong(group: torch.device, tmp_path: Path) -> None:
    own = lesson("adam by rows")
    own.model.item = nn.Embedding(ITEMS, 8, device="meta")
    train_part(own, "auto", ShardedTraining(table_rate=1e-9, dense_rate=1e-9, spread=0.5), tmp_path, group)
    model = lesson("adam by rows").model
    gather_model(model, read_placed(tmp_path), tmp_path)
    assert model.item.weight.std().item() == pytest.approx(0.5, rel=0.2)  # 320 values: four standard errors


def test_drawn_rows_are_the_same_whoever_holds_them() -> None:
    weight = torch.empty(DRAWN_ROWS + 100, 2, device="meta")
    whole, part = torch.zeros(DRAWN_ROWS + 100, 2), torch.zeros(150, 2)
    start_rows(Rows("t", 0, whole), weight, 1.0, seed=3)
    start_rows(Rows("t", DRAWN_ROWS - 70, part), weight, 1.0, seed=3)
    assert torch.equal(part, whole[DRAWN_ROWS - 70 : DRAWN_ROWS + 80])
    assert len(whole.unique(dim=0)) == len(whole)


@pytest.mark.parametrize("case", ["adam by rows", "adagrad by table"])
def test_a_training_that_was_stopped_goes_on_to_the_same_weights(
    case: str, group: torch.device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resume, "SECONDS", 0.0)  # kept after every batch
    given = list(lesson(case).batches())
    folders = [tmp_path / "whole", tmp_path / "stopped"]
    for folder in folders:
        folder.mkdir()

    def stopped() -> Iterator[Any]:
        yield from given[:2]
        raise OSError("the disk with the third batch is gone")

    def go(folder: Path, batches: Callable[[], Iterable[Any]]) -> dict[str, Any]:
        own = lesson(case)
        own = Lesson(own.model, batches, own.count, own.loss)
        return train_part(own, "auto", settings(case), folder, group, resume=True)

    whole = go(folders[0], lambda: given)
    with pytest.raises(OSError, match="the third batch is gone"):
        go(folders[1], stopped)
    assert (folders[1] / "resume.json").exists()
    passes = iter([given, [given[2]] * 3, given])  # to see the lookups, the first pass, the second
    on = go(folders[1], lambda: next(passes))  # what is behind is not learned again
    assert on["losses"] == whole["losses"]
    both = [{file.name: file for file in sorted(folder.iterdir())} for folder in folders]
    assert both[0].keys() == both[1].keys()  # what was kept is gone: the training is over
    for name, file in both[0].items():
        if name.endswith(".npy"):
            assert file.read_bytes() == both[1][name].read_bytes()


def test_a_folder_of_another_training_is_refused(group: torch.device, tmp_path: Path) -> None:
    (tmp_path / "resume.json").write_text('{"number": 3, "identity": "another"}')
    own = lesson("sgd by rows")
    with pytest.raises(fw.InputError, match="keeps another training"):
        train_part(own, "auto", settings("sgd by rows"), tmp_path, group, resume=True)
    assert (tmp_path / "resume.json").exists()


def test_what_a_folder_keeps_of_other_weights_or_another_teaching_is_refused(
    group: torch.device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resume, "SECONDS", 0.0)
    own = lesson("sgd by rows")
    given = list(own.batches())

    def stopped() -> Iterator[Any]:
        yield given[0]
        raise OSError("gone")

    def go(*, batches: Callable[[], Iterable[Any]], teacher: nn.Module | None = None) -> None:
        one = Lesson(own.model, batches, own.count, own.loss, teacher)
        train_part(one, "auto", settings("sgd by rows"), tmp_path, group, resume=True)

    with pytest.raises(OSError, match="gone"):
        go(batches=stopped)
    with pytest.raises(fw.InputError, match="keeps another training"):
        go(batches=own.batches, teacher=own.model)
    with torch.no_grad():
        own.model.head[0].weight.add_(1.0)
    with pytest.raises(fw.InputError, match="keeps another training"):
        go(batches=own.batches)


def test_a_loss_that_is_no_number_names_the_rates(group: torch.device, tmp_path: Path) -> None:
    own = lesson("sgd by rows")
    broken = Lesson(own.model, own.batches, own.count, lambda outputs, target, said: outputs.sum() * float("nan"))
    with pytest.raises(fw.errors.FlyweightError, match="The loss is nan after 0 steps; lower table_rate"):
        train_part(broken, "auto", settings("sgd by rows"), tmp_path, group)


def test_one_sum_of_squares_a_row_is_refused_where_ids_are_computed(group: torch.device, tmp_path: Path) -> None:
    own = lesson("adam by either")
    with pytest.raises(fw.InputError, match="rowwise_adagrad steps within the backward pass"):
        train_part(own, "auto", ShardedTraining(table_optimizer="rowwise_adagrad"), tmp_path, group)


def test_what_cannot_be_shared_out_stays_whole_with_a_reason() -> None:
    own = lesson("sgd by rows")
    plan = plan_tables(own.model, *own.first(9), 2, "row")
    assert [table.name for table in plan.tables] == ["item", "user", "tags", "frozen", "unused"]
    assert "tied: whole on every rank, its weight is shared with scores.weight" in str(plan)


def test_a_table_that_is_read_as_a_whole_stays_whole() -> None:
    task = transformer()
    inputs, target, _ = next(task.batches("train"))
    plan = plan_tables(task.model, inputs, len(target), 2, "row")
    assert "items: whole on every rank, the model reads all its rows at once" in str(plan)


def test_tables_are_cut_where_they_are_larger_than_a_share() -> None:
    plan = place_tables([("large", 1_001, 16), ("small", 100, 16), ("other", 90, 16)], ranks=2)
    large, small, other = plan.tables
    assert large.shards == (RowShard(0, 0, 501), RowShard(1, 501, 500))
    assert {small.shards[0].rank, other.shards[0].rank} == {0, 1}
    assert sum(plan.bytes_of(rank) for rank in (0, 1)) == 64 * (1_001 + 100 + 90)
    assert abs(plan.bytes_of(0) - plan.bytes_of(1)) <= 64 * 11
    assert "rows of rank 0 0 to 500, rank 1 501 to 1,000" in str(plan)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"ranks": 0}, "ranks must be a whole number of at least 1; seen 0"),
        ({"by": "column"}, "one of auto, row, table; seen 'column'"),
        ({"gather": False}, "give folder="),
    ],
)
def test_settings_that_make_no_sense_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(fw.InputError, match=said):
        train_sharded(partial(lesson, "sgd by rows"), **given)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"epochs": 0}, "epochs must be a positive number; seen 0"),
        ({"table_optimizer": "lion"}, "table_optimizer 'lion' is unknown; use one of adam, adagrad"),
        ({"final_rate": 2.0}, "final_rate must be a share from 0 to 1; seen 2.0"),
        ({"batch_rows": 0}, "batch_rows must be a whole number of at least 1; seen 0"),
    ],
)
def test_training_settings_are_checked(given: dict[str, Any], said: str) -> None:
    with pytest.raises(fw.InputError, match=said):
        ShardedTraining(**given)


def test_fresh_weights_start_as_asked() -> None:
    model = fresh(lesson("sgd by rows").model, spread=0.01, seed=1)
    assert model.item.weight[1:].std().item() == pytest.approx(0.01, rel=0.2)
    assert not model.item.weight[0].any()
    assert not torch.equal(model.head[0].weight, lesson("sgd by rows").model.head[0].weight)

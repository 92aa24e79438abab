"""Stages in processes of their own: the same outputs, the same training, and nobody left behind when one fails."""

import tempfile
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from staged_tasks import TASKS, compressed, drawn_anew, is_killed, mlp, resnet, throws, transformer

import flyweight as fw
from flyweight.distillation.losses import default_distill_loss, outputs_loss
from flyweight.distillation.working import working_copy
from flyweight.graph.trace import trace
from flyweight.parallel.cuts import find_cuts
from flyweight.parallel.launch import run_ranks
from flyweight.parallel.partition import Partition, partition
from flyweight.parallel.plan import cut_as_planned, plan_of, read_plan
from flyweight.parallel.run import infer_in_stages, recover_in_stages
from flyweight.task.scores import call_model


@pytest.fixture(scope="module", params=TASKS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def cut(name: str, one_thread: None) -> Partition:
    return partition(TASKS[name](), stages=2)


def test_outputs_of_two_processes_are_those_of_one(name: str, cut: Partition) -> None:
    task = TASKS[name]()
    found = infer_in_stages(TASKS[name], cut, micro_batches=4)
    with torch.no_grad():
        model = task.model.eval()
        wanted = torch.cat([model(**inputs) for inputs, _, _ in task.batches("validation")])
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


def test_a_task_that_is_another_in_each_process_is_refused(one_thread: None) -> None:
    with pytest.raises(fw.InputError, match=r"this one has got another '.*seed what it draws"):
        infer_in_stages(drawn_anew, partition(drawn_anew(), stages=2), micro_batches=4)


ALL = "mlp pruned, coded, int8"


def test_a_compressed_model_in_two_processes_gives_what_it_gives_in_one(one_thread: None) -> None:
    task = compressed(ALL)
    found = infer_in_stages(partial(compressed, ALL), partition(task, stages=2), micro_batches=3)
    with torch.no_grad():
        wanted = torch.cat([task.model(**inputs) for inputs, _, _ in task.batches("validation")])
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


MAKERS = {"mlp": mlp, "transformer": transformer, "coded": partial(compressed, "mlp coded")}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_recovery_in_two_processes_is_recovery_in_one(make: Callable[[], fw.Task], one_thread: None) -> None:
    """Two batches of four micro-batches, Adam, soft targets; the teacher is a model trained otherwise."""
    task = taught(make)
    cut = partition(task, stages=2)
    done = recover_in_stages(partial(taught, make), cut, micro_batches=4, batches=2, rate=0.01)
    working = working_copy(trace(task.model, next(iter(task.batches("validation")))[0]))
    model, before = working.model.train(), {key: value.clone() for key, value in working.state().items()}
    output = task.output or "logit"
    loss, losses = outputs_loss(default_distill_loss(output), output, 2.0), []
    optimizer = torch.optim.Adam(working.trained.values(), lr=0.01)
    for (inputs, target, _), _ in zip(task.batches("train"), range(2), strict=False):
        with torch.no_grad():
            said = call_model(task.teacher, inputs, len(target))
        optimizer.zero_grad()
        each = loss(call_model(model, inputs, len(target)), said, None)
        each.backward()
        optimizer.step()
        losses.append(float(each.detach()))
    assert done.losses == pytest.approx(losses, rel=1e-4)
    assert done.losses[1] != done.losses[0]
    found, wanted = done.model.state_dict(), working.state()
    assert set(working.trained) <= {key for key, value in wanted.items() if not torch.equal(value, before[key])}
    for key, value in wanted.items():
        torch.testing.assert_close(found[key], value, rtol=1e-4, atol=1e-5)


def taught(make: Callable[[], fw.Task] = mlp) -> fw.Task:
    """A task whose teacher is another model than its own."""
    task = make()
    if task.model is not task.teacher:
        return task
    model = deepcopy(task.model)
    with torch.no_grad():
        for value in task.teacher.parameters():
            value.mul_(1.5)
    return task.with_model(model)


def normed() -> fw.Task:
    """A residual network whose teacher has other weights: statistics of batch norm move too."""
    task = resnet()
    other = resnet()
    with torch.no_grad():
        for value in other.model.parameters():
            value.mul_(1.3)
    return other.with_model(task.model)


def test_recovery_moves_statistics_and_leaves_the_model_as_it_was() -> None:
    task = normed()
    before = {key: value.clone() for key, value in task.model.state_dict().items()}
    cut = partition(task, stages=2)
    planned = {key: value.clone() for key, value in cut.traced.state_dict().items()}
    done = recover_in_stages(normed, cut, micro_batches=2, batches=3)
    assert all(torch.equal(value, before[key]) for key, value in task.model.state_dict().items())
    assert all(torch.equal(value, planned[key]) for key, value in cut.traced.state_dict().items())
    moved = {key for key, value in done.model.state_dict().items() if not torch.equal(value, planned[key])}
    assert {"body.norm.running_mean", "body.stages.1.0.norm2.running_var", "body.stem.weight"} <= moved


def frozen() -> fw.Task:
    task = taught()
    task.model.mlp[0].requires_grad_(False)
    return task


def test_what_the_user_has_frozen_stays_whatever_else_its_stage_holds() -> None:
    task = frozen()
    first = next(cut for cut in find_cuts(partition(task, 1).traced).legal if cut.after >= 3)  # before the last layer
    whole = partition(task, 1)
    cut = replace(whole, cuts=(first,), stages=whole.stages * 2)
    done = recover_in_stages(frozen, cut, micro_batches=4, batches=2, rate=0.1)
    weights = dict(done.model.body.named_parameters())
    assert torch.equal(weights["mlp.0.weight"], task.model.mlp[0].weight)
    assert torch.equal(weights["item.weight"], task.model.item.weight)
    assert not torch.equal(weights["mlp.2.weight"], task.model.mlp[2].weight)


@pytest.mark.parametrize(
    ("work", "said"),
    [(throws, "Rank 0 of 2 failed.*the disk of this rank is gone"), (is_killed, "Rank 0 of 2 ended by signal SIGKILL")],
)
def test_when_a_rank_dies_all_end_and_nothing_is_left(
    work: Callable[..., None], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))  # not what other tests write to meanwhile
    with pytest.raises(fw.EngineError, match=f"(?s){said}"):
        run_ranks(partial(work, died=tmp_path / "died"), 2)
    assert time.monotonic() - float((tmp_path / "died").read_text()) < 10
    assert not list((tmp_path / "temporary").iterdir())
    assert not torch.multiprocessing.active_children()


def test_a_plan_is_read_back_and_is_of_one_model_alone(cut: Partition, name: str, tmp_path: Path) -> None:
    plan_of(cut).save(tmp_path / "plan.json")
    plan = read_plan(tmp_path / "plan.json")
    assert plan == plan_of(cut)
    assert cut_as_planned(TASKS[name](), plan).cuts == cut.cuts
    other = resnet() if name != "resnet" else mlp()
    with pytest.raises(fw.InputError, match="The plan is of another graph"):
        cut_as_planned(other, plan)


def test_a_plan_that_cuts_where_nothing_can_be_cut_is_refused(cut: Partition, name: str) -> None:
    with pytest.raises(fw.InputError, match=r"The plan cuts after operators \[999\]"):
        cut_as_planned(TASKS[name](), replace(plan_of(cut), after=(999,)))


@pytest.mark.parametrize("text", ["", "{", "[]", '"abc"', "3", "null", '{"format": 2}', '{"format": 1}'])
def test_a_damaged_plan_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(fw.InputError, match=r"make (it|the plan) anew"):
        read_plan(tmp_path / "plan.json")


def refuses(rank: int, ranks: int, folder: Path) -> None:
    raise fw.InputError(f"rank {rank} was given nothing")


def test_what_a_rank_refuses_is_told_in_its_words() -> None:
    with pytest.raises(fw.InputError, match=r"^rank 0 was given nothing$"):
        run_ranks(refuses, 1)


@pytest.mark.parametrize("ranks", [0, 10_000])
def test_so_many_ranks_are_refused(ranks: int) -> None:
    with pytest.raises(fw.InputError, match=f"{ranks} processes were asked for; this machine has"):
        run_ranks(refuses, ranks)

"""A model run, or recovered, as a pipeline of local processes: one stage each."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from flyweight.distillation.losses import default_distill_loss, outputs_loss
from flyweight.errors import InputError
from flyweight.graph.tensors import put_tensor
from flyweight.graph.trace import trace
from flyweight.graph.traced import TracedModel
from flyweight.parallel.agreement import check_alike
from flyweight.parallel.launch import joined, run_ranks
from flyweight.parallel.neighbours import ends_of, infer_beside, rings_between
from flyweight.parallel.partition import Partition
from flyweight.parallel.pipeline import RATE, Batch, infer, train
from flyweight.parallel.plan import Plan, cut_as_planned, plan_of
from flyweight.parallel.ring import Ring
from flyweight.task.scores import call_model, evaluating
from flyweight.task.task import Split, Task

#: Makes the task in each process: a function of a module, or a `functools.partial` of one.
MakeTask = Callable[[], Task]
TEMPERATURE = 2.0


@dataclass(frozen=True, eq=False)
class RecoveredInStages:
    """What a recovery gave.

    Args:
        model: the whole, with the weights of all stages.
        losses: mean of each batch.
    """

    model: TracedModel
    losses: tuple[float, ...]


def infer_in_stages(
    make: MakeTask, partition: Partition, *, micro_batches: int, split: Split = "validation", batches: int | None = None
) -> Tensor:
    """Return the outputs of a split, or its first batches, from a process for each stage.

    Args:
        make: the task that the partition is of, made anew in each process.

    Raises:
        EngineError: a process failed; with its traceback.
        InputError: the partition is of another model.
    """
    rings = rings_between(len(partition.stages))
    plan = plan_of(partition)
    work = partial(_infer, make=make, split=split, batches=batches, plan=plan, micro=micro_batches, rings=rings)
    outputs = run_ranks(work, len(partition.stages))["outputs"]
    assert isinstance(outputs, Tensor)
    return _by_rows(outputs)


def recover_in_stages(
    make: MakeTask, partition: Partition, *, micro_batches: int, batches: int, rate: float = RATE
) -> RecoveredInStages:
    """Return the model taught by its teacher on some batches of the train split, a process for each stage.

    Args:
        batches: how many are learned from.
        rate: Adam's learning rate.

    Raises:
        EngineError: a process failed; with its traceback.
    """
    work = partial(_recover, make=make, plan=plan_of(partition), micro=micro_batches, batches=batches, rate=rate)
    left = run_ranks(work, len(partition.stages))
    weights = {name: value for key, held in left.items() if key.startswith("weights-") for name, value in held.items()}
    model = TracedModel(partition.traced.body, partition.traced.names)
    return RecoveredInStages(_with_weights(model, weights), tuple(left["losses"]))


def be_a_rank(make: MakeTask, plan: Plan, rank: int, ranks: int, micro_batches: int, split: Split) -> Tensor | None:
    """Be one of the processes that `torchrun` has begun, on any host; return the outputs where it is the last.

    Raises:
        InputError: there are not as many processes as stages, or they have made tasks that differ.
    """
    if ranks != len(plan.stages):
        raise InputError(f"The plan has {len(plan.stages)} stages and {ranks} processes were begun; begin as many.")
    task = make()
    partition = cut_as_planned(task, plan)
    with joined(rank, ranks) as device:
        _check_alike(task, partition, split, device)
        outputs = list(infer(partition, rank, _batches(task, split, None), micro_batches, device))
    return _by_rows(torch.cat(outputs).cpu()) if outputs else None


def _infer(
    rank: int,
    ranks: int,
    folder: Path,
    *,
    make: MakeTask,
    split: Split,
    batches: int | None,
    plan: Plan,
    micro: int,
    rings: tuple[Ring, ...],
) -> None:
    task = make()
    partition = cut_as_planned(task, plan)
    _check_alike(task, partition, split, torch.device("cpu"))
    given = _batches(task, split, batches)
    outputs = list(infer_beside(partition, rank, given, micro, ends_of(rings, rank)))
    if outputs:
        torch.save(torch.cat(outputs), folder / "outputs.pt")


def _recover(
    rank: int, ranks: int, folder: Path, *, make: MakeTask, plan: Plan, micro: int, batches: int, rate: float
) -> None:
    task = make()
    partition = cut_as_planned(task, plan)
    _check_alike(task, partition, "train", torch.device("cpu"))
    output = task.output or "logit"
    loss = outputs_loss(default_distill_loss(output), output, TEMPERATURE)
    given = _taught(task, batches) if rank == ranks - 1 else _batches(task, "train", batches)
    done = train(partition, rank, given, micro, torch.device("cpu"), partial(_by_row, loss), rate)
    torch.save(done.weights, folder / f"weights-{rank}.pt")
    if done.losses:
        torch.save(list(done.losses), folder / "losses.pt")


def _check_alike(task: Task, partition: Partition, split: Split, device: torch.device) -> None:
    """Check that this process cuts the same model, and reads the same batches, as the first: a stage has no other."""
    inputs, target, _ = next(task.batches(split))
    body = partition.traced.body
    check_alike({**dict(body.named_parameters()), **dict(body.named_buffers()), **inputs, "target": target}, device)


def _by_row(loss: Callable[..., Tensor], outputs: Tensor, said: Tensor) -> Tensor:
    return loss(_by_rows(outputs), said, None)


def _by_rows(outputs: Tensor) -> Tensor:
    """Return outputs as `call_model` does: (rows,) where there is one for each."""
    return outputs.squeeze(1) if outputs.ndim == 2 and outputs.shape[1] == 1 else outputs


def _taught(task: Task, batches: int) -> Iterator[Batch]:
    """Yield batches with what the teacher says in place of the labels."""
    for inputs, target in _batches(task, "train", batches):
        with torch.no_grad(), evaluating(task.teacher):
            said = call_model(task.teacher, inputs, len(target))
        yield inputs, said


def _batches(task: Task, split: Split, count: int | None) -> Iterator[Batch]:
    for inputs, target, _ in islice(task.batches(split), count):
        yield inputs, target


def _with_weights(model: TracedModel, weights: dict[str, Tensor]) -> TracedModel:
    """Return a copy of a traced model with other weights, by name."""

    copied = trace(model, {})
    for name, value in weights.items():  # put in place, never written over: tables and codes are shared with the model
        put_tensor(copied.body, name, value)
    copied.body.recompile()
    return copied

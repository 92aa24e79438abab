"""Recovery: a model that compression has hurt learns from its teacher what it has lost."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from flyweight.distillation.devices import find_place, inner
from flyweight.distillation.features import FeatureMatch
from flyweight.distillation.losses import LossName
from flyweight.distillation.objective import Objective
from flyweight.distillation.pairs import find_recombination
from flyweight.distillation.run import AfterStep, Run
from flyweight.distillation.standing import Standing
from flyweight.distillation.teacher import Teacher
from flyweight.distillation.training import STEP_ROWS, Training
from flyweight.distillation.working import Working, working_copy
from flyweight.task.progress import stage
from flyweight.task.task import Task


@dataclass(frozen=True, eq=False)
class Recovered:
    """A trained student.

    Args:
        model: the best found, in evaluation mode; the start itself if nothing was better on validation.
        before, after: how the start and the model stand on validation.
        curve: every standing, the start first.
        epochs: passes made.
        parameters: how many numbers were trained.
        seconds: how long it took.
        notes: what went otherwise than asked, in words.
        interrupted: whether the user stopped it.
    """

    model: nn.Module
    before: Standing
    after: Standing
    curve: tuple[Standing, ...]
    epochs: float
    parameters: int
    seconds: float
    notes: tuple[str, ...] = ()
    interrupted: bool = False


def recover(
    task: Task,
    model: nn.Module,
    *,
    epochs: float,
    teacher: nn.Module | None = None,
    lr: float = Training.lr,
    loss: LossName | None = None,
    alpha: float = Training.alpha,
    temperature: float = Training.temperature,
    resampled: float = 0.0,
    features: Mapping[str, str] | None = None,
    batch_rows: int = STEP_ROWS,
    tables: bool = False,
    seed: int = 0,
    after_step: AfterStep | None = None,
    checkpoint: Path | None = None,
) -> Recovered:
    """Return a copy of a model trained to say what its teacher says; never worse on validation than it was.

    Trained are dense layers and codebooks; embedding tables stay as they are and shared, unless `tables`. The same
    seed, data and machine give the same weights, also when killed and begun again with the same `checkpoint`.

    Args:
        task: its train split is learned from, its validation split says when to stop and what to keep.
        model: left as it is.
        teacher: None takes `task.original`.
        epochs, lr, loss, alpha, temperature, resampled, features, batch_rows, tables, seed: see `Training`.
        after_step: called with the copy after each step, without gradients (masks are put on again there).
        checkpoint: a file to go on from if it is there, written as training goes.

    Raises:
        InputError: a setting makes no sense, the shapes of outputs differ, or nothing can be trained.

    Example:
        >>> recovered = recover(task, pruned, epochs=0.2)  # doctest: +SKIP
        >>> recovered.before.metric, recovered.after.metric  # doctest: +SKIP
        (0.9021, 0.9279)
    """
    training = Training(
        epochs, lr, loss, alpha, temperature, resampled, dict(features or {}), batch_rows, tables, seed
    )
    return train(task, model, training, teacher=teacher, after_step=after_step, checkpoint=checkpoint)


def train(
    task: Task,
    model: nn.Module,
    training: Training,
    *,
    teacher: nn.Module | None = None,
    after_step: AfterStep | None = None,
    checkpoint: Path | None = None,
) -> Recovered:
    """Do what `recover` does, with its settings in one value."""
    started = time.monotonic()
    working = working_copy(model, tables=training.tables)
    place = find_place(working.model)
    working.model.to(place.device)
    original = teacher if teacher is not None else getattr(task, "original", task.model)
    asked = None if training.alpha == 1 else Teacher(place.visitor(original))
    interrupted = False
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        run = Run(task, working, _objective(task, working, training, asked), place, after_step)
    try:
        with stage("Training", total=run.passes.total) as work, torch.random.fork_rng(devices=[]):
            work.advance(run.begin(checkpoint))
            run.go_on(checkpoint, work.advance)
    except KeyboardInterrupt:
        if not run.standings:
            raise
        interrupted = True
    finally:
        if asked is not None:
            asked.close()
    return _result(run, asked, time.monotonic() - started, interrupted=interrupted)


def _objective(task: Task, working: Working, training: Training, teacher: Teacher | None) -> Objective:
    if teacher is None:
        return Objective(task, training, None)
    pairs = find_recombination(task) if training.resampled else None
    features = None
    if training.features:
        inputs = next(task.batches("train"))[0]
        features = FeatureMatch(working.model, inner(teacher.model), training.features, inputs)
    return Objective(task, training, teacher, pairs, features)


def _result(run: Run, asked: Teacher | None, seconds: float, *, interrupted: bool) -> Recovered:
    notes = list(run.notes)
    if asked is not None and asked.changed:
        notes.append(
            f"the train split gave other rows on later passes: the teacher was asked anew for {asked.changed:,} batches"
        )
    return Recovered(
        model=run.working.finished(run.best),
        before=run.standings[0],
        after=run.standings[run.best_at],
        curve=tuple(run.standings),
        epochs=run.passes.epochs(run.number),
        parameters=run.working.parameters,
        seconds=seconds,
        notes=tuple(notes),
        interrupted=interrupted,
    )

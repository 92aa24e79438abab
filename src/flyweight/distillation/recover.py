"""Recovery: a model that compression has hurt learns from its teacher what it has lost."""

import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn

from flyweight.distillation.checkpoint import rate_of
from flyweight.distillation.devices import find_place, inner
from flyweight.distillation.features import FeatureMatch
from flyweight.distillation.kept_teachers import asking
from flyweight.distillation.losses import LossName
from flyweight.distillation.objective import Objective
from flyweight.distillation.pairs import Recombination, find_recombination
from flyweight.distillation.rate import choose_rate
from flyweight.distillation.run import AfterStep, Run
from flyweight.distillation.shards import one_thread
from flyweight.distillation.standing import Standing
from flyweight.distillation.teacher import Teacher
from flyweight.distillation.together import others_for
from flyweight.distillation.training import STEP_ROWS, Training
from flyweight.distillation.working import working_copy
from flyweight.task.progress import stage
from flyweight.task.task import Task


@dataclass(frozen=True, eq=False)
class Recovered:
    """A trained student.

    Args:
        model: the best found, in evaluation mode; the start itself if nothing was better on validation.
        before, after: how the start and the model stand on validation.
        curve: every standing, the start first, then the start with batch statistics read anew if it has any.
        epochs: passes made.
        parameters: how many numbers were trained.
        lr: the learning rate that was used.
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
    lr: float
    seconds: float
    notes: tuple[str, ...] = ()
    interrupted: bool = False


def recover(
    task: Task,
    model: nn.Module,
    *,
    epochs: float,
    teacher: nn.Module | None = None,
    lr: float | None = None,
    loss: LossName | None = None,
    alpha: float = Training.alpha,
    temperature: float = Training.temperature,
    resampled: float = 0.0,
    features: Mapping[str, str] | None = None,
    batch_rows: int = STEP_ROWS,
    tables: bool = False,
    seed: int = 0,
    shards: int | None = None,
    after_step: AfterStep | None = None,
    checkpoint: Path | None = None,
) -> Recovered:
    """Return a copy of a model trained to say what its teacher says; never worse on validation than it was.

    Trained are dense layers and codebooks; embedding tables stay as they are and shared, unless `tables`. The same
    seed, data and machine give the same weights, also when killed and begun again with the same `checkpoint`.

    Args:
        task: its train split is learned from, its validation split says when to stop and what to keep.
        model: left as it is.
        teacher: None takes `task.teacher`.
        epochs, lr, loss, alpha, temperature, resampled, features, batch_rows, tables, seed, shards: see `Training`.
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
        epochs, lr, loss, alpha, temperature, resampled, dict(features or {}), batch_rows, tables, seed, shards
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
    """Do what `recover` does, with its settings in one value; with others where these name shards, and others are."""
    others = others_for(training)
    if others is not None:
        found = others(task, model, training, teacher=teacher, after_step=after_step, checkpoint=checkpoint)
        assert isinstance(found, Recovered)
        return found
    started = time.monotonic()
    place = find_place(model, alone=training.shards is not None)
    original = teacher if teacher is not None else task.teacher
    with nullcontext() if training.alpha == 1 else asking(original, place.visitor) as asked:
        changed = 0 if asked is None else asked.changed
        pairs = find_recombination(task) if training.resampled and asked is not None else None
        make = partial(_run, task, model, training, asked, pairs, after_step)
        with torch.random.fork_rng(devices=[]), one_thread() if training.shards else nullcontext():
            lr = training.lr or rate_of(checkpoint)
            run = make(lr or choose_rate(make, larger_is_better=task.spec.larger_is_better))
            interrupted = _finish(run, checkpoint)
        changed = 0 if asked is None else asked.changed - changed
    return _result(run, changed, time.monotonic() - started, interrupted=interrupted)


def _finish(run: Run, checkpoint: Path | None) -> bool:
    """Train to the end; return whether the user stopped it once there was something to hand on."""
    try:
        with stage("Training", total=run.passes.total) as work:
            work.advance(run.begin(checkpoint))
            run.go_on(checkpoint, work.advance)
    except KeyboardInterrupt:
        if not run.standings:
            raise
        return True
    return False


def _run(
    task: Task,
    model: nn.Module,
    training: Training,
    teacher: Teacher | None,
    pairs: Recombination | None,
    after_step: AfterStep | None,
    lr: float,
) -> Run:
    """Return a training of a copy of a model, at its start."""
    place = find_place(model, alone=training.shards is not None)
    working = working_copy(model, tables=training.tables)
    working.model.to(place.device)
    features = None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)  # what features are mapped with starts at random
        if training.features and teacher is not None:
            inputs, _, _ = next(task.batches("train"))
            features = FeatureMatch(working.model, inner(teacher.model), training.features, inputs)
    return Run(task, working, Objective(task, training, teacher, pairs, features), place, lr, after_step)


def _result(run: Run, changed: int, seconds: float, *, interrupted: bool) -> Recovered:
    notes = list(run.notes)
    if changed:
        notes.append(
            f"the train split gave other rows on later passes: the teacher was asked anew for {changed:,} batches"
        )
    return Recovered(
        model=run.working.finished(run.best),
        before=run.standings[0],
        after=run.standings[run.best_at],
        curve=tuple(run.standings),
        epochs=run.passes.epochs(run.number),
        parameters=run.working.parameters,
        lr=run.lr,
        seconds=seconds,
        notes=tuple(notes),
        interrupted=interrupted,
    )

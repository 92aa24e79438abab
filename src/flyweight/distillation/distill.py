"""The step that trains a student on what the original model says."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from flyweight.distillation.losses import LossName, check_loss, default_distill_loss
from flyweight.distillation.objective import check_shapes
from flyweight.distillation.recover import Recovered, train
from flyweight.distillation.student import Student, Thinner, make_student
from flyweight.distillation.training import STEP_ROWS, Training
from flyweight.errors import InputError
from flyweight.task.change import Change, Skipped
from flyweight.task.scores import call_model, evaluating
from flyweight.task.task import Task

STEP = "distill"


@dataclass(frozen=True)
class Distill:
    """Train a student to say what the task's original model says, and keep the best on validation.

    Args:
        epochs: passes over the train split; a fraction is a part of one.
        student: None trains the task's current model (a pruned or quantised one), a `Thinner` derives a thinner copy
            of it, a module is trained as it is.
        lr, loss, alpha, temperature, resampled, features, batch_rows, seed, shards: see `Training`.
        tables: whether embedding tables are trained; None trains those of a student that is a module of your own.
        checkpoint: a file to go on from after a kill, written as training goes.

    Raises:
        InputError: a setting makes no sense; says which values do.

    Example:
        >>> Distill(epochs=0.2).name
        'distill'
    """

    epochs: float
    student: nn.Module | Thinner | None = None
    lr: float | None = None
    loss: LossName | None = None
    alpha: float = Training.alpha
    temperature: float = Training.temperature
    resampled: float = 0.0
    features: Mapping[str, str] = field(default_factory=dict)
    batch_rows: int = STEP_ROWS
    tables: bool | None = None
    seed: int = 0
    checkpoint: str | Path | None = None
    shards: int | None = field(default=None, repr=False)  # so that trainings kept before there were shards are found

    def __post_init__(self) -> None:
        if self.student is not None and not isinstance(self.student, (nn.Module, Thinner)):
            raise InputError(
                "Distill student must be a torch.nn.Module, a Thinner(width=, depth=) or None for the task's own "
                f"model; seen {type(self.student).__name__}."
            )
        self.training()

    @property
    def name(self) -> str:
        """The step's name in recipes and reports."""
        return STEP

    def training(self) -> Training:
        """Return the settings of the training.

        Raises:
            InputError: one makes no sense.
        """
        own = isinstance(self.student, nn.Module)
        return Training(
            epochs=self.epochs,
            lr=self.lr,
            loss=self.loss,
            alpha=self.alpha,
            temperature=self.temperature,
            resampled=self.resampled,
            features=self.features,
            batch_rows=self.batch_rows,
            tables=own if self.tables is None else self.tables,
            seed=self.seed,
            shards=self.shards,
        )

    def apply(self, task: Task) -> Change:
        """Return the trained student, or the student as it was where nothing was better on validation.

        Raises:
            InputError: the student's outputs are not of the teacher's shape, or the loss does not fit them.
        """
        return distill(task, self)


def distill(task: Task, settings: Distill) -> Change:
    """Train a student on a task's original model; see `Distill`."""
    check_loss(settings.loss or default_distill_loss(task.output or "logit"), task.output or "logit")
    student = _student(task, settings)
    check_student(task, student.model)
    path = None if settings.checkpoint is None else Path(settings.checkpoint)
    recovered = train(task, student.model, settings.training(), checkpoint=path)
    return Change(
        step=STEP,
        model=recovered.model,
        settings=_recipe(settings),
        done=(*student.done, _record(task, settings, recovered)),
        skipped=(*student.skipped, *_left(recovered)),
        interrupted=recovered.interrupted,
    )


def check_student(task: Task, student: nn.Module) -> None:
    """Refuse a student whose outputs are not like the teacher's, before any work.

    Raises:
        InputError: with both shapes.
    """
    inputs, target, _ = next(task.batches("train"))
    teacher = task.teacher
    with evaluating(student), evaluating(teacher), torch.no_grad():
        check_shapes(call_model(student, inputs, len(target)), call_model(teacher, inputs, len(target)))


def _student(task: Task, settings: Distill) -> Student:
    if settings.student is None:
        return Student(task.model)
    if isinstance(settings.student, nn.Module):
        return Student(settings.student)
    return make_student(task.model, settings.student, next(task.batches("train"))[0])


def _recipe(settings: Distill) -> dict[str, Any]:
    """Return the settings as plain values; a student of the user's own by its class."""
    plain = asdict(settings.training())
    student = settings.student
    if student is not None:
        plain["student"] = asdict(student) if isinstance(student, Thinner) else type(student).__name__
    return {name: value for name, value in plain.items() if value is not None and value != {}}


def _record(task: Task, settings: Distill, recovered: Recovered) -> dict[str, Any]:
    return {
        "what": "training",
        "parameters": recovered.parameters,
        "epochs": recovered.epochs,
        "lr": recovered.lr,
        "seconds": round(recovered.seconds, 1),
        "loss": settings.loss or default_distill_loss(task.output or "logit"),
        "metric": task.spec.name,
        "validation_before": recovered.before.metric,
        "validation_after": recovered.after.metric,
        "best_epoch": recovered.after.epoch,
        "curve": [{"epoch": one.epoch, "validation": one.metric, "loss": one.loss} for one in recovered.curve],
    }


def _left(recovered: Recovered) -> tuple[Skipped, ...]:
    notes = list(recovered.notes)
    if recovered.after.epoch == 0:
        notes.append("nothing was better on validation than the start, which was kept; lower lr or give more epochs")
    return tuple(Skipped("training", note, STEP) for note in notes)

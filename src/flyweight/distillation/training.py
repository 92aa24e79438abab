"""The settings of a recovery, checked when built."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import get_args

from flyweight.distillation.losses import LossName
from flyweight.errors import InputError

#: Rows of a step where `batch_rows` is not given and the task's batches are larger.
STEP_ROWS = 512


@dataclass(frozen=True)
class Training:
    """How to train a student.

    Args:
        epochs: passes over the train split; a fraction is a part of one.
        lr: Adam's highest learning rate; it falls to 0 along a half cosine (Loshchilov, Hutter 2017). None tries a few
            for a moment, see `choose_rate`.
        loss: what is learned of the teacher: "soft", "score", "pairwise" or "listwise"; None goes with the outputs.
        alpha: the share of the true labels in the loss: 0 is the teacher alone, 1 the labels alone.
        temperature: of soft targets and ranking losses.
        resampled: the share of new user-item combinations, scored by the teacher, in each batch.
        features: modules whose outputs are matched too: student's name to teacher's name.
        batch_rows: rows of a step; larger batches of the task are cut, in a new order each epoch.
        tables: whether embedding tables are trained too.
        seed: of everything drawn.
        shards: pieces that each step's rows are cut into, whoever computes them; their gradients are added in order, so
            that weights are the same to the last bit for any number of processes. None cuts nothing.

    Raises:
        InputError: names the setting, what was seen and what it may be.
    """

    epochs: float
    lr: float | None = None
    loss: LossName | None = None
    alpha: float = 0.0
    temperature: float = 2.0
    resampled: float = 0.0
    features: Mapping[str, str] = field(default_factory=dict)
    batch_rows: int = STEP_ROWS
    tables: bool = False
    seed: int = 0
    shards: int | None = None

    def __post_init__(self) -> None:
        if self.lr is not None:
            _check("lr", self.lr, above=0.0, hint="a positive number")
        for name in ("epochs", "temperature"):
            _check(name, getattr(self, name), above=0.0, hint="a positive number")
        _check("alpha", self.alpha, least=0.0, most=1.0, hint="a share from 0 (teacher) to 1 (labels)")
        _check("resampled", self.resampled, least=0.0, most=0.9, hint="a share from 0 to 0.9")
        if self.loss is not None and self.loss not in get_args(LossName):
            raise InputError(f"loss {self.loss!r} is unknown; use one of {', '.join(get_args(LossName))}.")
        if isinstance(self.batch_rows, bool) or not isinstance(self.batch_rows, int) or self.batch_rows < 2:
            raise InputError(f"batch_rows must be a whole number of at least 2; seen {self.batch_rows!r}.")
        if self.shards is not None and (
            isinstance(self.shards, bool) or not isinstance(self.shards, int) or not 1 <= self.shards <= self.batch_rows
        ):
            raise InputError(
                f"shards must be a whole number from 1 to batch_rows={self.batch_rows}, or None; seen {self.shards!r}."
            )
        if not isinstance(self.features, Mapping):
            raise InputError(
                "features must map names of the student's modules to names of the teacher's, as in "
                f"{{'body.1': 'layers.3'}}; seen {type(self.features).__name__}."
            )


def _check(
    name: str, value: object, *, above: float | None = None, least: float | None = None, most: float | None = None,
    hint: str
) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value)
    if (
        not number
        or (above is not None and not value > above)  # type: ignore[operator]
        or (least is not None and value < least)  # type: ignore[operator]
        or (most is not None and value > most)  # type: ignore[operator]
    ):
        raise InputError(f"{name} must be {hint}; seen {value!r}.")

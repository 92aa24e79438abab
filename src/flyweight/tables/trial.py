"""One choice of codings tried as a whole: the model it gives, and what validation says of it."""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from flyweight.errors import InputError
from flyweight.quality.intervals import paired_drop
from flyweight.tables.allocation import Choice
from flyweight.tables.coding import CodedBand
from flyweight.tables.damage import Item
from flyweight.tables.recalibration import Recalibration, fit, fit_like, recalibrates
from flyweight.tables.replace import AnyTable, build_table, with_tables
from flyweight.tables.sensitivity import row_losses
from flyweight.tables.sites import Table
from flyweight.task.change import Point
from flyweight.task.estimate import Estimate
from flyweight.task.metric import Metric
from flyweight.task.scores import Scores
from flyweight.task.task import Task

#: Resamples for intervals during the search, where the metric has no closed form; the certificate takes more.
RESAMPLES = 200
#: How probable the certificate must be for a choice to be handed on.
ASSURANCE = 0.95
LOGLOSS = Metric("logloss", larger_is_better=False, kind="binary")


@dataclass(frozen=True, eq=False)
class Trial:
    """A choice, the model it gives and its drop on validation.

    Args:
        choice: option number of each item.
        model: shares every weight that is not coded with the original; for evaluation only.
        table_bytes: bytes of all tables, what is not coded included.
        drop: paired drop of the task's metric on rows that the choice did not see (see `Bench.run`).
        guard: the same for the logloss, or None where the outputs are no probabilities.
        loss: mean loss on rows the choice did not see, calibrated to the labels.
        calibration: the recalibration to the labels, which predictions start from; `recalibration` is handed on.
    """

    choice: Choice
    model: nn.Module
    tables: dict[str, AnyTable]
    recalibration: Recalibration
    table_bytes: int
    drop: Estimate
    guard: Estimate | None
    loss: float
    calibration: Recalibration

    def within(self, max_drop: float, test_size: float) -> bool:
        """Return whether a certificate on the test split will probably find every drop inside a margin.

        Args:
            max_drop: the margin.
            test_size: rows (groups, where there are any) of the test split for each one of validation.
        """
        drops = [self.drop] if self.guard is None else [self.drop, self.guard]
        return all(likely_bad_end(drop, test_size) <= max_drop for drop in drops)

    def point(self, before: int, *, chosen: bool, label: str = "") -> Point:
        """Return this trial as a point of the curve of bytes against drop."""
        return Point(self.table_bytes, before / self.table_bytes, self.drop, chosen, label)


def likely_bad_end(drop: Estimate, test_size: float, assurance: float = ASSURANCE) -> float:
    """Return what the interval's bad end on test data will not exceed, with a probability of `assurance`.

    The certificate is drawn from other rows than the choice: its value differs from this one by the noise of both, and
    its interval is as wide as its own rows allow (assurance of a non-inferiority trial; O'Hagan et al. 2005).

    Example:
        >>> round(likely_bad_end(Estimate(0.0, -0.000196, 0.000196, n=10_000), test_size=1.0), 6)
        0.000429
    """
    normal = NormalDist()
    quantile = normal.inv_cdf(0.5 + drop.confidence / 2)
    error = (drop.high - drop.value) / quantile
    test_error = error / math.sqrt(test_size)
    return drop.value + quantile * test_error + normal.inv_cdf(assurance) * math.hypot(error, test_error)


@dataclass(frozen=True, eq=False)
class Bench:
    """All that a trial needs: the task, the tables with their options, and the original's scores on validation.

    Args:
        folds: (rows,) which part of the validation data each row is in.
        test_size: rows (groups, where there are any) of the test split for each one of validation.
    """

    task: Task
    tables: tuple[Table, ...]
    items: tuple[Item, ...]
    before: Scores
    folds: NDArray[np.int64]
    test_size: float

    @property
    def bytes_before(self) -> int:
        """Bytes of the tables as they are."""
        return sum(table.bytes for table in self.tables)

    def tables_of(self, choice: Choice) -> dict[str, AnyTable]:
        """Return the coded tables of a choice, by table name; a table without items is not among them."""
        bands: dict[str, list[CodedBand]] = {table.name: [] for table in self.tables}
        for item, option in zip(self.items, choice, strict=True):
            bands[item.table].append(item.options[option])
        return {
            table.name: build_table(tuple(bands[table.name]), table.dtype)
            for table in self.tables
            if bands[table.name]
        }

    def run(self, choice: Choice, folded: tuple[Choice, ...]) -> Trial:
        """Build the model of a choice, and judge how it was chosen on rows that did not take part.

        A choice made on validation data looks better there than it is. So the same budget is allocated once more
        without each fold, that fold is scored by the model chosen without it, and the scores together are compared with
        the original's: cross-validation of the whole choice, on all rows.

        Args:
            choice: made on all validation rows.
            folded: made on all rows but those of each fold.
        """
        coded = self.tables_of(choice)
        model = self._model(coded)
        after = self._scores(model)
        recalibration = self._fit_like(after, np.ones(len(self.folds), dtype=bool))
        outputs, losses = np.empty_like(after.outputs), []
        for fold, other in enumerate(folded):
            rows = self.folds == fold
            scores = after if (other == choice).all() else self._scores(self._model(self.tables_of(other)))
            fitted = self._fit_like(scores, ~rows)
            outputs[rows] = fitted.apply(torch.from_numpy(scores.outputs[rows])).numpy()
            losses.append(self._losses(scores, fit_on=~rows)[rows])
        return Trial(
            choice=choice,
            model=model,
            tables=coded,
            recalibration=recalibration,
            table_bytes=sum(self._bytes(table, coded) for table in self.tables),
            drop=self._drop(self.task.spec, outputs),
            guard=self._drop(LOGLOSS, outputs) if recalibrates(self.task) else None,
            loss=float(np.concatenate(losses).mean()),
            calibration=self.fit(after.outputs),
        )

    def fit(self, outputs: NDArray[np.float64]) -> Recalibration:
        """Return the recalibration of outputs to the validation labels."""
        return fit(self.task, outputs, self.before.targets)

    def _model(self, coded: dict[str, AnyTable]) -> nn.Module:
        return with_tables(self.task.model, self.tables, coded, share=True)

    def _bytes(self, table: Table, coded: dict[str, AnyTable]) -> int:
        return coded[table.name].bytes() if table.name in coded else table.bytes

    def _scores(self, model: nn.Module) -> Scores:
        """Run a model over validation."""
        after = self.task.scores("validation", model)
        if not np.isfinite(after.outputs).all():
            raise InputError("The model with coded tables gives NaN or infinite outputs on validation data.")
        return after

    def _fit_like(self, after: Scores, fit_on: NDArray[np.bool_]) -> Recalibration:
        """Return a recalibration fitted on some of the rows."""
        before = self.before.outputs[fit_on]
        return fit_like(self.task, before, after.outputs[fit_on], after.targets[fit_on])

    def _drop(self, metric: Metric, after: NDArray[np.float64]) -> Estimate:
        judged = self.task.judged
        return paired_drop(
            metric,
            judged(metric, self.before.outputs),
            judged(metric, after),
            self.before.targets,
            self.before.groups,
            resamples=RESAMPLES,
        )

    def _losses(self, scores: Scores, fit_on: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return the loss of each row, after a recalibration to the labels of some of them."""
        fitted = fit(self.task, scores.outputs[fit_on], scores.targets[fit_on])
        calibrated = fitted.apply(torch.from_numpy(scores.outputs))
        losses = row_losses(self.task, calibrated, torch.from_numpy(scores.targets))
        return np.asarray(losses.numpy(), dtype=np.float64)

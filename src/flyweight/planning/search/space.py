"""What a task lets the search vary, and how a candidate stands in Optuna's terms."""

from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from torch import nn

from flyweight.cost.macs import count_macs
from flyweight.distillation.working import working_copy
from flyweight.errors import FlyweightError
from flyweight.planning.search.candidate import MULTIPLE, Bits, Candidate
from flyweight.planning.search.least_macs import least_macs
from flyweight.planning.search.workbench import Workbench
from flyweight.task.change import Skipped

#: Steps of the shares of units and single weights that go, and of the epochs of learning.
UNITS = (0.0, 0.25, 0.5, 0.75, 0.875, 0.9375, 0.97)
WEIGHTS = (0.0, 0.8, 0.9, 0.95, 0.97, 0.98)
EPOCHS = (0.0, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
BITS: tuple[Bits, ...] = ("float32", "int8", "int8 weights")
#: Below this ratio tables stay as they are; above this share matrices stay whole.
LEAST_RATIO, WHOLE = 1.5, 0.85


@dataclass(frozen=True, eq=False)
class Space:
    """What can be varied.

    Args:
        most: how many times smaller the tables can be; 1 where there are none.
        macs: multiply-accumulates of one row of the original; least: the share of them that the lowest ranks leave.
        layers: whether its layers can be changed at all.
        single: whether single weights are worth taking out: layers, not tables, hold the bytes.
        epochs: the most epochs of learning.
        teacher: how many times smaller the tables of the best teacher are; 1 for the original.
        skipped: what cannot be varied, with the reason.
    """

    most: float
    macs: int
    least: float
    layers: bool
    single: bool
    epochs: float
    teacher: float
    skipped: tuple[Skipped, ...]

    def distributions(self) -> dict[str, BaseDistribution]:
        """Return what Optuna draws from."""
        found: dict[str, BaseDistribution] = {}
        if self.most > LEAST_RATIO:
            found["tables"] = FloatDistribution(1.0, self.most, log=True)
        if self.layers:
            found["units"] = IntDistribution(0, len(UNITS) - 1)
            found["macs"] = FloatDistribution(self.least, 1.0, log=True)
            found["bits"] = CategoricalDistribution(BITS)
            found["learn_first"] = CategoricalDistribution((True, False))
        if self.single:
            found["weights"] = IntDistribution(0, len(WEIGHTS) - 1)
        if self.learnable:
            found["epochs"] = IntDistribution(0, sum(one <= self.epochs for one in EPOCHS) - 1)
        return found

    @property
    def learnable(self) -> bool:
        """Whether there is something to vary that learning could mend."""
        return self.layers or self.most > LEAST_RATIO

    def params(self, candidate: Candidate) -> dict[str, Any]:
        """Return a candidate in Optuna's terms, held within what can be varied."""
        whole = {
            "tables": min(max(candidate.tables, 1.0), self.most),
            "units": _nearest(UNITS, candidate.units),
            "macs": min(max(candidate.macs, self.least), 1.0),
            "bits": candidate.bits,
            "learn_first": candidate.learn_first,
            "weights": _nearest(WEIGHTS, candidate.weights),
            "epochs": _nearest(EPOCHS, min(candidate.epochs, self.epochs)),
        }
        return {name: whole[name] for name in self.distributions()}

    def candidate(self, params: dict[str, Any]) -> Candidate:
        """Return the candidate of Optuna's values; what would do next to nothing is nothing."""
        weights = WEIGHTS[params.get("weights", 0)]
        tables, macs = params.get("tables", 1.0), params.get("macs", 1.0)
        return Candidate(
            tables=tables if tables >= LEAST_RATIO else 1.0,
            units=UNITS[params.get("units", 0)],
            weights=weights,
            macs=macs if macs <= WHOLE else 1.0,
            epochs=EPOCHS[params.get("epochs", 0)],
            teacher=self.teacher if params.get("epochs", 0) else 1.0,
            learn_first=params.get("learn_first", True),
            bits="float32" if weights else params.get("bits", "float32"),
        )


def find_space(bench: Workbench, most_epochs: float, teacher: float | None = None) -> Space:
    """Return what a task lets the search vary.

    Args:
        teacher: how many times smaller the best teacher's tables are, where that is known from an earlier sitting.
    """
    task = bench.task
    skipped = list(bench.coder.skipped)
    most = 1.0
    if bench.coder.tables:
        most = 0.9 * bench.coder.bytes / bench.coder.smallest()
    inputs = bench.samples[0]
    macs = count_macs(task.model, inputs, bench.rows).total
    epochs = most_epochs if _can_learn(task.model) else 0.0
    layers, least = macs > 0 and epochs > 0, 1.0
    try:
        least = least_macs(task, MULTIPLE) / max(macs, 1)
    except FlyweightError as error:
        layers = False
        skipped.append(Skipped("layers", f"the model cannot be traced: {error}", "search"))
    dense = _bytes(task.model) - bench.coder.bytes
    taught = teacher if teacher is not None else _best_teacher(bench) if most > LEAST_RATIO else 1.0
    single = layers and dense > bench.coder.bytes
    return Space(most, macs, min(least, WHOLE), layers, single, epochs, taught, tuple(skipped))


def _can_learn(model: nn.Module) -> bool:
    """Return whether there are weights beside tables: what could be trained, thinned or rounded."""
    try:
        working_copy(model, tables=False)
    except FlyweightError:
        return False
    return True


def _best_teacher(bench: Workbench) -> float:
    try:
        return bench.coder.best_teacher()
    except FlyweightError:  # codings break the model, or its metric; trials will say it
        return 1.0


def _bytes(model: nn.Module) -> int:
    return sum(one.numel() * one.element_size() for one in {id(p): p for p in model.parameters()}.values())


def _nearest(values: tuple[float, ...], value: float) -> int:
    return min(range(len(values)), key=lambda place: abs(values[place] - value))


def quiet_optuna() -> None:
    """Keep Optuna's own lines off the terminal; the search tells what it does."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)

"""What a report shows, as plain values: whoever compressed a model fills this in."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from flyweight.report.allocation_data import AllocationRow
from flyweight.report.search_data import SearchTold
from flyweight.task.change import Point, Skipped
from flyweight.task.estimate import Estimate
from flyweight.task.measurement import Latency, Measurement

Role = Literal["before", "exported", "after"]


@dataclass(frozen=True)
class TableRow:
    """One embedding table, before and after.

    Args:
        name: the module's name in the model.
        rows, dim: its shape.
        coding: how a row is stored now, in words ("one 4-bit code per row into 16 centroids").
        bytes_before, bytes_after: float rows; codes, codebooks and id maps.
    """

    name: str
    rows: int
    dim: int
    coding: str
    bytes_before: int
    bytes_after: int


@dataclass(frozen=True)
class LayerRow:
    """The weights of one layer, before and after.

    Args:
        name: of the tensor in the model ("layer1.0.conv1.weight").
        before, after: its shape and how it is stored, in words ("256 x 400 float32", "32 x 56 int8").
        bytes_before, bytes_after: of its numbers and what says how to read them.
    """

    name: str
    before: str
    after: str
    bytes_before: int
    bytes_after: int


@dataclass(frozen=True, eq=False)
class ScoreSample:
    """What both models said about the same rows.

    Args:
        before, after: scores, shape (rows,); probabilities where the targets are 0/1.
        targets: (rows,) the truth, or None where it is no number a row.
        binary: whether the targets are 0/1 and the scores probabilities, so that a calibration curve can be drawn.
    """

    before: NDArray[np.float64]
    after: NDArray[np.float64]
    targets: NDArray[Any] | None = None
    binary: bool = True


@dataclass(frozen=True, eq=False)
class Timing:
    """Wall time of one model in one engine, all of a report timed in turns in the same run.

    Args:
        name: what was timed, in words ("original, PyTorch").
        role: "before" is what the user runs today, "exported" the same model in a faster engine, "after" the result.
        samples: milliseconds of each round, (rounds,), where they were kept.
        chosen: whether this is what the bundle will run.
        note: what is to be said about it ("refused: scores off by 0.66 above id 2^24").
    """

    name: str
    role: Role
    latency: Latency
    samples: NDArray[np.float64] | None = None
    chosen: bool = False
    note: str = ""


@dataclass(frozen=True, eq=False)
class ReportData:
    """All that the page and the terminal table show; what is missing is left out of them.

    Args:
        name: the model's name.
        metric: name of the metric ("auc").
        before, after: size, work and quality of both exported models, on the same rows.
        drop: the paired drop in the metric; positive is worse.
        certified: whether every interval's bad end lies inside its margin.
        margin: the drop that was allowed; None when no budget was set.
        guard_drops, guard_margins: the same for the other metrics, by name.
        missed: what of the budget was not reached and by how much, one sentence each.
        helps: what would help where the budget was missed, in words.
        tables: every table, in the model's order.
        layers: the weights of every layer that changed, in the model's order.
        curve: points tried, on validation data.
        scores: a sample of rows scored by both models.
        timings: what was timed, the original first.
        speedup: ratio of the median times, before / after, with its interval.
        resident_before, resident_after: bytes of memory that a running engine grows by.
        engine: the engine that the bundle names.
        unit: what a row of the timed call is: "candidates" of a request, or plain "rows".
        changes: what was done, in words.
        hoisted: what is worked out once for all candidates of a request, in words.
        limit: how near to the machine's limits the compressed model runs, in words.
        skipped: what was left as it was, with reasons.
        notes: further facts on how it was measured, in words ("scores agree with PyTorch to 3e-06").
        hardware: as `flyweight.cost.hardware.describe_hardware` gives it.
        seed: the seed of everything random.
        seconds: how long the whole work took.
        look_next: where to look next, in words or as commands.
        allocation: what was chosen for each table and frequency band, and for each layer.
        search: the automatic search that found the recipe; None where the steps were given.
    """

    name: str
    metric: str
    before: Measurement
    after: Measurement
    drop: Estimate
    certified: bool
    margin: float | None = None
    guard_drops: Mapping[str, Estimate] = field(default_factory=dict)
    guard_margins: Mapping[str, float] = field(default_factory=dict)
    missed: tuple[str, ...] = ()
    helps: tuple[str, ...] = ()
    tables: tuple[TableRow, ...] = ()
    layers: tuple[LayerRow, ...] = ()
    curve: tuple[Point, ...] = ()
    scores: ScoreSample | None = None
    timings: tuple[Timing, ...] = ()
    speedup: Estimate | None = None
    resident_before: int | None = None
    resident_after: int | None = None
    engine: str = ""
    unit: str = "candidates"
    changes: tuple[str, ...] = ()
    hoisted: str = ""
    limit: str = ""
    skipped: tuple[Skipped, ...] = ()
    notes: tuple[str, ...] = ()
    hardware: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    seconds: float | None = None
    look_next: tuple[str, ...] = ()
    allocation: tuple[AllocationRow, ...] = ()
    search: SearchTold | None = None

    def timing(self, role: Role) -> Timing | None:
        """Return the timing of a role, the chosen one first; None when nothing of that role was timed."""
        found = [timing for timing in self.timings if timing.role == role]
        return next((timing for timing in found if timing.chosen), found[0] if found else None)

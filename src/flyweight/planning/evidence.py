"""The findings in the two forms they are handed on: what a report shows, and what a bundle keeps."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from flyweight.bundle.manifest import (
    Certificate,
    Dtype,
    EstimateEntry,
    Evidence,
    Guard,
    InputEntry,
    MeasurementEntry,
    Output,
    PointEntry,
    SkippedEntry,
    StepEntry,
    TableEntry,
)
from flyweight.bundle.samples import Sample
from flyweight.bundle.timing import EngineTried, Hardware, Latencies, LatencyEntry, Timing
from flyweight.bundle.write import Contents
from flyweight.cost.hardware import describe_hardware
from flyweight.cost.latency import speedup
from flyweight.planning.artefact import Artefact
from flyweight.planning.budget import Budget
from flyweight.planning.certificate import Comparison
from flyweight.planning.clock import Race
from flyweight.quality.intervals import non_inferior
from flyweight.report.data import ReportData, ScoreSample, TableRow
from flyweight.report.data import Timing as Timed
from flyweight.task.change import Change, Skipped
from flyweight.task.estimate import Estimate
from flyweight.task.measurement import Latency, Measurement
from flyweight.task.scores import Scores
from flyweight.task.step import Step
from flyweight.task.task import Task

#: Rows of the scatter and calibration pictures.
PICTURE_ROWS = 20_000


@dataclass(frozen=True, eq=False)
class Findings:
    """Everything that was measured of the two exported models.

    Args:
        scores: of the original and of the compressed model on the test split.
        resident: bytes a process grows by with the original's export and with the compressed model.
    """

    before: Measurement
    after: Measurement
    artefacts: tuple[Artefact, Artefact]
    comparison: Comparison
    scores: tuple[Scores, Scores]
    race: Race
    resident: tuple[int | None, int | None]


def report_of(
    task: Task, found: Findings, changes: tuple[Change, ...], budget: Budget, steps: tuple[Step, ...], seconds: float
) -> ReportData:
    """Return what the page and the terminal table show."""
    rounds, comparison = found.race.rounds, found.comparison
    missed = budget.missed(
        found.before,
        found.after,
        comparison.losses(task.spec.name),
        rounds.latency("before"),
        rounds.latency("after"),
    )
    return ReportData(
        name=task.name,
        metric=task.spec.name,
        before=found.before,
        after=found.after,
        drop=comparison.drop,
        certified=comparison.certified,
        margin=comparison.margin,
        guard_drops=comparison.guard_drops,
        guard_margins=comparison.guard_margins,
        missed=missed,
        tables=tuple(TableRow(*row) for row in _tables(changes)),
        curve=tuple(point for change in changes for point in change.curve),
        scores=_score_sample(task, *found.scores),
        timings=_timings(found),
        speedup=speedup(rounds, "before", "after"),
        resident_before=found.resident[0],
        resident_after=found.resident[1],
        engine=found.race.engine,
        changes=_words(changes),
        skipped=skipped_of(found, changes),
        notes=tuple(f"{engine}: {words}" for engine, words in found.race.choice.agreements.items()),
        hardware=describe_hardware(),
        seed=next((seed for step in steps if (seed := getattr(step, "seed", None)) is not None), None),
        seconds=seconds,
    )


def contents_of(
    task: Task, found: Findings, changes: tuple[Change, ...], budget: Budget, seconds: float
) -> Contents:
    """Return what a bundle keeps, but for the report page."""
    after = found.artefacts[1]
    samples = [
        Sample(inputs, reference) for inputs, reference in zip(after.samples, after.reference, strict=True)
    ]
    return Contents(
        exported=Path(after.exported.path).parent,
        evidence=_evidence(task, found, changes),
        timing=_timing(found, seconds),
        samples=samples,
        report="",
    )


def skipped_of(found: Findings, changes: tuple[Change, ...]) -> tuple[Skipped, ...]:
    """Return all that was left as it was or not counted, with reasons."""
    engines = tuple(Skipped(one.engine, one.why, "engines") for one in found.race.choice.skipped)
    return (*(one for change in changes for one in change.skipped), *engines, *found.artefacts[1].macs.skipped)


def _tables(changes: tuple[Change, ...]) -> list[tuple[str, int, int, str, int, int]]:
    rows = []
    for change in changes:
        for done in change.done:
            if done.get("what") == "table":
                coding = _coding_words(done["bands"])
                sizes = done["bytes_before"], done["bytes_after"]
                rows.append((done["name"], done["rows"], done["dim"], coding, *sizes))
    return rows


def _coding_words(bands: list[dict[str, Any]]) -> str:
    """Say how a table's bands are coded; neighbours coded alike are one run."""
    runs: list[list[Any]] = []
    for band in bands:
        if runs and runs[-1][1] == band["coding"]:
            runs[-1][0] += band["stop"] - band["start"]
        else:
            runs.append([band["stop"] - band["start"], band["coding"]])
    if len(runs) == 1:
        return str(runs[0][1])
    return "; ".join(f"{rows:,} rows: {coding}" for rows, coding in runs)


def _words(changes: tuple[Change, ...]) -> tuple[str, ...]:
    """Return in words what the steps did."""
    found = []
    for change in changes:
        settings = ", ".join(f"{name}={value}" for name, value in change.settings.items())
        coded = sum(done.get("what") == "table" for done in change.done)
        found.append(f"{change.step}({settings}): {coded} tables coded")
        if change.interrupted:
            found.append(f"{change.step} was interrupted; this is the best found until then")
        for done in change.done:
            if done.get("what") == "recalibration":
                found.append(f"logits recalibrated: x {done['scale']:.4f} {done['bias']:+.4f}, {done['how']}")
    return tuple(found)


def _score_sample(task: Task, before: Scores, after: Scores) -> ScoreSample | None:
    if before.outputs.ndim > 1:
        return None
    step = max(1, len(before.outputs) // PICTURE_ROWS)
    binary = task.output in ("logit", "probability")
    one, other = (task.probabilities(scores.outputs)[::step] for scores in (before, after))
    return ScoreSample(one, other, before.targets[::step], binary=binary)


def _timings(found: Findings) -> tuple[Timed, ...]:
    rounds, engine = found.race.rounds, found.race.engine
    others = [name.removeprefix("after in ") for name in rounds.samples if name.startswith("after in ")]
    after = [Timed(f"compressed, {engine}", "after", rounds.latency("after"), rounds.samples["after"], chosen=True)]
    after += [
        Timed(f"compressed, {name}", "after", rounds.latency(f"after in {name}"), rounds.samples[f"after in {name}"])
        for name in others
    ]
    exported = f"original, {found.race.original_engine}"
    return (
        Timed("original, PyTorch", "before", rounds.latency("before"), rounds.samples["before"]),
        Timed(exported, "exported", rounds.latency("exported"), rounds.samples["exported"]),
        *after,
    )


def _evidence(task: Task, found: Findings, changes: tuple[Change, ...]) -> Evidence:
    comparison = found.comparison
    return Evidence(
        name=task.name,
        inputs=_inputs(task, found.artefacts[1]),
        output=cast(Output, task.output),
        recipe=[StepEntry(step=change.step, settings=change.settings) for change in changes],
        before=_measurement(found.before),
        after=_measurement(found.after),
        drop=_estimate(comparison.drop),
        certificate=_certificate(task, comparison),
        tables=[
            TableEntry(name=name, rows=rows, dim=dim, coding=coding, bytes_before=before, bytes_after=after)
            for name, rows, dim, coding, before, after in _tables(changes)
        ],
        curve=[
            PointEntry(
                table_bytes=point.table_bytes,
                ratio=point.ratio,
                drop=_estimate(point.drop),
                chosen=point.chosen,
                label=point.label,
            )
            for change in changes
            for point in change.curve
        ],
        # Which engines were left out may differ from machine to machine; it stands in timing.json.
        skipped=[
            SkippedEntry(what=one.what, why=one.why, step=one.step)
            for one in skipped_of(found, changes)
            if one.step != "engines"
        ],
    )


def _inputs(task: Task, artefact: Artefact) -> dict[str, InputEntry]:
    sample = artefact.samples[0]
    return {
        name: InputEntry(
            role=field.role,
            rows=field.rows,
            dtype=cast(Dtype, str(sample[name].dtype)),
            shape=list(sample[name].shape[1:]),
        )
        for name, field in task.inputs.items()
    }


def _certificate(task: Task, comparison: Comparison) -> Certificate:
    drop = comparison.drop
    return Certificate(
        metric=task.spec.name,
        margin=comparison.margin,
        confidence=drop.confidence,
        certified=comparison.certified,
        split="test",
        method=drop.method,
        n=drop.n,
        groups=drop.groups,
        guards={
            name: Guard(
                drop=_estimate(guard),
                margin=comparison.guard_margins.get(name),
                held=name not in comparison.guard_margins or non_inferior(guard, comparison.guard_margins[name]),
            )
            for name, guard in comparison.guard_drops.items()
        },
    )


def _timing(found: Findings, seconds: float) -> Timing:
    hardware = describe_hardware()
    rounds, choice = found.race.rounds, found.race.choice
    tried = [
        EngineTried(
            name=name, latency=_latency(rounds.latency("after" if name == found.race.engine else f"after in {name}"))
        )
        for name in choice.latencies
    ]
    tried += [EngineTried(name=one.engine, why=one.why) for one in choice.skipped]
    resident = {"before_exported": found.resident[0], "after": found.resident[1]}
    return Timing(
        engine=found.race.engine,
        engines=tried,
        latency=Latencies(
            before=_latency(rounds.latency("before")),
            before_exported=_latency(rounds.latency("exported")),
            after=_latency(rounds.latency("after")),
        ),
        hardware=Hardware(cpu=hardware["cpu"], cores=hardware["cores"], ram_bytes=hardware["memory_bytes"]),
        versions={"python": hardware["python"], **hardware["packages"]},
        resident_bytes={name: size for name, size in resident.items() if size is not None},
        wall_seconds=seconds,
    )


def _estimate(estimate: Estimate) -> EstimateEntry:
    return EstimateEntry(**{name: _finite(value) for name, value in asdict(estimate).items()})


def _finite(value: Any) -> Any:
    """An end that lies at infinity (too few groups) is written as null, which JSON has."""
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _measurement(measured: Measurement) -> MeasurementEntry:
    return MeasurementEntry(
        bytes=measured.bytes,
        table_bytes=measured.table_bytes,
        macs=measured.macs,
        quality=_estimate(measured.quality),
        guards={name: _estimate(guard) for name, guard in measured.guards.items()},
        split=measured.split,
    )


def _latency(latency: Latency) -> LatencyEntry:
    return LatencyEntry(**asdict(latency))

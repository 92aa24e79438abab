"""The findings as a bundle keeps them: the manifest's evidence and the timing."""

from dataclasses import asdict
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
from flyweight.planning.artefact import Artefact
from flyweight.planning.certificate import Comparison
from flyweight.planning.findings import Findings, coded_tables, skipped_of
from flyweight.planning.rewriting import REWRITE
from flyweight.quality.intervals import non_inferior
from flyweight.task.change import Change
from flyweight.task.estimate import Estimate
from flyweight.task.measurement import Latency, Measurement
from flyweight.task.task import Task
from flyweight.task.vocabulary import Vocabulary


def contents_of(task: Task, found: Findings, changes: tuple[Change, ...], seconds: float) -> Contents:
    """Return what a bundle keeps, but for the report page."""
    after = found.artefacts[1]
    noise = after.noise or (0.0,) * len(after.samples)
    samples = [Sample(*one) for one in zip(after.samples, after.reference, noise, strict=True)]
    return Contents(
        exported=Path(after.exported.path).parent,
        evidence=_evidence(task, found, changes),
        timing=_timing(found, seconds),
        samples=samples,
        report="",
        vocabularies={
            name: field.vocabulary
            for name, field in sorted(task.inputs.items())
            if name in after.samples[0] and isinstance(field.vocabulary, Vocabulary)
        },
    )


def _evidence(task: Task, found: Findings, changes: tuple[Change, ...]) -> Evidence:
    comparison = found.comparison
    return Evidence(
        name=task.name,
        inputs=input_entries(task, found.artefacts[1]),
        output=cast(Output, task.output),
        recipe=[_step(change) for change in changes if change.step != REWRITE or change.done],
        before=_measurement(found.before),
        after=_measurement(found.after),
        drop=_estimate(comparison.drop),
        certificate=_certificate(task, comparison),
        tables=[
            TableEntry(name=name, rows=rows, dim=dim, coding=coding, bytes_before=before, bytes_after=after)
            for name, rows, dim, coding, before, after in coded_tables(changes)
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
        skipped=[SkippedEntry.model_validate(one) for one in skipped_of(found, changes) if one.step != "engines"],
    )


def _step(change: Change) -> StepEntry:
    """Return a step with its settings; the rewrites, which have none, with the rules and how often each was applied."""
    rewrites = {done["rule"]: done["times"] for done in change.done} if change.step == REWRITE else {}
    return StepEntry(step=change.step, settings=rewrites or change.settings)


def input_entries(task: Task, artefact: Artefact) -> dict[str, InputEntry]:
    """Return the inputs of an exported model as a manifest has them."""
    sample = artefact.samples[0]
    return {
        name: InputEntry(
            role=field.role,
            rows=field.rows,
            dtype=cast(Dtype, str(sample[name].dtype)),
            shape=list(sample[name].shape[1:]),
            unknown=field.unknown,
        )
        for name, field in task.inputs.items()
        if name in sample  # others were dropped
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
        threads=found.race.threads,
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

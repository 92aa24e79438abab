"""The findings as the report page and the terminal table show them."""

from flyweight.cost.hardware import describe_hardware
from flyweight.cost.latency import speedup
from flyweight.planning.allocation_rows import allocation_rows
from flyweight.planning.budget import Budget
from flyweight.planning.findings import Findings, coded_tables, skipped_of
from flyweight.planning.layers import layer_rows
from flyweight.planning.step_words import rewritten_words, words_of
from flyweight.planning.what_would_help import rows_that_help
from flyweight.report.data import ReportData, ScoreSample, TableRow, Timing
from flyweight.task.change import Change
from flyweight.task.scores import Scores
from flyweight.task.step import Step
from flyweight.task.task import Task

#: Rows of the scatter and calibration pictures.
PICTURE_ROWS = 20_000


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
    layers = layer_rows(found.artefacts[0].model, found.artefacts[1].model, changes)
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
        helps=tuple(rows_that_help(comparison.losses(task.spec.name), budget.max_drop)),
        tables=tuple(TableRow(*row) for row in coded_tables(changes)),
        layers=layers,
        allocation=allocation_rows(changes, layers),
        curve=tuple(point for change in changes for point in change.curve),
        scores=_score_sample(task, *found.scores),
        timings=_timings(found),
        speedup=speedup(rounds, "before", "after"),
        resident_before=found.resident[0],
        resident_after=found.resident[1],
        engine=found.race.engine,
        unit="candidates" if any(field.role != "sample" for field in task.inputs.values()) else "rows",
        changes=words_of(changes),
        hoisted=rewritten_words(changes),
        limit=found.limit.words if found.limit is not None else "",
        skipped=skipped_of(found, changes),
        notes=tuple(f"{engine}: {words}" for engine, words in found.race.choice.agreements.items()),
        hardware=describe_hardware(),
        seed=next((seed for step in steps if (seed := getattr(step, "seed", None)) is not None), None),
        seconds=seconds,
    )


def _score_sample(task: Task, before: Scores, after: Scores) -> ScoreSample | None:
    if before.outputs.ndim > 1:
        return None
    step = max(1, len(before.outputs) // PICTURE_ROWS)
    binary = task.output in ("logit", "probability")
    one, other = (task.probabilities(scores.outputs)[::step] for scores in (before, after))
    return ScoreSample(one, other, before.targets[::step], binary=binary)


def _timings(found: Findings) -> tuple[Timing, ...]:
    rounds, engine = found.race.rounds, found.race.engine
    others = [name.removeprefix("after in ") for name in rounds.samples if name.startswith("after in ")]
    after = [Timing(f"compressed, {engine}", "after", rounds.latency("after"), rounds.samples["after"], chosen=True)]
    after += [
        Timing(f"compressed, {name}", "after", rounds.latency(f"after in {name}"), rounds.samples[f"after in {name}"])
        for name in others
    ]
    exported = f"original, {found.race.original_engine}"
    return (
        Timing("original, PyTorch", "before", rounds.latency("before"), rounds.samples["before"]),
        Timing(exported, "exported", rounds.latency("exported"), rounds.samples["exported"]),
        *after,
    )

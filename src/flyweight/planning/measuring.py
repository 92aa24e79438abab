"""Everything read off the two exported models: time, the certificate, the machine's limits, memory."""

from torch import Tensor

from flyweight.engines.engine import Prepared
from flyweight.planning.artefact import Artefact, artefact_scores
from flyweight.planning.budget import Budget
from flyweight.planning.certificate import compare
from flyweight.planning.clock import SECONDS, MayRound, Race, race, resident_growth
from flyweight.planning.findings import Findings
from flyweight.planning.limit import limit_of
from flyweight.planning.requests import as_arrays
from flyweight.planning.sharded_scores import sharded_scores
from flyweight.tables.sizes import table_bytes
from flyweight.task.estimate import Estimate
from flyweight.task.measurement import Measurement
from flyweight.task.progress import stage
from flyweight.task.runner import Runner
from flyweight.task.scores import Scores
from flyweight.task.task import Task

#: Of the allowed drop, how much an engine that rounds to bfloat16 may take by itself, proven on validation data.
ROUNDING_SHARE = 0.1


def measure(
    task: Task,
    artefacts: tuple[Artefact, Artefact],
    budget: Budget,
    threads: int,
    request: dict[str, Tensor],
    runner: Runner | None = None,
) -> Findings:
    """Read everything off the two exported models; the test split is scored here and nowhere else.

    Args:
        runner: scores the test split, shard by shard; None does it in this process, with the same scores.
    """
    before, after = artefacts
    with stage("Timing both models in every engine, in turns", seconds=SECONDS + 4.0):
        timed = race(before, after, request, threads, _may_round(task, after, budget))
    with stage("Certifying on the test split", seconds=10.0):
        scores = _scores(task, artefacts, timed, threads, runner)
        comparison = compare(task, *scores, budget.max_drop, budget.confidence)
    timed.close()
    with stage("Holding the compressed model against the machine's limits", seconds=4.0):
        limit = limit_of(after, as_arrays(request), threads, timed.rounds.latency("after").p50, timed.engine)
    with stage("Measuring memory in fresh processes", seconds=4.0):
        resident = (
            resident_growth(before, timed.original_engine, threads, request),
            resident_growth(after, timed.engine, threads, request),
        )
    return Findings(
        before=_measurement(before, comparison.before, comparison.guards_before),
        after=_measurement(after, comparison.after, comparison.guards_after),
        artefacts=artefacts,
        comparison=comparison,
        scores=scores,
        race=timed,
        limit=limit,
        resident=resident,
    )


def _scores(
    task: Task, artefacts: tuple[Artefact, Artefact], timed: Race, threads: int, runner: Runner | None
) -> tuple[Scores, Scores]:
    """Return what both models say of the test split."""
    before, after = artefacts
    if runner is None:
        return (
            artefact_scores(task, timed.original, "test"),
            artefact_scores(task, timed.compressed, "test", after.flat_call),
        )
    return (
        sharded_scores(task, before, timed.original_engine, threads, "test", runner),
        sharded_scores(task, after, timed.engine, threads, "test", runner),
    )


def _may_round(task: Task, after: Artefact, budget: Budget) -> MayRound | None:
    """Return what judges rounding to bfloat16 on validation data, so that the test split is still scored once."""
    if budget.max_drop is None:
        return None
    margin = ROUNDING_SHARE * budget.max_drop

    def judge(exact: Prepared, rounding: Prepared) -> bool:
        one, other = (artefact_scores(task, engine, "validation", after.flat_call) for engine in (exact, rounding))
        return compare(task, one, other, margin, budget.confidence).certified

    return judge


def _measurement(artefact: Artefact, quality: Estimate, guards: dict[str, Estimate]) -> Measurement:
    return Measurement(
        bytes=artefact.exported.bytes,
        table_bytes=table_bytes(artefact.model),
        macs=artefact.macs.total,
        quality=quality,
        guards=guards,
    )


"""The verb: apply the steps, export, pick the engine, measure both artefacts, certify, and hand back a result."""

import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from flyweight.cost.sizes import model_bytes
from flyweight.engines.engine import Prepared
from flyweight.errors import InputError
from flyweight.planning.artefact import Artefact, artefact_scores, make_artefact
from flyweight.planning.automatic import Automatic, find_recipe, folder_of
from flyweight.planning.budget import Budget
from flyweight.planning.certificate import compare
from flyweight.planning.clock import SECONDS, MayRound, race, resident_growth
from flyweight.planning.evidence import contents_of
from flyweight.planning.findings import Findings
from flyweight.planning.gate import Gate
from flyweight.planning.interrupts import interrupts_wait
from flyweight.planning.limit import limit_of
from flyweight.planning.recalibrate import recalibrate
from flyweight.planning.report_data import report_of
from flyweight.planning.requests import as_arrays, sample_requests, served_rows, timed_request
from flyweight.planning.result import Result, make_result
from flyweight.planning.rewriting import rewritten_artefact
from flyweight.planning.run_steps import run_steps
from flyweight.planning.search.workbench import Workbench
from flyweight.planning.widen import widen_weights
from flyweight.tables.sizes import table_bytes
from flyweight.task.estimate import Estimate
from flyweight.task.measurement import Measurement
from flyweight.task.progress import stage
from flyweight.task.step import Step
from flyweight.task.task import Task

#: The drop allowed when neither a budget nor steps are given.
DEFAULT_BUDGET = Budget(max_drop=0.001)
#: Of the allowed drop, how much an engine that rounds to bfloat16 may take by itself, proven on validation data.
ROUNDING_SHARE = 0.1


def compress(
    task: Task,
    budget: Budget | None = None,
    *,
    steps: Sequence[Step] | None = None,
    rows: int | None = None,
    run: str | Path | None = None,
    max_trials: int | None = None,
    source: str = "",
) -> Result:
    """Return the smallest model found that stays inside a budget, exported, measured and certified.

    Args:
        task: the trained model and its data; it is not changed.
        budget: the limits; without steps they choose the steps. None without steps allows a drop of 0.001.
        steps: what to do, in order, instead of choosing automatically. One that breaks the model, or that must pay
            and makes it slower, is taken back, with the reason among what was skipped.
        rows: of the call that is timed; None takes 500 candidates of one request, and 64 rows where nothing is
            scored by request (images, text).
        run: a folder that the automatic search keeps its trials in: killed, it goes on from there; done, another of
            its points can be taken without searching again. None keeps none.
        max_trials: of the search; None for no limit but `Budget.max_minutes`.
        source: how the command line names the task, to be noted in the folder.

    Raises:
        InputError: a step is no step or cannot do what it was asked, or the budget cannot be met by any coding.
        ExportError: the model cannot be exported; names the operator and the module.
        EngineError: no engine gives the scores that PyTorch gives.

    Interrupted (Ctrl-C) while tables are being allocated, it goes on with the best found so far, marked `interrupted`.
    Interrupted later, it measures what was found and hands it back; a second interrupt stops it.
    """
    started = time.monotonic()
    _check_arguments(task, budget, steps)
    if rows is not None and (isinstance(rows, bool) or not isinstance(rows, int) or rows < 1):
        raise InputError(f"rows must be a positive whole number, the rows of the timed call; seen {rows!r}.")
    task, widened = widen_weights(task)
    limits = budget or (DEFAULT_BUDGET if steps is None else Budget())
    threads = os.cpu_count() or 1 if torch.get_num_threads() < 1 else torch.get_num_threads()
    folder = tempfile.TemporaryDirectory(prefix="flyweight-")
    samples = sample_requests(task)
    batch = len(next(iter(task.batches("validation")))[1])
    sample_rows = min(batch, _rows_of(samples, batch))
    request = timed_request(task, rows or served_rows(task))
    with stage("Exporting the original", seconds=_export_seconds(task.model)):
        before = make_artefact(task.model, samples, sample_rows, Path(folder.name, "before"))
    gate = Gate(samples, sample_rows, request, threads)
    found: Automatic | None = None
    if steps is None:
        bench = Workbench(task, before, samples, sample_rows, request, threads, limits.confidence)
        with folder_of(None if run is None else Path(run), task, source) as searched:
            exporting = time.monotonic() - started
            found = find_recipe(bench, limits, searched, export_seconds=exporting, most_trials=max_trials)
    chosen = found.steps if found is not None else tuple(steps or ())
    applied = found.applied if found is not None else run_steps(task, chosen, gate)
    model, recalibrated = recalibrate(task, applied.model, applied.changes)
    changes = (*widened, *applied.changes, *recalibrated)
    interrupted = any(change.interrupted for change in changes) or (found is not None and found.found.interrupted)
    words = "the best found until the interrupt" if interrupted else "the compressed model"
    with interrupts_wait("A model is found and will be measured first; Ctrl-C again drops it."):
        with stage(f"Exporting {words}", seconds=_export_seconds(model)):
            wanted = [{name: one[name] for name in one if name not in applied.dropped} for one in samples]
            after, rewrites = rewritten_artefact(task, model, wanted, gate, Path(folder.name, "after"))
        told = (*changes, rewrites) if rewrites.done or rewrites.skipped else changes
        findings = _measure(task, (before, after), limits, threads, request)
        data = report_of(task, findings, told, limits, chosen, time.monotonic() - started)
        if found is not None:
            data = replace(data, search=found.told(limits, before.exported.bytes, data.changes), curve=())
        return make_result(
            folder,
            data,
            contents=contents_of(task, findings, told, time.monotonic() - started),
            model=model,
            before=findings.before,
            after=findings.after,
            drop=findings.comparison.drop,
            changes=changes,
            rewrites=rewrites,
            frontier=tuple(found.points()) if found else tuple(point for change in changes for point in change.curve),
            engine=findings.race.engine,
            missed=data.missed,
            interrupted=interrupted,
        )


def _check_arguments(task: object, budget: object, steps: object) -> None:
    if not isinstance(task, Task):
        raise InputError(f"task must be a Task; seen {type(task).__name__}.")
    if budget is not None and not isinstance(budget, Budget):
        raise InputError(f"budget must be a Budget, as in Budget(max_drop=0.001); seen {type(budget).__name__}.")
    if steps is None:
        return
    if not isinstance(steps, Sequence):
        raise InputError(f"steps must be a list of steps; seen {type(steps).__name__}.")
    for step in steps:
        if not isinstance(step, Step):
            raise InputError(f"steps must hold steps such as EncodeTables(ratio=100); seen {type(step).__name__}.")


def _export_seconds(model: nn.Module) -> float:
    """Return about how long an export takes: a few seconds of capturing, then writing at disk speed."""
    return 4.0 + model_bytes(model) / 200e6


def _rows_of(samples: list[dict[str, torch.Tensor]], rows: int) -> int:
    """Return how many outputs a sample request has: as many as its inputs are long, where they were cut by row."""
    lengths = {len(values) for values in samples[0].values()}
    return lengths.pop() if len(lengths) == 1 else rows


def _measure(
    task: Task, artefacts: tuple[Artefact, Artefact], budget: Budget, threads: int, request: dict[str, Tensor]
) -> Findings:
    """Read everything off the two exported models."""
    before, after = artefacts
    with stage("Timing both models in every engine, in turns", seconds=SECONDS + 4.0):
        timed = race(before, after, request, threads, _may_round(task, after, budget))
    with stage("Certifying on the test split", seconds=10.0):
        scores = (
            artefact_scores(task, timed.original, "test"),
            artefact_scores(task, timed.compressed, "test", after.flat_call),
        )
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


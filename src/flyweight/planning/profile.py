"""Where a model's bytes and time go, what of it a request computes more than once, and what could be gained."""

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor, nn

from flyweight.cost.hardware import allowed_cores
from flyweight.cost.limits import Limits, machine_limits
from flyweight.cost.macs import count_macs
from flyweight.cost.roofline import Roofline
from flyweight.engines.operator_times import OperatorTimes
from flyweight.engines.threads import checked_threads
from flyweight.errors import EngineError, ExportError, InputError
from flyweight.graph.trace import trace
from flyweight.planning.advice import Situation, give_advice
from flyweight.planning.artefact import make_artefact
from flyweight.planning.bound import Bound, find_bound
from flyweight.planning.gain import Gain
from flyweight.planning.gains import find_gains
from flyweight.planning.known import Known
from flyweight.planning.limit import limit_of
from flyweight.planning.parts import Part, find_parts
from flyweight.planning.repeated import Hoisting, Repeated, find_repeated
from flyweight.planning.requests import as_arrays, sample_requests, served_rows, timed_request
from flyweight.planning.timed_forms import REWRITTEN, Timed, engine_of, time_forms
from flyweight.pruning.calibration import first_inputs
from flyweight.tables.prepare import usable_tables
from flyweight.tables.sites import find_tables
from flyweight.tables.sizes import table_bytes
from flyweight.tables.table_use import TableUse, table_use
from flyweight.tables.usage import count_lookups, inputs_of_tables
from flyweight.task.change import Skipped
from flyweight.task.measurement import Latency
from flyweight.task.progress import stage
from flyweight.task.task import Task

#: Training rows that the model runs over to see the use of tables whose ids are made inside it.
SAMPLED = 8_192


@dataclass(frozen=True, eq=False)
class Profile:
    """Where bytes and time go.

    Args:
        parts: every module with tensors, work or time, the most bytes first; times are those of `timed`.
        tables: every embedding table, with how training uses it.
        bytes, table_bytes: of all tensors, and of embedding tables.
        macs: of one row.
        repeated: None where nothing is scored by request, or the model cannot be traced.
        latencies: of one request: "eager", "NAME" for the model as it is in an engine, "NAME, rewritten".
        operators: what each operator of a call takes, by the same names, where the engine tells.
        timed: whose operators the parts' times are of: the quickest engine of the model as it is.
        best: the quickest export of all that compute as exactly as the file says.
        rows: candidates, or rows, of that request.
        roofline: how near to the machine's limits `best` comes; None where that could not be worked out.
        bound: which limit binds `best` and where its time goes; None as `roofline` is.
        gains: what each method alone would gain.
        advice: what to do about it, plainly.
        skipped: what could not be looked at, with the reason.
    """

    name: str
    parts: tuple[Part, ...]
    tables: tuple[TableUse, ...]
    bytes: int
    table_bytes: int
    macs: int
    repeated: Repeated | None
    latencies: dict[str, Latency]
    operators: dict[str, OperatorTimes]
    timed: str | None
    best: str | None
    rows: int
    roofline: Roofline | None
    bound: Bound | None
    gains: tuple[Gain, ...]
    advice: tuple[str, ...]
    skipped: tuple[Skipped, ...]


def profile(task: Task, *, rows: int | None = None, seconds: float = 4.0, threads: int | None = None) -> Profile:
    """Measure where a task's model spends bytes and time, what a request repeats, and what each method would gain.

    Args:
        rows: of the timed call; None takes 500 candidates of one request, and 64 rows where nothing is scored so.
        seconds: the most that timing takes.
        threads: of one call; None takes every core.

    Raises:
        InputError: `rows` or `seconds` is not positive; threads are negative, or far more than cores.
        ExportError: the model cannot be exported; names the operator and the module.

    Example:
        >>> print(fw.profile(task).advice[0])  # doctest: +SKIP
        99% of the bytes are in embedding tables: EncodeTables first, the model 100x to 150x smaller within a drop ...
    """
    if (rows is not None and rows < 1) or not 0 < seconds < float("inf"):
        raise InputError(f"rows and seconds must be positive; seen rows={rows}, seconds={seconds}.")
    threads = checked_threads(threads or 0) or allowed_cores()
    samples = sample_requests(task)
    request = timed_request(task, rows or served_rows(task))
    with stage("Looking for what a request computes more than once"):
        hoisting = find_repeated(task, samples)
    clock = _look_at_time(task, samples, hoisting, request, threads, seconds)
    parts = find_parts(task.model, samples[0], _rows(samples[0]), clock.module_ms)
    macs = count_macs(task.model, samples[0], _rows(samples[0]))
    total, in_tables = sum(part.bytes for part in parts), table_bytes(task.model)
    (tables, _), (usable, left) = find_tables(task.model), usable_tables(task)
    with stage("Counting how training uses the tables", seconds=2.0):
        counts = count_lookups(task, tables, SAMPLED) if tables else {}
        whole = inputs_of_tables(task, tables) if tables else {}
    uses = tuple(table_use(one, counts[one.name] if one.name in whole else None) for one in tables)
    with stage("Working out what each method would gain", seconds=4.0):
        gains, unknown = _look_ahead(Known(task, parts, total, macs.total, clock.timed, clock.limits, usable, counts))
    best = clock.timed.quickest()
    bound = None if clock.roofline is None else find_bound(clock.roofline, clock.timed.operators.get(best or ""))
    return Profile(
        name=task.name,
        parts=parts,
        tables=uses,
        bytes=total,
        table_bytes=in_tables,
        macs=macs.total,
        repeated=hoisting.repeated,
        latencies=dict(clock.timed.latencies),
        operators=dict(clock.timed.operators),
        timed=None if clock.module_ms is None else clock.timed.quickest(rewritten=False),
        best=best,
        rows=_rows(request),
        roofline=clock.roofline,
        bound=bound,
        gains=gains,
        advice=give_advice(Situation(total, in_tables, uses, hoisting.repeated, clock.timed, bound, gains)),
        skipped=(*hoisting.skipped, *left, *unknown, *macs.skipped),
    )


@dataclass(frozen=True, eq=False)
class _Clock:
    """What was timed: every form in every engine, the best one held against the machine, and time by module."""

    timed: Timed
    limits: Limits | None
    roofline: Roofline | None
    module_ms: dict[str, float] | None


def _look_at_time(
    task: Task,
    samples: list[dict[str, Tensor]],
    hoisting: Hoisting,
    request: dict[str, Tensor],
    threads: int,
    seconds: float,
) -> _Clock:
    served: dict[str, nn.Module | None] = {"": None}
    if hoisting.model is not None:
        served[REWRITTEN] = hoisting.model
    with tempfile.TemporaryDirectory(prefix="flyweight-") as folder, stage("Timing", seconds=seconds + 10.0):
        artefacts = {
            words: make_artefact(task.model, samples, _rows(samples[0]), Path(folder, str(place)), served=model)
            for place, (words, model) in enumerate(served.items())
        }
        timed = time_forms(task, artefacts, request, threads, seconds)
        best, plain = timed.quickest(), timed.quickest(rewritten=False)
        limit = None
        if best is not None:
            latency = timed.latencies[best].p50
            limit = limit_of(timed.artefact(best), as_arrays(request), threads, latency, engine_of(best))
        looked_at = timed.operators.get(plain) if plain is not None else None
        ms = None if looked_at is None else looked_at.by_module()
        try:
            limits = machine_limits(threads)
        except EngineError:
            limits = None
    return _Clock(timed, limits, limit, ms)


def _look_ahead(known: Known) -> tuple[tuple[Gain, ...], tuple[Skipped, ...]]:
    try:
        known = replace(known, traced=trace(known.task.model, first_inputs(known.task)))
    except ExportError as error:
        gains, unknown = find_gains(known)
        return gains, (*unknown, Skipped("gains of layers", f"the model cannot be traced: {error}", "gains"))
    return find_gains(known)


def _rows(inputs: dict[str, Tensor]) -> int:
    return max(len(value) for value in inputs.values())

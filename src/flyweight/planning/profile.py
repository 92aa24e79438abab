"""Where a model's bytes and time go, what of it a request computes more than once, and what could be gained."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flyweight.cost.hardware import allowed_cores
from flyweight.cost.latency import time_rounds
from flyweight.cost.macs import count_macs
from flyweight.cost.module_macs import module_macs
from flyweight.cost.roofline import Roofline
from flyweight.cost.sizes import module_sizes
from flyweight.engines.choose import choose_engine
from flyweight.engines.registry import find_engine
from flyweight.engines.threads import checked_threads
from flyweight.errors import EngineError, ExportError, InputError
from flyweight.planning.artefact import Artefact, make_artefact
from flyweight.planning.limit import limit_of
from flyweight.planning.requests import as_arrays, sample_requests, served_rows, timed_request
from flyweight.planning.rewriting import counted, real_batches
from flyweight.rewrite.apply_rules import Done
from flyweight.rewrite.hoist import hoist
from flyweight.rewrite.hoisted_model import HoistedModel, one_request
from flyweight.rewrite.rules import RULES
from flyweight.tables.sizes import table_bytes
from flyweight.task.change import Skipped
from flyweight.task.measurement import Latency
from flyweight.task.progress import stage
from flyweight.task.task import Task

#: A gain worth telling of in a model that is quick as it is.
QUICKER = 0.9


@dataclass(frozen=True)
class Part:
    """One module: its name, its class, the bytes of its tensors, and the multiply-accumulates of a row in it."""

    name: str
    kind: str
    bytes: int
    macs: int


@dataclass(frozen=True)
class Repeated:
    """What scoring one request's candidates one by one computes again and again, in multiply-accumulates.

    Args:
        row: of one candidate as the model is written.
        request_only: how much of that reads nothing but the request.
        once: of a request, whatever its candidates, in the rewritten model; candidate: of each of them.
        done, refused, undone: the rewrites that fit, those that might have with the reason, those that were wrong.
    """

    row: int
    request_only: int
    once: int
    candidate: int
    done: tuple[Done, ...]
    refused: tuple[Skipped, ...]
    undone: tuple[Skipped, ...]

    @property
    def saved(self) -> float:
        """The share of a candidate's work that need not be done for each of them."""
        return 1 - self.candidate / self.row if self.row else 0.0


@dataclass(frozen=True, eq=False)
class Profile:
    """Where bytes and time go.

    Args:
        parts: every module with tensors or work, the largest first.
        bytes, table_bytes: of all tensors, and of embedding tables.
        macs: of one row.
        repeated: None where nothing is scored by request, or the model cannot be traced.
        latencies: of one request: "eager", "NAME" for the model as it is in an engine, "NAME, rewritten".
        rows: candidates, or rows, of that request.
        roofline: how near to the machine's limits the quickest comes; None where that could not be worked out.
        advice: what to do about it, plainly.
        skipped: what could not be looked at, with the reason.
    """

    name: str
    parts: tuple[Part, ...]
    bytes: int
    table_bytes: int
    macs: int
    repeated: Repeated | None
    latencies: dict[str, Latency]
    rows: int
    roofline: Roofline | None
    advice: tuple[str, ...]
    skipped: tuple[Skipped, ...]


def profile(task: Task, *, rows: int | None = None, seconds: float = 4.0, threads: int | None = None) -> Profile:
    """Measure where a task's model spends bytes and time, and what a request computes more than once.

    Args:
        rows: of the timed call; None takes 500 candidates of one request, and 64 rows where nothing is scored so.
        seconds: the most that timing takes.
        threads: of one call; None takes every core.

    Raises:
        InputError: `rows` or `seconds` is not positive; threads are negative, or far more than cores.
        ExportError: the model cannot be exported; names the operator and the module.

    Example:
        >>> print(fw.profile(task).advice[0])  # doctest: +SKIP
        99% of the bytes are in embedding tables: EncodeTables first.
    """
    if (rows is not None and rows < 1) or not 0 < seconds < float("inf"):
        raise InputError(f"rows and seconds must be positive; seen rows={rows}, seconds={seconds}.")
    threads = checked_threads(threads or 0) or allowed_cores()
    samples = sample_requests(task)
    request = timed_request(task, rows or served_rows(task))
    count = max(len(value) for value in request.values())
    with stage("Looking for what a request computes more than once"):
        repeated, hoisted, skipped = _repeated(task, samples)
    with tempfile.TemporaryDirectory(prefix="flyweight-") as folder, stage("Timing", seconds=seconds + 8.0):
        artefacts = [make_artefact(task.model, samples, _rows(samples), Path(folder, "plain"))]
        if hoisted is not None:
            better = make_artefact(task.model, samples, _rows(samples), Path(folder, "once"), served=hoisted)
            artefacts.append(better)
        latencies = _latencies(task, artefacts, request, threads, seconds)
        limit = _limit(artefacts, latencies, request, threads)
    parts = _parts(task.model, samples[0], _rows(samples))
    tables = table_bytes(task.model)
    total = sum(part.bytes for part in parts)
    macs = count_macs(task.model, samples[0], _rows(samples))
    return Profile(
        name=task.name,
        parts=parts,
        bytes=total,
        table_bytes=tables,
        macs=macs.total,
        repeated=repeated,
        latencies=latencies,
        rows=count,
        roofline=limit,
        advice=tuple(_advice(total, tables, repeated, latencies, limit)),
        skipped=(*skipped, *macs.skipped),
    )


def _rows(samples: list[dict[str, Tensor]]) -> int:
    return max(len(value) for value in samples[0].values())


def _parts(model: nn.Module, inputs: dict[str, Tensor], rows: int) -> tuple[Part, ...]:
    macs = module_macs(model, inputs, rows)
    kinds = {name: type(module).__name__ for name, module in model.named_modules()}
    sizes: dict[str, int] = {}
    for one in module_sizes(model):
        sizes[one.module] = sizes.get(one.module, 0) + one.bytes
    names = dict.fromkeys([*sizes, *macs])
    found = [Part(name, kinds.get(name, ""), sizes.get(name, 0), macs.get(name, 0)) for name in names]
    return tuple(sorted(found, key=lambda part: -part.bytes))


def _repeated(
    task: Task, samples: list[dict[str, Tensor]]
) -> tuple[Repeated | None, HoistedModel | None, tuple[Skipped, ...]]:
    batches = real_batches(task, samples)
    try:
        alone = hoist(task.model, task.inputs, batches, ())
        found = hoist(task.model, task.inputs, batches, RULES)
    except ExportError as error:
        return None, None, (Skipped("request hoisting", f"the model cannot be traced: {error}", "rewrite"),)
    if not isinstance(found.model, HoistedModel) or not isinstance(alone.model, HoistedModel):
        return None, None, (*found.refused, *found.undone)
    row = count_macs(task.model, {name: value[:1] for name, value in batches[0].items()}).total
    _, without_rules = _slope(alone.model, batches[0])
    once, candidate = _slope(found.model, batches[0])
    repeated = Repeated(row, row - without_rules, once, candidate, counted(found), found.refused, found.undone)
    return repeated, found.model, ()


def _slope(model: HoistedModel, batch: dict[str, Tensor]) -> tuple[int, int]:
    """Return the multiply-accumulates of a request before its first candidate, and of each candidate."""
    one, two = (
        count_macs(model, one_request({name: value[:rows] for name, value in batch.items()}, model.request_names)).total
        for rows in (1, 2)
    )
    return max(2 * one - two, 0), two - one


def _latencies(
    task: Task, artefacts: list[Artefact], request: dict[str, Tensor], threads: int, seconds: float
) -> dict[str, Latency]:
    arrays = as_arrays(request)

    def eager() -> Any:
        with torch.inference_mode():
            return task.model(**request)

    calls: dict[str, Any] = {"eager": eager}
    for artefact, words in zip(artefacts, ("", ", rewritten"), strict=False):
        try:
            choice = choose_engine(
                artefact.exported.path, artefact.calls, artefact.reference, threads=threads, seconds=0.2,
                noise=artefact.noise,
            )  # fmt: skip
        except EngineError:
            continue  # no engine is right: eager stands alone
        for name in choice.latencies:
            prepared = find_engine(name).prepare(artefact.exported.path, threads)
            given = artefact.one_call({one: arrays[one] for one in prepared.input_names})
            calls[f"{name}{words}"] = lambda prepared=prepared, given=given: prepared.run(given)
    count = max(len(value) for value in request.values())
    task.model.eval()
    rounds = time_rounds(calls, candidates=count, threads=threads, seconds=seconds)
    return {name: rounds.latency(name) for name in calls}


def _limit(
    artefacts: list[Artefact], latencies: dict[str, Latency], request: dict[str, Tensor], threads: int
) -> Roofline | None:
    exported = {name: latency for name, latency in latencies.items() if name != "eager"}
    if not exported:
        return None
    best = min(exported, key=lambda name: exported[name].p50)
    artefact = artefacts[-1] if best.endswith("rewritten") else artefacts[0]
    return limit_of(artefact, as_arrays(request), threads, exported[best].p50, best)


def _advice(
    total: int, tables: int, repeated: Repeated | None, latencies: dict[str, Latency], limit: Roofline | None
) -> list[str]:
    best = min(one.p50 for name, one in latencies.items() if not name.endswith("rewritten"))  # as it is today
    if total < 4e6 and best < 0.3:
        return [
            f"Do not compress this: it is {total / 1e6:.1f} MB and {best:.2f} ms a request.",
            *_still_quicker(repeated, latencies, best),
        ]
    advice = []
    if tables > 0.5 * total:
        advice.append(f"{tables / total:.0%} of the bytes are in embedding tables: EncodeTables first.")
    if repeated is not None and repeated.saved > 0.05:
        advice.append(
            f"{repeated.saved:.0%} of each candidate's work is the request's: compress() exports it computed once."
        )
    if limit is not None and limit.binds == "compute":
        advice.append("The products bind: Factorize or Prune, then Quantize to int8.")
    if limit is not None and limit.binds == "overhead":
        advice.append("Starting operators binds: fewer, larger operators help; fewer bits do not.")
    if limit is not None and limit.binds == "memory":
        advice.append("Moving bytes binds: fewer bits in tables and weights help directly.")
    return advice


def _still_quicker(repeated: Repeated | None, latencies: dict[str, Latency], best: float) -> list[str]:
    """Return what a small model gains from each request being worked out once, where it surely gains."""
    once = [one for name, one in latencies.items() if name.endswith("rewritten")]
    quickest = min(once, key=lambda one: one.p50, default=None)
    if repeated is None or quickest is None or quickest.p50_high > QUICKER * best:
        return []
    return [
        f"Each request worked out once still gains: {quickest.p50:.3f} instead of {best:.3f} ms. "
        "compress(task, steps=[]) exports it so, its numbers as they are."
    ]

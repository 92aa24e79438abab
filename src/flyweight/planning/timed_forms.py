"""A model timed as it is and rewritten, in every engine that is right, down to the engine's operators."""

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from flyweight.cost.latency import time_rounds
from flyweight.engines.choose import choose_engine
from flyweight.engines.node_owners import node_owners
from flyweight.engines.operator_times import OperatorTimes, time_operators, with_modules
from flyweight.engines.registry import ROUNDING, find_engine
from flyweight.errors import EngineError
from flyweight.planning.artefact import Artefact
from flyweight.planning.requests import as_arrays
from flyweight.task.measurement import Latency
from flyweight.task.task import Task

EAGER, REWRITTEN = "eager", ", rewritten"
#: Seconds of choosing engines, and of looking at the operators of one.
CHOOSING, LOOKING = 0.2, 0.4


@dataclass(frozen=True, eq=False)
class Timed:
    """What was timed, by "eager", "NAME" for the model as it is in an engine, and "NAME, rewritten".

    Args:
        latencies: of one request.
        operators: of a call in an engine, where it has a profiler.
        artefacts: by the words after the engine's name.
    """

    latencies: Mapping[str, Latency]
    operators: Mapping[str, OperatorTimes]
    artefacts: Mapping[str, Artefact]

    def quickest(self, *, rewritten: bool | None = None) -> str | None:
        """Return the name of the quickest export that computes as exactly as the file says, None if there is none.

        Args:
            rewritten: only those that are, or only those that are not.
        """
        names = [
            name
            for name in self.latencies
            if name != EAGER
            and engine_of(name) not in ROUNDING
            and (rewritten is None or name.endswith(REWRITTEN) == rewritten)
        ]
        return min(names, key=lambda name: self.latencies[name].p50, default=None)

    def artefact(self, name: str) -> Artefact:
        """Return what was timed under a name."""
        return self.artefacts[name.removeprefix(engine_of(name))]


def engine_of(name: str) -> str:
    """Return the engine of what was timed.

    Example:
        >>> engine_of("openvino, rewritten")
        'openvino'
    """
    return name.removesuffix(REWRITTEN)


def time_forms(
    task: Task, artefacts: Mapping[str, Artefact], request: dict[str, Tensor], threads: int, seconds: float
) -> Timed:
    """Time a request in eager PyTorch and in every engine that gives its scores, in turns, and then its operators.

    Args:
        artefacts: by the words after the engine's name: "" as it is, and `REWRITTEN`.
        seconds: the most that timing in turns takes.
    """
    arrays = as_arrays(request)

    def eager() -> Any:
        with torch.inference_mode():
            return task.model(**request)

    calls: dict[str, Callable[[], Any]] = {EAGER: eager}
    given: dict[str, dict[str, Any]] = {}
    for words, artefact in artefacts.items():
        for engine in _right_engines(artefact, threads):
            prepared = find_engine(engine).prepare(artefact.exported.path, threads)
            given[engine + words] = artefact.one_call({one: arrays[one] for one in prepared.input_names})
            calls[engine + words] = partial(prepared.run, given[engine + words])
    count = max(len(value) for value in request.values())
    task.model.eval()
    rounds = time_rounds(calls, candidates=count, threads=threads, seconds=seconds)
    latencies = {name: rounds.latency(name) for name in calls}
    timed = Timed(latencies, {}, artefacts)
    modules = {name for name, _ in task.model.named_modules()}
    return Timed(latencies, _operators(timed, given, threads, modules), artefacts)


def _right_engines(artefact: Artefact, threads: int) -> list[str]:
    """Engines that give the scores, those that round to bfloat16 among them."""
    try:
        choice = choose_engine(
            artefact.exported.path, artefact.calls, artefact.reference, threads=threads, seconds=CHOOSING,
            noise=artefact.noise, rounding=True,
        )  # fmt: skip
    except EngineError:
        return []  # no engine is right: eager stands alone
    return list(choice.latencies)


def _operators(
    timed: Timed, given: Mapping[str, dict[str, Any]], threads: int, modules: Collection[str]
) -> dict[str, OperatorTimes]:
    owners = {
        words: node_owners(artefact.exported.path, modules) for words, artefact in timed.artefacts.items()
    }
    found = {}
    for name, arrays in given.items():
        engine = engine_of(name)
        with suppress(EngineError):  # it has no profiler
            times = time_operators(timed.artefact(name).exported.path, arrays, engine, threads, LOOKING)
            found[name] = with_modules(times, owners[name.removeprefix(engine)])
    return found

"""Where an engine spends a call: the time of each operator that it runs, after all its own rewriting."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from flyweight.engines.executed import MULTIPLYING
from flyweight.engines.onnx_runtime import NAME, OnnxRuntime
from flyweight.engines.onnx_runtime_times import onnx_runtime_times
from flyweight.engines.openvino import OpenVino
from flyweight.engines.openvino_times import openvino_times
from flyweight.engines.registry import find_engine
from flyweight.engines.timed_operator import TimedOperator
from flyweight.errors import EngineError, InputError

#: What an operator is for, by the words for it.
PRODUCTS, LOOKUPS, OTHERS = "products", "lookups", "the rest"


@dataclass(frozen=True)
class OperatorTimes:
    """What each operator of a call takes.

    Args:
        engine, threads: whose call it is.
        calls: how many were looked at.
        operators: the longest first.
        between_ms: of a call, what lies outside its operators; 0 where the profiler's own work lies there too.
    """

    engine: str
    threads: int
    calls: int
    operators: tuple[TimedOperator, ...]
    between_ms: float = 0.0

    @property
    def ms(self) -> float:
        """Milliseconds of all operators together; what lies between them is not in it."""
        return sum(one.ms for one in self.operators)

    def share(self, ms: float) -> float:
        """Return a time as a share of all operators'."""
        return ms / self.ms if self.ms else 0.0

    def by_kind(self) -> dict[str, tuple[int, float]]:
        """Return how many operators of each kind there are and their milliseconds together, the longest first."""
        kinds: dict[str, tuple[int, float]] = {}
        for one in self.operators:
            count, ms = kinds.get(one.operator, (0, 0.0))
            kinds[one.operator] = count + 1, ms + one.ms
        return dict(sorted(kinds.items(), key=lambda item: -item[1][1]))

    def by_module(self) -> dict[str, float]:
        """Return milliseconds by the module that they are for; what works for several is left out."""
        modules: dict[str, float] = {}
        for one in self.operators:
            if one.module is not None:
                modules[one.module] = modules.get(one.module, 0.0) + one.ms
        return modules

    def by_purpose(self) -> dict[str, float]:
        """Return the milliseconds of matrix products, of table lookups, and of everything else."""
        purposes = {PRODUCTS: 0.0, LOOKUPS: 0.0, OTHERS: 0.0}
        for one in self.operators:
            purposes[purpose_of(one.operator)] += one.ms
        return purposes


def with_modules(times: OperatorTimes, owners: Mapping[str, str]) -> OperatorTimes:
    """Return times whose operators say for which module they work.

    Args:
        owners: module by node of the file, as `node_owners` gives them.
    """
    return replace(
        times,
        operators=tuple(
            replace(one, module=next((owners[node] for node in one.nodes if node in owners), None))
            for one in times.operators
        ),
    )


def purpose_of(operator: str) -> str:
    """Return what a kind of operator is for.

    Example:
        >>> purpose_of("FusedGemm"), purpose_of("Gather"), purpose_of("Concat")
        ('products', 'lookups', 'the rest')
    """
    if operator in MULTIPLYING:
        return PRODUCTS
    return LOOKUPS if operator.startswith(("Gather", "EmbeddingBag")) else OTHERS


def time_operators(
    path: Path, inputs: Mapping[str, NDArray[Any]], engine: str, threads: int = 1, seconds: float = 0.4
) -> OperatorTimes:
    """Return what each operator of a call takes, from the engine's own profiler.

    ONNX Runtime's profiler writes whole microseconds of each operator and call: the quieter half of the calls is
    averaged, and what it says of an operator that does nothing is taken off each. OpenVINO's counters know the mean
    alone. Files of a profiler are removed.

    Args:
        inputs: of one call, by name, as the file takes them.
        seconds: the most that calling takes.

    Raises:
        EngineError: the engine is missing, refuses the model, or has no profiler (those in PyTorch).
        InputError: the engine is unknown, or the inputs are not the file's.

    Example:
        >>> time_operators(Path("model.onnx"), request, "onnxruntime").by_purpose()  # doctest: +SKIP
        {'products': 1.95, 'lookups': 0.16, 'the rest': 0.11}
    """
    if threads < 0 or not seconds > 0:
        raise InputError(f"Operators are timed with threads >= 0 and seconds > 0; seen {threads} and {seconds}.")
    chosen = find_engine(engine)
    missing = chosen.available()
    if missing is not None:
        raise EngineError(missing)
    if isinstance(chosen, OpenVino):
        calls, found, between = openvino_times(chosen, path, inputs, threads, seconds)
    elif isinstance(chosen, OnnxRuntime) and chosen.name == NAME:  # on a GPU its clock sees an operator's start alone
        calls, found = onnx_runtime_times(chosen, path, inputs, threads, seconds)
        between = 0.0
    else:
        raise EngineError(f"{engine} has no profiler of operators here; onnxruntime and openvino have.")
    return OperatorTimes(engine, threads, calls, tuple(sorted(found, key=lambda one: -one.ms)), between)

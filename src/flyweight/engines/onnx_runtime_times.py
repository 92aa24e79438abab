"""The time of each operator in ONNX Runtime, from its own profiler."""

import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyweight.cost.overhead import CHAIN, chain_of
from flyweight.engines.complaint import complaint
from flyweight.engines.inputs import read_signature
from flyweight.engines.onnx_runtime import NAME, OnnxRuntime, session_options
from flyweight.engines.timed_operator import TimedOperator

#: Calls before those that count, and calls at the least and most: each writes a line for each operator.
WARM, FEWEST, MOST = 5, 10, 300
_NODE, _CALL, _SUFFIX = "Node", "model_run", "_kernel_time"
_FUSED = "fused "


def onnx_runtime_times(
    engine: OnnxRuntime, path: Path, inputs: Mapping[str, NDArray[Any]], threads: int, seconds: float
) -> tuple[int, list[TimedOperator]]:
    """Return how many calls were looked at and what each operator took; see `operator_times.time_operators`.

    Raises:
        EngineError: it refuses the model or a call.
    """
    arrays = read_signature(path).fit(inputs)

    calls = _profile(session_options(path, threads), partial(engine.open, path), arrays, seconds)
    own = _own_cost()
    quiet = _quieter_half(calls)
    return len(quiet), [
        TimedOperator(name, operator, nodes_of(name), max(ms - own, 0.0))
        for (name, operator), ms in _mean(quiet).items()
    ]


def nodes_of(name: str) -> tuple[str, ...]:
    """Return the node of the file that an operator of ONNX Runtime was made of, from its name.

    Example:
        >>> nodes_of("fused node_linear_2"), nodes_of("node_matmul/MatMulAddFusion")
        (('node_linear_2',), ('node_matmul',))
    """
    return (name.removeprefix(_FUSED).partition("/")[0],)


Call = dict[tuple[str, str], float]


def _profile(
    options: Any, session: Callable[[Any], Any], arrays: Mapping[str, NDArray[Any]], seconds: float
) -> list[Call]:
    """Milliseconds of each operator in each call. The profiler's file goes with its folder."""
    with tempfile.TemporaryDirectory(prefix="flyweight-profile-") as folder:
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder, "calls"))
        opened = session(options)
        output = [opened.get_outputs()[0].name]
        start, done = time.perf_counter(), 0
        while done < WARM + FEWEST or (done < WARM + MOST and time.perf_counter() - start < seconds):
            _run(opened, output, arrays)
            done += 1
        events = json.loads(Path(opened.end_profiling()).read_text())
    return _calls(events)[WARM:]


def _run(session: Any, output: list[str], arrays: Mapping[str, NDArray[Any]]) -> None:
    try:
        session.run(output, arrays)
    except Exception as error:  # its exceptions have no parent of their own
        session.end_profiling()
        raise complaint(NAME, "failed", error) from error


def _calls(events: Sequence[Mapping[str, Any]]) -> list[Call]:
    """Operators by call: each call is written down after its operators."""
    calls: list[Call] = []
    current: Call = {}
    for event in events:
        if event["cat"] == _NODE and event["name"].endswith(_SUFFIX):
            key = event["name"].removesuffix(_SUFFIX), event["args"]["op_name"]
            current[key] = current.get(key, 0.0) + event["dur"] / 1000.0
        elif event["name"] == _CALL:
            calls.append(current)
            current = {}
    return calls


def _quieter_half(calls: list[Call]) -> list[Call]:
    """The calls that took no longer than the median: neighbours on a machine only ever make one longer."""
    totals = [sum(call.values()) for call in calls]
    middle = float(np.median(totals))
    return [call for call, total in zip(calls, totals, strict=True) if total <= middle]


def _mean(calls: Sequence[Call]) -> Call:
    return {key: sum(call.get(key, 0.0) for call in calls) / len(calls) for key in calls[0]}


@cache
def _own_cost() -> float:
    """Milliseconds that the profiler sees in an operator that does next to nothing."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL

    def session(options: Any) -> Any:
        return onnxruntime.InferenceSession(chain_of(CHAIN), options, providers=["CPUExecutionProvider"])

    calls = _profile(options, session, {"x0": np.ones(1, np.float32)}, seconds=0.05)
    return sum(_mean(_quieter_half(calls)).values()) / CHAIN

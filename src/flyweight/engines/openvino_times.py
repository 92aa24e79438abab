"""The time of each operator in OpenVINO, from its own counters."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from flyweight.engines.complaint import complaint
from flyweight.engines.inputs import read_signature
from flyweight.engines.openvino import OpenVino, by_place, note_of
from flyweight.engines.timed_operator import TimedOperator

#: Calls before those that count, and calls at the least and most.
WARM, FEWEST, MOST = 20, 20, 1_000
#: What the file's nodes are called in its notes.
_ORIGINAL, _KIND = "originalLayersNames", "layerType"
_NOTHING = frozenset({"Const", "Input", "Output"})


def openvino_times(
    engine: OpenVino, path: Path, inputs: Mapping[str, NDArray[Any]], threads: int, seconds: float
) -> tuple[int, list[TimedOperator], float]:
    """Return how many calls were looked at, what each operator took, and the milliseconds of a call outside them.

    See `operator_times.time_operators`. Counters give the mean since the model was compiled, in whole microseconds;
    that of the warm-up is taken out.

    Raises:
        EngineError: it refuses the model or a call.
    """
    compiled = engine.compile(path, threads, counters=True)
    request = compiled.create_infer_request()
    placed = by_place(request.model_inputs, read_signature(path).fit(inputs))

    def call() -> None:
        try:
            request.infer(placed, share_inputs=True, share_outputs=True)
        except Exception as error:  # openvino raises plain RuntimeErrors
            raise complaint(engine.name, "failed", error) from error

    for _ in range(WARM):
        call()
    before = _means(request)
    start, done = time.perf_counter(), 0
    while done < FEWEST or (done < MOST and time.perf_counter() - start < seconds):
        call()
        done += 1
    call_ms = 1000.0 * (time.perf_counter() - start) / done
    nodes = {node.get_friendly_name(): node for node in compiled.get_runtime_model().get_ordered_ops()}
    found = []
    for name, mean in _means(request).items():
        if name in nodes and note_of(nodes[name], _KIND) not in _NOTHING:
            ms = max((mean * (WARM + done) - before.get(name, 0.0) * WARM) / done, 0.0)
            # What it cuts a node in is called "node/WithoutBiases".
            originals = tuple(one.partition("/")[0] for one in note_of(nodes[name], _ORIGINAL).split(","))
            found.append(TimedOperator(name, note_of(nodes[name], _KIND), originals, ms))
    return done, found, max(call_ms - sum(one.ms for one in found), 0.0)


def _means(request: Any) -> dict[str, float]:
    """Milliseconds by operator, of those that ran."""
    return {
        one.node_name: one.real_time.total_seconds() * 1000.0
        for one in request.profiling_info
        if str(one.status).endswith(".EXECUTED")
    }

"""What a call costs before any work is done: once for the call, and again for each operator."""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from flyweight.errors import EngineError

#: Operators of the longer chain.
CHAIN = 128


@dataclass(frozen=True)
class Overhead:
    """Seconds that have nothing to do with the size of what is computed.

    Args:
        call: one call of a session with next to nothing in it.
        operator: each operator more.
    """

    call: float
    operator: float

    def seconds(self, operators: int) -> float:
        """Return the floor of a call that runs so many operators.

        Example: `Overhead(5e-6, 1e-6).seconds(20)` is 25 microseconds.
        """
        return self.call + operators * self.operator


def measure_overhead(repeats: int = 300) -> Overhead:
    """Measure ONNX Runtime on chains of 1 and of 128 operators that each turn the sign of one number.

    Chains are run as written (no optimisation), in turns; the best of `repeats` each.

    Raises:
        EngineError: `onnxruntime` is not installed.
    """
    short, long = _chain(1), _chain(CHAIN)
    given = {"x0": np.ones(1, np.float32)}
    best = {"short": float("inf"), "long": float("inf")}
    for _ in range(repeats):
        for name, session in (("short", short), ("long", long)):
            start = time.perf_counter()
            session.run(None, given)
            best[name] = min(best[name], time.perf_counter() - start)
    operator = max((best["long"] - best["short"]) / (CHAIN - 1), 0.0)
    return Overhead(max(best["short"] - operator, 0.0), operator)


def chain_of(length: int) -> bytes:
    """Return an ONNX model that turns the sign of one number so many times, from input "x0"."""
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [helper.make_node("Neg", [f"x{place}"], [f"x{place + 1}"]) for place in range(length)],
        "chain",
        [helper.make_tensor_value_info("x0", TensorProto.FLOAT, (1,))],
        [helper.make_tensor_value_info(f"x{length}", TensorProto.FLOAT, (1,))],
    )
    model: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9
    ).SerializeToString()
    return model


def _chain(length: int) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise EngineError("onnxruntime is not installed: pip install onnxruntime") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(chain_of(length), options, providers=["CPUExecutionProvider"])

"""Which widths an engine likes: linear and convolution layers of 9 to 128 neurons or channels, timed in turns.

python benchmarks/widths.py     # writes results/widths.json, from which Prune's default `multiple` was taken

For each width w the JSON has the time of a call, and for each multiple m the mean over the widths between its multiples
of time(w) / time(w rounded up to m): well below 1, cutting down to any width pays; near 1 or above, what lies between
multiples of m gains nothing, and a layer had better keep the width of the next one.
"""

import json
import sys
import tempfile
import time
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from flyweight.cost.hardware import describe_hardware
from flyweight.engines.registry import find_engine

RESULTS = Path(__file__).parent / "results" / "widths.json"
WIDTHS = range(9, 129)
MULTIPLES = (2, 4, 8, 16, 32)
#: Rounds over all widths, and calls of each in a round, the fastest of which counts.
ROUNDS, CALLS = 9, 6
DEPTH = 3


def linear(width: int) -> onnx.ModelProto:
    """Return 512 rows through layers of one width, as in the MLP of a ranker that scores 500 candidates."""
    return _chain("Gemm", width, ["rows", width], [(width, width)] * DEPTH, {"transB": 1})


def convolution(width: int) -> onnx.ModelProto:
    """Return one image of 16 x 16 positions through 3 x 3 convolutions of one width."""
    return _chain("Conv", width, ["rows", width, 16, 16], [(width, width, 3, 3)] * DEPTH, {"pads": [1, 1, 1, 1]})


def _chain(
    kind: str, width: int, shape: list[str | int], weights: list[tuple[int, ...]], attributes: dict[str, Any]
) -> onnx.ModelProto:
    random = np.random.default_rng(0)
    nodes, tensors, name = [], [], "x"
    for number, size in enumerate(weights):
        weight = (random.standard_normal(size) / np.sqrt(np.prod(size[1:]))).astype(np.float32)
        tensors += [numpy_helper.from_array(weight, f"w{number}")]
        tensors += [numpy_helper.from_array(np.zeros(width, np.float32), f"b{number}")]
        nodes.append(helper.make_node(kind, [name, f"w{number}", f"b{number}"], [f"h{number}"], **attributes))
        nodes.append(helper.make_node("Relu", [f"h{number}"], [f"y{number}"]))
        name = f"y{number}"
    values = [helper.make_tensor_value_info(one, TensorProto.FLOAT, shape) for one in ("x", name)]
    graph = helper.make_graph(nodes, "widths", values[:1], values[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


LAYERS = {
    "linear": (linear, lambda width: (512, width)),
    "convolution": (convolution, lambda width: (1, width, 16, 16)),
}


def time_widths(layer: str, engine: str) -> dict[int, float]:
    """Return the milliseconds of a call for each width: the median over rounds of the fastest of a few calls."""
    make, shape = LAYERS[layer]
    seen: dict[int, list[float]] = {width: [] for width in WIDTHS}
    with tempfile.TemporaryDirectory() as folder:
        running = {}
        for width in WIDTHS:
            path = Path(folder, f"{width}.onnx")
            onnx.save(make(width), path)
            inputs: dict[str, NDArray[Any]] = {"x": np.random.default_rng(1).random(shape(width), np.float32)}
            running[width] = find_engine(engine).prepare(path, threads=1), inputs
        for turn in range(ROUNDS):
            order = np.random.default_rng(turn).permutation(list(WIDTHS)).tolist()
            for width in order:
                prepared, inputs = running[width]
                seen[width].append(min(_milliseconds(prepared, inputs) for _ in range(CALLS)))
    return {width: median(times) for width, times in seen.items()}


def _milliseconds(prepared: Any, inputs: dict[str, NDArray[Any]]) -> float:
    started = time.perf_counter()
    prepared.run(inputs)
    return (time.perf_counter() - started) * 1e3


def against_multiples(times: dict[int, float]) -> dict[int, float]:
    """Return for each multiple the mean of time(w) / time(w rounded up to it), over widths between its multiples."""
    found = {}
    for multiple in MULTIPLES:
        between = [width for width in times if width % multiple]
        found[multiple] = fmean(times[width] / times[-(-width // multiple) * multiple] for width in between)
    return found


def main() -> None:
    """Time all and write the JSON."""
    results = []
    for layer in LAYERS:
        for engine in ("onnxruntime", "openvino"):
            times = time_widths(layer, engine)
            ratios = against_multiples(times)
            shown = ", ".join(f"{multiple}: {ratio:.3f}" for multiple, ratio in ratios.items())
            print(f"{layer} in {engine}: time(w) / time(rounded up to m): {shown}", file=sys.stderr)
            results.append(
                {
                    "layer": layer,
                    "engine": engine,
                    "time_over_next_multiple": ratios,
                    "milliseconds": {width: round(value, 5) for width, value in times.items()},
                }
            )
    about = {"rounds": ROUNDS, "calls": CALLS, "depth": DEPTH, "threads": 1, "hardware": describe_hardware()}
    RESULTS.write_text(json.dumps({**about, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""Which operators an ONNX file is made of."""

from collections import Counter
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from flyweight.errors import EngineError


def operator_counts(path: Path) -> dict[str, int]:
    """Return how often each operator occurs, the commonest first; bodies of loops and branches are counted too.

    A standard operator goes by its name; one of another domain by "domain::name". The numbers beside the graph are
    not read.

    Raises:
        EngineError: the file is not ONNX.

    Example: a model of two linear layers gives `{"Gemm": 2, "Relu": 1}`.
    """
    try:
        model = onnx.load(path, load_external_data=False)
    except (OSError, DecodeError) as error:
        raise EngineError(f"{path} cannot be read as ONNX: {error}. Export the model again.") from error
    counts: Counter[str] = Counter()
    _count(model.graph, counts)
    for function in model.functions:
        _count(function, counts)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _count(graph: onnx.GraphProto | onnx.FunctionProto, counts: Counter[str]) -> None:
    for node in graph.node:
        standard = node.domain in ("", "ai.onnx")
        counts[node.op_type if standard else f"{node.domain}::{node.op_type}"] += 1
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                _count(inner, counts)

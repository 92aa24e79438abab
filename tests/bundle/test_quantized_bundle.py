"""Bundles of quantised models: integers of eight and four bits are read, and grids that do not fit are refused."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from tiny_models import evidence, timing

from flyweight.bundle.load import load
from flyweight.bundle.manifest import InputEntry
from flyweight.bundle.read import read_bundle
from flyweight.bundle.samples import Sample
from flyweight.bundle.verify import verify
from flyweight.bundle.write import Contents, write_bundle
from flyweight.engines.registry import ENGINES
from flyweight.errors import BundleError, EngineError

WIDTH = 16
node = helper.make_node
Graph = tuple[list[NodeProto], dict[str, Any]]


def f(*shape: int) -> Any:
    return np.full(shape, 0.1, np.float32)


def i8(*shape: int) -> Any:
    return (np.arange(int(np.prod(shape))) % 7 - 3).astype(np.int8).reshape(shape)


def zeros(*shape: int, dtype: Any = np.int8) -> Any:
    return np.zeros(shape, dtype)


def weights(scale: Any, zero: Any = None, weight: Any = None, **attributes: int) -> Graph:
    """x times a dequantised weight."""
    inputs = ["w", "s"] + (["z"] if zero is not None else [])
    nodes = [node("DequantizeLinear", inputs, ["wf"], **{"axis": 0, **attributes}), node("MatMul", ["x", "wf"], ["y"])]
    given = {"w": i8(WIDTH, WIDTH) if weight is None else weight, "s": scale}
    return nodes, given | ({"z": zero} if zero is not None else {})


def activations(scale: Any, zero: Any, **attributes: int) -> Graph:
    grid = [node(f"{name}Linear", [one, "s", "z"], [two], **attributes) for name, one, two in
            (("Quantize", "x", "q"), ("Dequantize", "q", "y"))]  # fmt: skip
    return grid, {"s": scale, "z": zero}


def dynamic(zero: Any, weight: Any = None) -> Graph:
    nodes = [
        node("DynamicQuantizeLinear", ["x"], ["q", "qs", "qz"]),
        node("MatMulInteger", ["q", "w", "qz", "z"], ["m"]),
        node("Cast", ["m"], ["y"], to=TensorProto.FLOAT),
    ]
    return nodes, {"w": i8(WIDTH, WIDTH) if weight is None else weight, "z": zero}


def whole_product(scale: Any, zero: Any, one: Any = None) -> Graph:
    nodes = [
        node("QuantizeLinear", ["x", "a", "az"], ["q"]),
        node("QLinearMatMul", ["q", "b", "az", "w", "s", "z", "a", "az"], ["m"]),
        node("DequantizeLinear", ["m", "a", "az"], ["y"]),
    ]
    given = {"a": f(), "az": zeros(dtype=np.uint8), "b": f() if one is None else one}
    return nodes, {**given, "w": i8(WIDTH, WIDTH), "s": scale, "z": zero}


def whole_convolution(scale: Any, bias: Any, weight: Any = None) -> Graph:
    nodes = [
        node("Reshape", ["x", "square"], ["x4"]),
        node("QuantizeLinear", ["x4", "a", "az"], ["q"]),
        node("QLinearConv", ["q", "a", "az", "w", "s", "z", "a", "az", "b"], ["m"], pads=[1, 1, 1, 1]),
        node("DequantizeLinear", ["m", "a", "az"], ["y4"]),
        node("Flatten", ["y4"], ["y"]),
    ]
    given = {"square": np.array([-1, 1, 4, 4]), "a": f(), "az": zeros(dtype=np.uint8)}
    z = zeros(*scale.shape)
    return nodes, {**given, "w": i8(2, 1, 3, 3) if weight is None else weight, "s": scale, "z": z, "b": bias}


def model(graph: Graph, width: int = WIDTH) -> ModelProto:
    nodes, constants = graph
    made = helper.make_graph(
        nodes,
        "quantised",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", width])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def bundle(proto: ModelProto, folder: Path, samples: list[Sample] | None = None) -> Path:
    exported = folder / "exported"
    exported.mkdir(parents=True, exist_ok=True)
    onnx.save_model(proto, exported / "model.onnx", save_as_external_data=True, location="model.onnx.data")
    size = sum(file.stat().st_size for file in exported.iterdir())
    inputs = {"x": InputEntry(role="sample", dtype="float32", shape=[WIDTH])}
    changed = evidence(size, inputs=inputs)
    text = "<!doctype html><title>quantised</title>"
    return write_bundle(folder / "quantised.fly", Contents(exported, changed, timing(), samples or [], text))


def x(rows: int = 5) -> Any:
    return np.random.default_rng(0).normal(size=(rows, WIDTH)).astype(np.float32)


def packed(values: Any, dtype: Any) -> Any:
    return values.astype(dtype)


def per_row(batch: Any) -> Any:
    return batch @ (i8(WIDTH, WIDTH) * 0.1)


def per_column(batch: Any) -> Any:
    return batch @ (i8(WIDTH, WIDTH) * COLUMNS)


COLUMNS = np.linspace(0.1, 0.2, WIDTH, dtype=np.float32)
SOUND: dict[str, tuple[Graph, Callable[[Any], Any]]] = {
    "int8": (weights(f(WIDTH), zeros(WIDTH)), per_row),
    "int4": (weights(COLUMNS, None, packed(i8(WIDTH, WIDTH), ml_dtypes.int4), axis=1), per_column),
    "uint4": (
        weights(
            COLUMNS, packed(np.full(WIDTH, 8), ml_dtypes.uint4), packed(i8(WIDTH, WIDTH) + 8, ml_dtypes.uint4), axis=1
        ),
        per_column,
    ),
    "int4 blocks": (weights(f(4, WIDTH), None, packed(i8(WIDTH, WIDTH), ml_dtypes.int4), block_size=4), per_row),
    "bfloat16": (
        (
            [node("Cast", ["w"], ["wf"], to=TensorProto.FLOAT), node("MatMul", ["x", "wf"], ["y"])],
            {"w": packed(i8(WIDTH, WIDTH) * 0.5, ml_dtypes.bfloat16)},
        ),
        lambda batch: batch @ (i8(WIDTH, WIDTH) * 0.5),
    ),
    "uint8 activations": (
        activations(f(), np.array(128, np.uint8)),
        lambda batch: np.clip(np.rint(batch / np.float32(0.1)), -128, 127) * np.float32(0.1),
    ),
}


@pytest.mark.parametrize("name", SOUND)
def test_bundle_of_few_bits_is_read_and_scored(name: str, tmp_path: Path) -> None:
    graph, expected = SOUND[name]
    path = bundle(model(graph), tmp_path, [Sample({"x": x()}, expected(x()).astype(np.float32))])
    for engine in ENGINES:
        with load(path, engine=engine, threads=1) as ranker:
            np.testing.assert_allclose(ranker.predict({"x": x(9)}), expected(x(9)), rtol=1e-5, atol=1e-5)
    assert verify(path).ok


@pytest.mark.parametrize("between", ["", "Identity", "Transpose"])
def test_four_bit_weights_that_stop_openvino_are_left_to_onnxruntime(between: str, tmp_path: Path) -> None:
    nodes, constants = weights(f(WIDTH), None, packed(i8(WIDTH, WIDTH), ml_dtypes.int4))
    if between:
        nodes = [nodes[0], node(between, ["wf"], ["wg"]), node("MatMul", ["x", "wg"], ["y"])]
    path = bundle(model((nodes, constants)), tmp_path)
    with pytest.raises(EngineError, match="openvino divides by zero on 4-bit weights with a scale for each input"):
        load(path, engine="openvino")
    assert "divides by zero" in str(ENGINES["openvino"].cannot_run(path / "model.onnx"))
    turned = i8(WIDTH, WIDTH).T if between == "Transpose" else i8(WIDTH, WIDTH)
    with load(path, engine="onnxruntime") as ranker:
        np.testing.assert_allclose(ranker.predict({"x": x()}), x() @ (turned * 0.1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["dynamic", "product", "convolution"])
def test_whole_products_are_read(name: str, tmp_path: Path) -> None:
    graphs = {
        "dynamic": (dynamic(zeros(WIDTH)), WIDTH),
        "product": (whole_product(f(WIDTH), zeros(WIDTH)), WIDTH),
        "convolution": (whole_convolution(f(2), np.ones(2, np.int32)), 2 * WIDTH),
    }
    graph, width = graphs[name]
    with load(bundle(model(graph, width), tmp_path), engine="onnxruntime") as ranker:
        assert ranker.predict({"x": x()}).shape == (5, width)


HOSTILE: dict[str, tuple[Graph, str]] = {
    "too few scales": (weights(f(3)), r"scales of shape \[3\], where \[16\] is due"),
    "a matrix of scales": (weights(f(WIDTH, WIDTH)), r"where \[16\] is due"),
    "an axis too far": (weights(f(WIDTH), axis=7), "along dimension 7 of"),
    "zero points for one scale": (weights(f(), zeros(64)), r"scales of shape \[\] and zero points of \[64\]"),
    "too few zero points": (weights(f(WIDTH), zeros(2)), "zero points of"),
    "zero points of another type": (weights(f(WIDTH), zeros(WIDTH, dtype=np.uint8)), "."),
    "too few blocks": (weights(f(1, 1), block_size=4), r"where \[4, 16\] is due"),
    "too many blocks": (weights(f(8, WIDTH), block_size=4), r"where \[4, 16\] is due"),
    "blocks of nothing": (weights(f(WIDTH, WIDTH), block_size=-4), "."),
    "four bits of one scale too few": (weights(f(WIDTH - 1), None, packed(i8(16, 16), ml_dtypes.int4)), "is due"),
    "too few scales of activations": (activations(f(3), zeros(3, dtype=np.uint8), axis=1), r"where \[16\] is due"),
    "too few zero points of columns": (dynamic(zeros(3)), r"shape \[3\] in input 3, where \[16\] is due"),
    "too few scales of columns": (whole_product(f(3), zeros(3)), r"shape \[3\] in input 4"),
    "scales where one is due": (whole_product(f(), zeros(), f(WIDTH)), "16 numbers in input 1, where one is due"),
    "too few scales of filters": (whole_convolution(f(3), np.ones(2, np.int32)), r"shape \[3\] in input 4"),
    "too few biases": (whole_convolution(f(2), np.ones(5, np.int32)), r"shape \[5\] in input 8"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_grid_that_does_not_fit_is_refused(name: str, tmp_path: Path) -> None:
    graph, words = HOSTILE[name]
    with pytest.raises(BundleError, match=words):
        bundle(model(graph, 2 * WIDTH if "square" in graph[1] else WIDTH), tmp_path)


def test_four_bits_that_lack_a_byte_are_refused(tmp_path: Path) -> None:
    proto = model(weights(f(WIDTH), None, packed(i8(WIDTH, WIDTH), ml_dtypes.int4)))
    proto.graph.initializer[0].raw_data = proto.graph.initializer[0].raw_data[:-1]
    with pytest.raises(BundleError, match="needs 128 bytes or values and has 127"):
        bundle_inline(proto, tmp_path)


def bundle_inline(proto: ModelProto, folder: Path) -> Path:
    exported = folder / "exported"
    exported.mkdir(parents=True)
    (exported / "model.onnx").write_bytes(proto.SerializeToString())
    inputs = {"x": InputEntry(role="sample", dtype="float32", shape=[WIDTH])}
    given = evidence((exported / "model.onnx").stat().st_size, inputs=inputs)
    return write_bundle(folder / "quantised.fly", Contents(exported, given, timing(), [], "<!doctype html>"))


def test_verify_allows_what_rounding_does(tmp_path: Path) -> None:
    graph, expected = SOUND["uint8 activations"]
    scores = expected(x(50)).astype(np.float32)
    scores[::2] += 0.01
    apart = Sample({"x": x(50)}, scores)  # root mean square 0.007
    assert not verify(bundle(model(graph), tmp_path / "a", [apart])).ok
    path = bundle(model(graph), tmp_path / "b", [replace(apart, noise=0.02)])
    assert read_bundle(path).samples[0].noise == 0.02
    assert verify(path).ok
    assert not verify(bundle(model(graph), tmp_path / "c", [replace(apart, noise=0.006)])).ok

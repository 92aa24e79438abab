"""What an ONNX file works out from whole numbers alone is worked out once, when it is read."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from test_from_onnx import written

from flyweight.graph.onnx_import.file import Graph, read_graph
from flyweight.graph.onnx_import.rewrites import fold_constants


def folded(nodes: list[onnx.NodeProto], path: Path, **constants: np.ndarray) -> Graph:
    return fold_constants(read_graph(written(nodes, path, **constants)))


def test_packed_codes_are_unpacked(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["codes"], ["wide"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Mul", ["wide", "shifts"], ["shifted"]),
        helper.make_node("Cast", ["shifted"], ["whole"], to=onnx.TensorProto.INT32),
        helper.make_node("BitwiseAnd", ["whole", "mask"], ["code"]),
        helper.make_node("Reshape", ["code", "flat"], ["all"]),
        helper.make_node("Split", ["all", "sizes"], ["first", "second"]),
        helper.make_node("Concat", ["second", "first"], ["turned"], axis=0),
        helper.make_node("Cast", ["turned"], ["row"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Add", ["x", "row"], ["y"]),
    ]
    found = folded(
        nodes,
        tmp_path / "codes.onnx",
        codes=np.array([[0x21], [0x43]], dtype=np.uint8),
        shifts=np.array([1.0, 1 / 16], dtype=np.float32),
        mask=np.array(15, dtype=np.int32),
        flat=np.array([-1], dtype=np.int64),
        sizes=np.array([1, 3], dtype=np.int64),
    )
    assert [node.operator for node in found.nodes] == ["Add"]
    assert found.constants["row"].tolist() == [2, 3, 4, 1]


def test_weights_are_left_to_training(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Split", ["weight", "sizes"], ["first", "second"]),
        helper.make_node("Add", ["first", "second"], ["both"]),
        helper.make_node("Add", ["x", "both"], ["y"]),
    ]
    weight = np.ones((1024, 4), dtype=np.float32)
    found = folded(nodes, tmp_path / "w.onnx", weight=weight, sizes=np.array([512, 512], dtype=np.int64))
    assert len(found.nodes) == 3


@pytest.mark.parametrize("operator", ["Expand", "ConstantOfShape", "Range", "Add"])
def test_what_would_fill_the_memory_is_left_alone(operator: str, tmp_path: Path) -> None:
    huge = 1 << 40
    given = {
        "Expand": (["one", "shape"], {"one": np.array([1]), "shape": np.array([huge])}),
        "ConstantOfShape": (["shape"], {"shape": np.array([huge])}),
        "Range": (["zero", "stop", "step"], {"zero": np.array(0), "stop": np.array(huge), "step": np.array(1)}),
        "Add": (["column", "line"], {"column": np.ones((1 << 15, 1), int), "line": np.ones((1, 1 << 15), int)}),
    }
    inputs, constants = given[operator]
    nodes = [
        helper.make_node(operator, inputs, ["made"]),
        helper.make_node("Gather", ["made", "place"], ["one_of"], axis=0),
        helper.make_node("Cast", ["one_of"], ["number"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Add", ["x", "number"], ["y"]),
    ]
    found = folded(nodes, tmp_path / "huge.onnx", place=np.array(3), **constants)
    assert found.nodes[0].operator == operator
    assert "made" not in found.constants

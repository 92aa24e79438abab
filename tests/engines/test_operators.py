"""Counting operators, also inside branches and of other domains."""

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from flyweight.engines.operators import operator_counts
from flyweight.errors import EngineError


def test_operators_are_counted_with_domain_and_branches(tmp_path: Path) -> None:
    inner = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["y"])], "b", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])]
    )
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Gelu", ["b"], ["c"], domain="com.microsoft"),
        helper.make_node("If", ["k"], ["d"], then_branch=inner, else_branch=inner),
    ]
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", [], [])), path)
    assert operator_counts(path) == {"Neg": 2, "Relu": 2, "If": 1, "com.microsoft::Gelu": 1}


def test_file_that_is_no_onnx_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"no model")
    with pytest.raises(EngineError, match=r"model\.onnx cannot be read as ONNX"):
        operator_counts(path)

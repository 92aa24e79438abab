"""Places to write to may be worked out while a model runs if they are the rest of a division that keeps them inside."""

import numpy as np
import pytest
from onnx import GraphProto, TensorProto, helper, numpy_helper

from flyweight.bundle.bounds import check_bounds
from flyweight.errors import BundleError


def scattered(divisor: int, length: int = 8, *, fmod: int = 0) -> GraphProto:
    """Return a graph that writes ones to `places % divisor` of a vector of zeros, the places made by a sum."""
    tensors = {
        "gaps": np.arange(5000, dtype=np.int64),
        "axis": np.array(0, np.int64),
        "divisor": np.array([divisor]),
        "size": np.array([length]),
        "ones": np.ones(5000, np.float32),
    }
    nodes = [
        helper.make_node("CumSum", ["gaps", "axis"], ["sums"]),
        helper.make_node("Mod", ["sums", "divisor"], ["places"], fmod=fmod),
        helper.make_node("ConstantOfShape", ["size"], ["zeros"]),
        helper.make_node("ScatterElements", ["zeros", "places", "ones"], ["dense"], name="write"),
        helper.make_node("Mul", ["x", "dense"], ["score"]),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", length]) for name in ("x", "score")]
    constants = [numpy_helper.from_array(array, name) for name, array in tensors.items()]
    return helper.make_graph(nodes, "places", values[:1], values[1:], constants)


@pytest.mark.parametrize("divisor", [8, 3])
def test_the_rest_of_a_division_by_no_more_than_the_length_lies_inside(divisor: int) -> None:
    check_bounds(scattered(divisor), 20, "model.onnx")


@pytest.mark.parametrize("divisor", [9, 2**40])
def test_a_larger_divisor_is_refused(divisor: int) -> None:
    with pytest.raises(BundleError, match="ScatterElements 'write' writes to places that are no small constant"):
        check_bounds(scattered(divisor), 20, "model.onnx")


def test_a_rest_that_may_be_negative_is_refused() -> None:
    with pytest.raises(BundleError, match="no small constant"):
        check_bounds(scattered(8, fmod=1), 20, "model.onnx")

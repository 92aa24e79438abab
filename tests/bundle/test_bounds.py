"""What is worked out of a graph before it runs is what running it gives; and what does not fit is refused in words."""

from typing import Any

import numpy as np
import odd_models
import onnxruntime
import pytest
import tiny_models
from onnx import NodeProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from flyweight.bundle.bounds import check_bounds
from flyweight.bundle.fold import _RULES, fold
from flyweight.bundle.shapes import given_values, made_values
from flyweight.bundle.work import multiplications
from flyweight.errors import BundleError

node = helper.make_node


def i(*values: int) -> Any:
    return np.array(values, dtype=np.int64)


#: For each rule of `fold`: attributes and inputs as exporters write them.
CASES: dict[str, list[tuple[dict[str, Any], list[Any]]]] = {
    "Abs": [({}, [i(-3, 2)])],
    "Add": [({}, [i(1, 2), i(5)])],
    "And": [({}, [np.array([True, False]), np.array([True, True])])],
    "Cast": [
        ({"to": TensorProto.FLOAT}, [i(1, 2)]),
        ({"to": TensorProto.INT64}, [np.array([1.7, -1.7], dtype=np.float32)]),
    ],
    "Ceil": [({}, [np.array([1.2, -1.2], dtype=np.float32)])],
    "Concat": [({"axis": 0}, [i(1), i(2, 3)])],
    "ConstantOfShape": [({"value": numpy_helper.from_array(i(7))}, [i(2, 2)]), ({}, [i(3)])],
    "Div": [({}, [i(7, -7, 7, -7), i(2, 2, -2, -2)]), ({}, [np.array([1.0], np.float32), np.array([4.0], np.float32)])],
    "Equal": [({}, [i(1, 2), i(1, 3)])],
    "Expand": [({}, [i(1, 2), i(3, 1)])],
    "Floor": [({}, [np.array([1.2, -1.2], dtype=np.float32)])],
    "Gather": [({"axis": 0}, [i(4, 5, 6), np.array(-1)]), ({"axis": 0}, [i(4, 5, 6), i(0, 2)])],
    "Greater": [({}, [i(1, 3), i(2, 2)])],
    "GreaterOrEqual": [({}, [i(1, 2), i(2, 2)])],
    "Identity": [({}, [i(1, 2)])],
    "Less": [({}, [i(1, 3), i(2, 2)])],
    "LessOrEqual": [({}, [i(1, 3), i(2, 2)])],
    "Max": [({}, [i(1, 5), i(3, 3)])],
    "Min": [({}, [i(1, 5), i(3, 3)])],
    "Mod": [({}, [i(7, -7, 7, -7), i(3, 3, -3, -3)]), ({"fmod": 1}, [i(7, -7), i(3, 3)])],
    "Mul": [({}, [i(2, 3), i(4)])],
    "Neg": [({}, [i(2, -3)])],
    "Not": [({}, [np.array([True, False])])],
    "Or": [({}, [np.array([True, False]), np.array([False, False])])],
    "Range": [({}, [np.array(1), np.array(9), np.array(3)])],
    "ReduceMax": [({}, [i(3, 1)])],
    "ReduceMin": [({"keepdims": 0}, [i(3, 1)])],
    "ReduceProd": [({"keepdims": 0}, [i(3, 4), i(0)])],
    "ReduceSum": [({"keepdims": 1}, [i(3, 4), i(0)])],
    "Reshape": [({}, [np.arange(6).reshape(2, 3), i(0, -1, 1)])],
    "Slice": [({}, [i(1, 2, 3, 4), i(1), i(2**62)]), ({}, [i(1, 2, 3, 4), i(-1), i(-(2**62)), i(0), i(-2)])],
    "Squeeze": [({}, [np.array([[3]]), i(0)])],
    "Sub": [({}, [i(2, 3), i(4)])],
    "Sum": [({}, [i(2, 3), i(4, 4)])],
    "Transpose": [({}, [np.arange(6).reshape(2, 3)]), ({"perm": [1, 0]}, [np.arange(6).reshape(2, 3)])],
    "Unsqueeze": [({}, [i(2, 3), i(0, 2)])],
    "Where": [({}, [np.array([True, False]), i(1, 2), i(3, 4)])],
}


def test_every_rule_of_fold_has_a_case() -> None:
    assert CASES.keys() == _RULES.keys()


@pytest.mark.parametrize(("op", "case"), [(op, case) for op, cases in CASES.items() for case in range(len(cases))])
def test_folded_constant_is_what_the_operator_gives(op: str, case: int) -> None:
    attributes, inputs = CASES[op][case]
    names = [f"i{place}" for place in range(len(inputs))]
    made = node(op, names, ["y"], **attributes)
    kinds = [helper.np_dtype_to_tensor_dtype(value.dtype) for value in inputs]
    given = [helper.make_tensor_value_info(n, k, v.shape) for n, k, v in zip(names, kinds, inputs, strict=True)]
    out = helper.make_empty_tensor_value_info("y")
    model = helper.make_model(
        helper.make_graph([made], "one", given, [out]), opset_imports=[helper.make_opsetid("", 20)], ir_version=10
    )
    due = ReferenceEvaluator(model).run(None, dict(zip(names, inputs, strict=True)))[0]
    plain = {key: numpy_helper.to_array(v) if isinstance(v, TensorProto) else v for key, v in attributes.items()}
    seen = fold(op, plain, inputs, due.shape)
    assert seen is not None
    np.testing.assert_array_equal(seen, due)
    assert seen.dtype == due.dtype


@pytest.mark.parametrize("name", [*odd_models.GRAPHS, "ranker"])
@pytest.mark.parametrize("batch", [1, 5])
def test_shapes_worked_out_are_those_that_running_gives(name: str, batch: int) -> None:
    model = odd_models.build(name)
    values = given_values(model.graph, batch)
    for one in model.graph.node:
        values.update(made_values(one, values, tiny_models.OPSET, name))
    inputs = {
        "user_id": np.zeros(batch, np.int64),
        "item_id": np.zeros(batch, np.int64),
        "price": np.zeros(batch, np.float32),
        "x": np.zeros((batch, 4), np.float32),
    }
    names = [output for one in model.graph.node for output in one.output if output]
    del model.graph.output[:]
    model.graph.output.extend(helper.make_empty_tensor_value_info(output) for output in names)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    wanted = {one.name: inputs[one.name] for one in session.get_inputs()}
    for output, array in zip(names, session.run(names, wanted), strict=True):
        assert values[output].shape == list(array.shape), output
        if values[output].small is not None:
            np.testing.assert_array_equal(values[output].small, array)


@pytest.mark.parametrize(
    ("made", "read", "due"),
    [
        (node("MatMul", ["a", "b"], ["c"]), [((7, 3), 21), ((3, 4), 12)], 7 * 3 * 4),
        (node("Gemm", ["a", "b"], ["c"]), [((7, 3), 21), ((3, 4), 12)], 7 * 7 * 4),
        (node("Einsum", ["a", "b"], ["c"], equation="ij,kl->"), [((5, 6), 30), ((7, 8), 56)], 5 * 6 * 7 * 8),
        (node("MatMul", ["a", "b"], ["c"]), [(None, 21), ((3, 4), 12)], 21 * 12),
        (node("Relu", ["a"], ["c"]), [((5, 6), 30)], 30),
    ],
)
def test_multiplications_are_counted(made: NodeProto, read: Any, due: int) -> None:
    elements = {"MatMul": 28, "Gemm": 28, "Einsum": 1, "Relu": 30}[made.op_type]
    assert multiplications(made, read, elements) == due


def refused(nodes: list[NodeProto], words: str, **constants: Any) -> None:
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = tiny_models.model(nodes, tensors).graph
    with pytest.raises(BundleError, match=words):
        check_bounds(graph, tiny_models.OPSET, "m")


def ones(*shape: int) -> Any:
    return np.ones(shape, dtype=np.float32)


def test_growth_faster_than_the_square_of_the_batch_is_refused() -> None:
    nodes = [
        node("ReduceSum", ["x", "last"], ["a"], keepdims=0),
        node("Unsqueeze", ["a", "down"], ["column"]),
        node("Mul", ["a", "column"], ["square"]),
        node("Unsqueeze", ["square", "deep"], ["cube"]),
        node("Mul", ["cube", "a"], ["y"]),
    ]
    refused(nodes, "'y' grows from 1 elements at a batch of 1 to 4,096", last=i(-1), down=i(1), deep=i(2))


@pytest.mark.parametrize(
    ("nodes", "constants", "words"),
    [
        ([node("Cast", ["x"], ["w"], to=7), node("Mod", ["w", "c"], ["y"])], {"c": i(-1)}, "divides whole numbers"),
        ([node("Cast", ["x"], ["w"], to=7), node("Div", ["w", "w"], ["y"])], {}, "divides whole numbers"),
        ([node("Gather", ["t", "c"], ["y"])], {"t": ones(3), "c": i(3)}, "reaches for place 3 of 3"),
        ([node("GatherElements", ["t", "c"], ["y"])], {"t": ones(3), "c": i(-4)}, "reaches for place -4 of 3"),
        (
            [node("GatherND", ["t", "c"], ["y"])],
            {"t": ones(3, 2), "c": i(0, 2)},
            r"reaches for place \[0, 2\] of \[3, 2\]",
        ),
        (
            [node("ScatterND", ["t", "c", "u"], ["y"])],
            {"t": ones(3), "c": [[5]], "u": ones(1)},
            r"place \[5\] of \[3\]",
        ),
        (
            [node("ScatterND", ["t", "c", "u"], ["y"])],
            {"t": ones(3), "c": [[1]], "u": ones(4)},
            r"writes \[4\] where \[1\]",
        ),
        (
            [node("GRU", ["t", "w", "r"], ["y"], hidden_size=9)],
            {"t": ones(2, 1, 1), "w": ones(1, 9, 1), "r": ones(1, 9, 3)},
            "weights of shapes",
        ),
        ([node("TopK", ["x", "c"], ["y", "p"])], {"c": i(0)}, "without elements"),
        ([node("Expand", ["x", "c"], ["y"])], {"c": i(2**30, 1, 1)}, "past the bounds"),
        ([node("MatMul", ["x", "t"], ["y"])], {"t": ones(3, 2)}, "cannot run on what it reads"),
        (
            [
                node("Cast", ["x"], ["w"], to=7),
                node("Reshape", ["w", "f"], ["v"]),
                node("ConstantOfShape", ["v"], ["y"]),
            ],
            {"f": i(-1)},
            "cannot be known",
        ),
    ],
)
def test_node_that_could_crash_or_flood_is_refused(nodes: list[NodeProto], constants: Any, words: str) -> None:
    refused(nodes, words, **constants)

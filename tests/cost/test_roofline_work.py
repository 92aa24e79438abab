"""Counts of hand-made graphs against formulas worked out by hand."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from few_nodes import F32, I64, floats, model_file
from onnx import TensorProto, helper

from flyweight.cost.onnx_macs import node_macs
from flyweight.cost.onnx_work import count_work
from flyweight.cost.work import OperatorWork, Work
from flyweight.errors import InputError


def only(work: Work) -> OperatorWork:
    assert len(work.operators) == 1
    return work.operators[0]


@pytest.mark.parametrize(("m", "k", "n"), [(1, 1, 1), (500, 400, 256), (7, 3, 5)])
def test_matmul_counts_m_k_n(tmp_path: Path, m: int, k: int, n: int) -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    path = model_file(tmp_path, [node], {"x": (F32, ["rows", k])}, {"w": floats(k, n)})
    one = only(count_work(path, {"x": floats(m, k)}))
    assert (one.macs, one.precision) == (m * k * n, "float32")
    assert (one.weights, one.rows, one.read, one.written) == (4 * k * n, 0, 4 * m * k, 4 * m * n)


def test_batched_matmul_of_two_activations_counts_every_batch(tmp_path: Path) -> None:
    node = helper.make_node("MatMul", ["a", "b"], ["y"])
    path = model_file(tmp_path, [node], {"a": (F32, [None] * 4), "b": (F32, [None] * 4)})
    one = only(count_work(path, {"a": floats(2, 3, 4, 5), "b": floats(2, 3, 5, 6)}))
    assert one.macs == 2 * 3 * 4 * 5 * 6
    assert one.weights == 0


@pytest.mark.parametrize("transposed", [0, 1])
def test_gemm_counts_m_n_k_whichever_way_its_factors_lie(tmp_path: Path, transposed: int) -> None:
    node = helper.make_node("Gemm", ["x", "w", "b"], ["y"], transA=transposed, transB=1)
    given = floats(4, 9) if transposed else floats(9, 4)
    path = model_file(tmp_path, [node], {"x": (F32, [None, None])}, {"w": floats(5, 4), "b": floats(5)})
    one = only(count_work(path, {"x": given}))
    assert one.macs == 9 * 4 * 5
    assert one.weights == 4 * (5 * 4 + 5)


def test_convolution_counts_numbers_made_by_filter(tmp_path: Path) -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], group=2, strides=[2, 2], pads=[1, 1, 1, 1])
    path = model_file(tmp_path, [node], {"x": (F32, ["rows", 4, 8, 8])}, {"w": floats(6, 2, 3, 3)})
    assert only(count_work(path, {"x": floats(3, 4, 8, 8)})).macs == (3 * 6 * 4 * 4) * (2 * 3 * 3)


@pytest.mark.parametrize(
    ("equation", "shapes", "made", "macs"),
    [
        ("bij,bjk->bik", [(2, 3, 4), (2, 4, 5)], (2, 3, 5), 2 * 3 * 4 * 5),
        ("...i,ij->...j", [(2, 3, 4), (4, 5)], (2, 3, 5), 2 * 3 * 4 * 5),
        ("ij->i", [(3, 4)], (3,), 0),
    ],
)
def test_einsum_counts_the_product_of_all_sizes(equation: str, shapes: Any, made: Any, macs: int) -> None:
    names = [f"x{place}" for place in range(len(shapes))]
    assert node_macs(helper.make_node("Einsum", names, ["y"], equation=equation), shapes, made) == macs


def test_lstm_counts_all_its_gates() -> None:
    shapes = [(7, 3, 10), (1, 4 * 6, 10), (1, 4 * 6, 6)]  # 7 steps, 3 rows, 10 wide, 6 units
    assert node_macs(helper.make_node("LSTM", ["x", "w", "r"], ["y"]), shapes, (7, 1, 3, 6)) == 7 * 3 * 4 * 6 * (10 + 6)


@pytest.mark.parametrize("rows", [10, 500, 4096])
def test_gather_reads_the_rows_it_takes_not_the_table(tmp_path: Path, rows: int) -> None:
    node = helper.make_node("Gather", ["table", "ids"], ["y"], axis=0)
    path = model_file(tmp_path, [node], {"ids": (I64, ["rows"])}, {"table": floats(100_000, 16)}, external=True)
    one = only(count_work(path, {"ids": np.arange(rows)}))
    assert (one.rows, one.weights) == (rows * 16 * 4, 0)
    assert (one.read, one.written) == (8 * rows, rows * 16 * 4)


def test_gather_never_reads_more_than_the_table(tmp_path: Path) -> None:
    node = helper.make_node("Gather", ["table", "ids"], ["y"])
    path = model_file(tmp_path, [node], {"ids": (I64, ["rows"])}, {"table": floats(4, 16)})
    assert only(count_work(path, {"ids": np.zeros(500, np.int64)})).rows == 4 * 16 * 4


def quantised_product(folder: Path, activations: bool) -> Path:
    before = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
    ]
    nodes = [
        *(before if activations else []),
        helper.make_node("DequantizeLinear", ["w8", "s", "wz"], ["w"]),
        helper.make_node("Transpose", ["w"], ["wt"]),
        helper.make_node("MatMul", ["d" if activations else "x", "wt"], ["y"]),
    ]
    constants = {
        "s": np.float32(0.1).reshape(()),
        "z": np.uint8(3).reshape(()),
        "wz": np.int8(0).reshape(()),
        "w8": np.ones((5, 4), np.int8),
    }
    return model_file(folder, nodes, {"x": (F32, ["rows", 4])}, constants)


def test_product_between_quantisers_is_int8_and_reads_bytes_of_one(tmp_path: Path) -> None:
    work = count_work(quantised_product(tmp_path, activations=True), {"x": floats(9, 4)})
    product = work.operators[-1]
    assert work.macs == {"int8": 9 * 4 * 5}
    assert (product.read, product.written) == (9 * 4, 9 * 5 * 4)  # whole numbers in, float32 out
    assert product.weights == 5 * 4 + 4 + 1  # int8 weights, their scale and zero point
    assert [one.operator for one in work.operators] == ["QuantizeLinear", "MatMul"]


def test_product_with_quantised_weights_alone_is_float32(tmp_path: Path) -> None:
    work = count_work(quantised_product(tmp_path, activations=False), {"x": floats(9, 4)})
    assert work.macs == {"float32": 9 * 4 * 5}
    assert work.weights == 5 * 4 + 4 + 1


def test_rounding_engine_moves_half_the_bytes(tmp_path: Path) -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    path = model_file(tmp_path, [node], {"x": (F32, ["rows", 8])}, {"w": floats(8, 2)})
    full, half = (count_work(path, {"x": floats(5, 8)}, floats=kind) for kind in ("float32", "bfloat16"))
    assert half.bytes * 2 == full.bytes
    assert half.macs == {"bfloat16": 5 * 8 * 2}


def test_weights_that_two_operators_read_count_once(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("MatMul", ["a", "w"], ["y"]),
    ]
    path = model_file(tmp_path, nodes, {"x": (F32, ["rows", 6])}, {"w": floats(6, 6)})
    assert count_work(path, {"x": floats(2, 6)}).weights == 6 * 6 * 4


def test_elementwise_operator_joins_the_one_before_it(tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("Relu", ["a"], ["y"])]
    work = count_work(model_file(tmp_path, nodes, {"x": (F32, ["rows", 6])}, {"w": floats(6, 3)}), {"x": floats(2, 6)})
    assert work.started == 1
    assert work.kept == 2 * (2 * 3 * 4)  # "a" is neither written nor read
    assert work.activations == 4 * (2 * 6 + 3 * (2 * 3))


def test_value_with_two_readers_moves(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MatMul", ["a", "b"], ["y"]),
    ]
    work = count_work(model_file(tmp_path, nodes, {"x": (F32, ["rows", 3])}, {"w": floats(3, 3)}), {"x": floats(3, 3)})
    assert (work.started, work.kept) == (3, 0)


def test_concat_reads_and_writes_everything_views_nothing(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Concat", ["a", "b"], ["c"], axis=1),
        helper.make_node("Reshape", ["c", "shape"], ["y"]),
    ]
    inputs = {"a": (F32, ["rows", 2]), "b": (F32, ["rows", 3])}
    path = model_file(tmp_path, nodes, inputs, {"shape": np.array([-1], np.int64)})
    one = only(count_work(path, {"a": floats(4, 2), "b": floats(4, 3)}))
    assert (one.read, one.written) == (4 * 5 * 4, 4 * 5 * 4)


def test_reduction_reads_all_and_writes_few(tmp_path: Path) -> None:
    node = helper.make_node("ReduceSum", ["x", "axes"], ["y"], keepdims=0)
    path = model_file(tmp_path, [node], {"x": (F32, ["rows", 50])}, {"axes": np.array([1], np.int64)})
    one = only(count_work(path, {"x": floats(3, 50)}))
    assert (one.read, one.written, one.macs) == (3 * 50 * 4, 3 * 4, 0)


def test_slice_reads_what_it_hands_on(tmp_path: Path) -> None:
    constants = {name: np.array([value], np.int64) for name, value in (("s", 0), ("e", 2), ("ax", 1))}
    node = helper.make_node("Slice", ["x", "s", "e", "ax"], ["y"])
    one = only(count_work(model_file(tmp_path, [node], {"x": (F32, ["rows", 100])}, constants), {"x": floats(3, 100)}))
    assert one.read == one.written == 3 * 2 * 4


def test_what_is_made_of_constants_alone_is_no_work_of_a_call(tmp_path: Path) -> None:
    nodes = [helper.make_node("Mul", ["w", "w"], ["v"]), helper.make_node("MatMul", ["x", "v"], ["y"])]
    path = model_file(tmp_path, nodes, {"x": (F32, ["rows", 6])}, {"w": floats(6, 2)})
    one = only(count_work(path, {"x": floats(1, 6)}))
    assert one.operator == "MatMul"
    assert one.weights == 6 * 2 * 4


def test_default_of_an_optional_input_counts_one_row_and_a_given_one_its_own(tmp_path: Path) -> None:
    node = helper.make_node("Gather", ["user", "request_index"], ["y"])
    inputs = {"user": (F32, ["requests", 8]), "request_index": (I64, ["spread"])}
    path = model_file(tmp_path, [node], inputs, {"request_index": np.zeros(1, np.int64)})
    assert only(count_work(path, {"user": floats(1, 8)})).written == 8 * 4
    given = {"user": floats(2, 8), "request_index": np.array([0, 0, 1, 1, 1])}
    assert only(count_work(path, given)).written == 5 * 8 * 4


def test_sizes_that_depend_on_values_are_read_off_a_run(tmp_path: Path) -> None:
    nodes = [helper.make_node("NonZero", ["x"], ["places"]), helper.make_node("Cast", ["places"], ["y"], to=F32)]
    path = model_file(tmp_path, nodes, {"x": (F32, ["rows"])})
    work = count_work(path, {"x": np.array([1, 0, 2, 0, 3], np.float32)})
    assert work.operators[0].written == 3 * 8
    assert work.operators[-1].written == 3 * 4


def test_external_weights_are_found_when_the_graph_must_be_run(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("NonZero", ["x"], ["places"]),
        helper.make_node("Squeeze", ["places", "axes"], ["flat"]),
        helper.make_node("Gather", ["table", "flat"], ["y"]),
    ]
    constants = {"table": floats(50, 4), "axes": np.array([0], np.int64)}
    path = model_file(tmp_path, nodes, {"x": (F32, ["rows"])}, constants, external=True)
    assert count_work(path, {"x": floats(6)}).rows == 6 * 4 * 4


def test_more_rows_are_never_less_work(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["e"]),
        helper.make_node("MatMul", ["e", "w"], ["h"]),
        helper.make_node("Relu", ["h"], ["y"]),
    ]
    path = model_file(tmp_path, nodes, {"ids": (I64, ["rows"])}, {"table": floats(1000, 8), "w": floats(8, 4)})
    works = [count_work(path, {"ids": np.zeros(rows, np.int64)}) for rows in (1, 2, 10, 100, 5000)]
    for few, many in pairwise(works):
        assert many.bytes > few.bytes
        assert many.macs["float32"] > few.macs["float32"]
        assert (many.weights, many.started) == (few.weights, few.started)


def test_control_flow_is_named_as_not_counted(tmp_path: Path) -> None:
    branch = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["out"])], "b", [], [helper.make_tensor_value_info("out", F32, None)]
    )
    node = helper.make_node("If", ["c"], ["y"], name="choice", then_branch=branch, else_branch=branch)
    path = model_file(tmp_path, [node], {"c": (TensorProto.BOOL, []), "x": (F32, ["rows"])})
    (skipped,) = count_work(path, {"c": np.array(True), "x": floats(3)}).skipped
    assert skipped.what == "choice"
    assert "depends on values" in skipped.why


def test_missing_and_unknown_inputs_are_named(tmp_path: Path) -> None:
    path = model_file(tmp_path, [helper.make_node("Relu", ["x"], ["y"])], {"x": (F32, ["rows"])})
    with pytest.raises(InputError, match=r"missing: \['x'\].*not known to it: \['z'\]"):
        count_work(path, {"z": floats(1)})


def test_inputs_that_do_not_fit_say_their_shapes(tmp_path: Path) -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    path = model_file(tmp_path, [node], {"x": (F32, ["rows", "width"])}, {"w": floats(4, 2)})
    with pytest.raises(InputError, match=r"\[3, 5\]"):
        count_work(path, {"x": floats(3, 5)})


def test_file_that_is_no_onnx_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"\xff not protobuf")
    with pytest.raises(InputError, match="cannot be read as an ONNX file"):
        count_work(tmp_path / "model.onnx", {})

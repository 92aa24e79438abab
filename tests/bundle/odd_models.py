"""Small graphs that between them use most operators a bundle may hold: ground for mutations."""

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from tiny_models import model, ranker

Nodes = tuple[list[NodeProto], dict[str, Any]]
node = helper.make_node


def _f(*shape: int) -> Any:
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def _i(*values: int) -> Any:
    return np.array(values, dtype=np.int64)


def image() -> Nodes:
    nodes = [
        node("Reshape", ["x", "square"], ["i0"]),
        node("Pad", ["i0", "pads"], ["i1"]),
        node("Conv", ["i1", "kernel"], ["i2"], pads=[1, 1, 1, 1], strides=[1, 1], dilations=[1, 1], group=1),
        node("BatchNormalization", ["i2", "two", "two", "two", "two"], ["i3"]),
        node("MaxPool", ["i3"], ["i4"], kernel_shape=[2, 2], strides=[1, 1]),
        node("ConvTranspose", ["i4", "back"], ["i5"], strides=[2, 2], group=2),
        node("Resize", ["i5", "", "scales"], ["i6"], mode="nearest"),
        node("AveragePool", ["i6"], ["i7"], kernel_shape=[2, 2], ceil_mode=1),
        node("SpaceToDepth", ["i7"], ["i8"], blocksize=2),
        node("LRN", ["i8"], ["i9"], size=3),
        node("GlobalAveragePool", ["i9"], ["i10"]),
        node("Flatten", ["i10"], ["i11"], axis=1),
        node("ReduceMean", ["i11", "last"], ["y"], keepdims=0),
    ]
    return nodes, {
        "square": _i(-1, 1, 2, 2),
        "pads": _i(0, 0, 1, 1, 0, 0, 1, 1),
        "kernel": _f(2, 1, 3, 3),
        "two": abs(_f(2)),
        "back": _f(2, 1, 2, 2),
        "scales": np.array([1, 1, 1.5, 1.5], dtype=np.float32),
        "last": _i(-1),
    }


def sequence() -> Nodes:
    nodes = [
        node("Unsqueeze", ["x", "last"], ["s0"]),
        node("Transpose", ["s0"], ["s1"], perm=[1, 0, 2]),
        node("GRU", ["s1", "gw", "gr"], ["s2", "s3"], hidden_size=3),
        node("Squeeze", ["s2", "one"], ["s4"]),
        node("LSTM", ["s4", "lw", "lr"], ["s5"], hidden_size=2, direction="bidirectional"),
        node("ReduceMax", ["s5", "first"], ["s6"], keepdims=0),
        node("Transpose", ["s6"], ["s7"], perm=[1, 0, 2]),
        node("CumSum", ["s7", "axis"], ["s8"]),
        node("LayerNormalization", ["s8", "twos"], ["s9"], axis=-1),
        node("ReduceSum", ["s9", "rest"], ["y"], keepdims=0),
    ]
    return nodes, {
        "last": _i(-1),
        "one": _i(1),
        "first": _i(0),
        "rest": _i(1, 2),
        "axis": np.array(1, dtype=np.int64),
        "gw": _f(1, 9, 1),
        "gr": _f(1, 9, 3),
        "lw": _f(2, 8, 3),
        "lr": _f(2, 8, 2),
        "twos": _f(2),
    }


def attention() -> Nodes:
    nodes = [
        node("Shape", ["x"], ["a0"]),
        node("Slice", ["a0", "zero", "one"], ["a1"]),
        node("Concat", ["a1", "tail"], ["a2"], axis=0),
        node("Reshape", ["x", "a2"], ["a3"]),
        node("MatMul", ["a3", "wq"], ["a4"]),
        node("Einsum", ["a4", "a3"], ["a5"], equation="bij,bkj->bik"),
        node("Softmax", ["a5"], ["a6"], axis=-1),
        node("MatMul", ["a6", "a3"], ["a7"]),
        node("Split", ["a7"], ["a8", "a9"], axis=2, num_outputs=2),
        node("Mul", ["a8", "a9"], ["a10"]),
        node("Expand", ["a10", "wide"], ["a11"]),
        node("Tile", ["a11", "times"], ["a12"]),
        node("TopK", ["a12", "k"], ["a13", "a14"], axis=2),
        node("GatherElements", ["a12", "a14"], ["a15"], axis=2),
        node("InstanceNormalization", ["a15", "two", "two"], ["a16"]),
        node("ReduceProd", ["a16", "rest"], ["y"], keepdims=0),
    ]
    return nodes, {
        "zero": _i(0),
        "one": _i(1),
        "tail": _i(2, 2),
        "wq": _f(2, 2),
        "wide": _i(1, 1, 3),
        "times": _i(1, 1, 2),
        "k": _i(2),
        "two": _f(2),
        "rest": _i(1, 2),
    }


def eight_bit() -> Nodes:
    nodes = [
        node("QuantizeLinear", ["x", "scale", "zero"], ["q0"]),
        node("DequantizeLinear", ["q0", "scale", "zero"], ["q1"]),
        node("DequantizeLinear", ["weight", "scales", "zeros"], ["q2"], axis=1),
        node("MatMul", ["q1", "q2"], ["q3"]),
        node("DynamicQuantizeLinear", ["q3"], ["q4", "q5", "q6"]),
        node("MatMulInteger", ["q4", "weight8", "q6"], ["q7"]),
        node("Cast", ["q7"], ["q8"], to=TensorProto.FLOAT),
        node("Mul", ["q8", "q5"], ["q9"]),
        node("ReduceL2", ["q9", "last"], ["y"], keepdims=0),
    ]
    return nodes, {
        "scale": np.float32(0.05),
        "zero": np.uint8(128),
        "weight": np.arange(12, dtype=np.int8).reshape(4, 3),
        "scales": abs(_f(3)),
        "zeros": np.zeros(3, dtype=np.int8),
        "weight8": np.arange(6, dtype=np.uint8).reshape(3, 2),
        "last": _i(-1),
    }


def places() -> Nodes:
    nodes = [
        node("Cast", ["x"], ["p0"], to=TensorProto.INT64),
        node("Mod", ["p0", "seven"], ["p1"]),
        node("Div", ["p1", "three"], ["p2"]),
        node("BitwiseAnd", ["p2", "three"], ["p3"]),
        node("Gather", ["table", "p3"], ["p4"], axis=0),
        node("OneHot", ["p3", "depth", "values"], ["p5"], axis=-1),
        node("MatMul", ["p5", "mix"], ["p6"]),
        node("Add", ["p4", "p6"], ["p7"]),
        node("ScatterND", ["grid", "where", "new"], ["p8"]),
        node("Range", ["zero", "two", "step"], ["p9"]),
        node("Cast", ["p9"], ["p10"], to=TensorProto.FLOAT),
        node("Add", ["p7", "p10"], ["p11"]),
        node("Mul", ["p11", "p8"], ["p12"]),
        node("Greater", ["p12", "half"], ["p13"]),
        node("Where", ["p13", "p12", "half"], ["p14"]),
        node("Trilu", ["p14"], ["p15"], upper=0),
        node("ConstantOfShape", ["two_by_one"], ["p16"], value=numpy_helper.from_array(np.ones(1, dtype=np.float32))),
        node("MatMul", ["p15", "p16"], ["p17"]),
        node("ArgMax", ["p17"], ["p18"], axis=1, keepdims=1),
        node("Cast", ["p18"], ["p19"], to=TensorProto.FLOAT),
        node("Add", ["p17", "p19"], ["p20"]),
        node("GatherND", ["p20", "pick"], ["p21"], batch_dims=0),
        node("Add", ["p20", "p21"], ["p22"]),
        node("ReduceSum", ["p22", "rest"], ["y"], keepdims=0),
    ]
    return nodes, {
        "seven": _i(7),
        "three": _i(3),
        "table": _f(4, 2),
        "depth": _i(4),
        "values": np.array([0, 1], dtype=np.float32),
        "mix": _f(4, 2),
        "grid": _f(4, 2),
        "where": np.array([[0], [2]], dtype=np.int64),
        "new": _f(2, 2),
        "zero": np.array(0, dtype=np.int64),
        "two": np.array(2, dtype=np.int64),
        "step": np.array(1, dtype=np.int64),
        "half": np.float32(0.5),
        "two_by_one": _i(2, 1),
        "pick": np.array([[0, 1]], dtype=np.int64),
        "rest": _i(1, 2),
    }


GRAPHS: dict[str, Callable[[], Nodes]] = {
    "image": image,
    "sequence": sequence,
    "attention": attention,
    "eight_bit": eight_bit,
    "places": places,
}


def build(name: str) -> ModelProto:
    if name == "ranker":
        return ranker()
    nodes, constants = GRAPHS[name]()
    return model(nodes, [numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items()])

"""Small ONNX models and bundles made with onnx.helper: what the tests of this folder read, alter and score."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from flyweight.bundle.manifest import (
    Certificate,
    EstimateEntry,
    Evidence,
    Guard,
    InputEntry,
    PointEntry,
    TableEntry,
)
from flyweight.bundle.samples import Sample
from flyweight.bundle.timing import EngineTried, Hardware, Latencies, Timing
from flyweight.bundle.write import Contents
from flyweight.task.change import Skipped
from flyweight.task.estimate import Estimate
from flyweight.task.field import REQUEST_INDEX, REQUESTS
from flyweight.task.measurement import Latency, Measurement

USERS, ITEMS, DIM = 20, 300, 4
OPSET, IR = 20, 10
INPUTS = {
    "user_id": InputEntry(role="request", rows=USERS, dtype="int64", shape=[]),
    "item_id": InputEntry(role="candidate", rows=ITEMS, dtype="int64", shape=[]),
    "price": InputEntry(role="candidate", dtype="float32", shape=[]),
}


def weights() -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(0)
    return {
        "users": rng.normal(size=(USERS, DIM)).astype(np.float32),
        "codes": rng.integers(0, 16, ITEMS).astype(np.uint8),
        "codebook": rng.normal(size=(16, DIM)).astype(np.float32),
        "w1": rng.normal(size=(2 * DIM + 1, 8)).astype(np.float32),
        "b1": rng.normal(size=8).astype(np.float32),
        "w2": rng.normal(size=(8, 1)).astype(np.float32),
    }


def expected(user: np.ndarray[Any, Any], item: np.ndarray[Any, Any], price: np.ndarray[Any, Any]) -> Any:
    """The scores of `ranker()` in plain NumPy."""
    w = weights()
    x = np.concatenate([w["users"][user], w["codebook"][w["codes"][item]], price[:, None]], axis=1)
    return (np.maximum(x @ w["w1"] + w["b1"], 0) @ w["w2"])[:, 0]


def ranker() -> ModelProto:
    w = weights()
    nodes = [
        helper.make_node("Gather", ["users", "user_id"], ["user"], name="user_row"),
        helper.make_node("Gather", ["codes", "item_id"], ["code8"], name="item_code"),
        helper.make_node("Cast", ["code8"], ["code"], to=TensorProto.INT32),
        helper.make_node("Gather", ["codebook", "code"], ["item"], name="item_row"),
        helper.make_node("Shape", ["price"], ["n"]),
        helper.make_node("Concat", ["n", "one"], ["n_by_1"], axis=0),
        helper.make_node("Reshape", ["price", "n_by_1"], ["price_column"]),
        helper.make_node("Concat", ["user", "item", "price_column"], ["x"], axis=1),
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "w2"], ["s"]),
        helper.make_node("Squeeze", ["s", "one"], ["score"]),
    ]
    constants = [numpy_helper.from_array(value, name) for name, value in w.items()]
    constants.append(numpy_helper.from_array(np.array([1], dtype=np.int64), "one"))
    return model(
        nodes,
        constants,
        {"user_id": (TensorProto.INT64, []), "item_id": (TensorProto.INT64, []), "price": (TensorProto.FLOAT, [])},
    )


def hoisted_ranker() -> ModelProto:
    """`ranker()` with the user's row looked up once for each request and brought to the candidates by an index."""
    proto = ranker()
    graph = proto.graph
    (lookup,) = [node for node in graph.node if node.name == "user_row"]
    rest = [node for node in graph.node if node.name != "user_row"]
    lookup.output[0] = "once"
    spread = [
        helper.make_node("Gather", ["once", REQUEST_INDEX], ["spread"]),
        helper.make_node("Shape", ["price"], ["rows"]),
        helper.make_node("Concat", ["rows", "dim"], ["rows_by_dim"], axis=0),
        helper.make_node("Expand", ["spread", "rows_by_dim"], ["user"]),
    ]
    nodes = [lookup, *spread, *rest]
    del graph.node[:]
    graph.node.extend(nodes)
    graph.input[0].type.tensor_type.shape.dim[0].dim_param = REQUESTS
    graph.input.append(helper.make_tensor_value_info(REQUEST_INDEX, TensorProto.INT64, ["spread"]))
    graph.initializer.append(numpy_helper.from_array(np.array([0]), REQUEST_INDEX))
    graph.initializer.append(numpy_helper.from_array(np.array([DIM]), "dim"))
    return proto


def model(
    nodes: Sequence[NodeProto],
    constants: Sequence[TensorProto] = (),
    inputs: dict[str, tuple[int, list[int | None]]] | None = None,
    output: Sequence[int] = (),
) -> ModelProto:
    """A model whose last node's first output is its output, (n, *output)."""
    given = inputs or {"x": (TensorProto.FLOAT, [4])}
    graph = helper.make_graph(
        list(nodes),
        "tiny",
        [helper.make_tensor_value_info(name, kind, ["n", *shape]) for name, (kind, shape) in given.items()],
        [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, ["n", *output])],
        initializer=list(constants),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)


def sample(n: int = 6, seed: int = 0) -> Sample:
    rng = np.random.default_rng(seed)
    user = np.full(n, rng.integers(USERS))
    item = rng.integers(0, ITEMS, n)
    item[0] = ITEMS - 1
    price = rng.random(n).astype(np.float32)
    return Sample({"user_id": user, "item_id": item, "price": price}, expected(user, item, price))


def estimate(value: float) -> Estimate:
    return Estimate(value, value - 0.0003, value + 0.0003, n=1000, method="delong")


def evidence(bytes_after: int, **changes: Any) -> Evidence:
    given: dict[str, Any] = {
        "name": "tiny",
        "inputs": INPUTS,
        "output": "logit",
        "recipe": [{"step": "encode_tables", "settings": {"bits_per_row": 4, "bands": [1, 2]}}],
        "before": Measurement(9000, 8000, 120, estimate(0.91), {"logloss": estimate(0.25)}),
        "after": Measurement(bytes_after, 500, 120, estimate(0.909), {"logloss": estimate(0.251)}),
        "drop": estimate(0.0004),
        "certificate": Certificate(
            metric="auc",
            margin=0.001,
            confidence=0.95,
            certified=True,
            method="delong",
            n=1000,
            guards={"logloss": Guard(drop=estimate(0.0002), margin=0.001, held=True)},
        ),
        "tables": [
            TableEntry(name="item", rows=300, dim=4, bytes_before=4800, bytes_after=556, coding="1 code of 4 bits")
        ],
        "curve": [
            PointEntry(
                table_bytes=500,
                ratio=16.0,
                drop=EstimateEntry(**asdict(estimate(0.0004))),
                chosen=True,
                label="item 16",
            )
        ],
        "skipped": [Skipped("user", "20 rows: too few to pay", "encode_tables")],
    }
    return Evidence.model_validate({**given, **changes})


def timing(engine: str = "onnxruntime") -> Timing:
    took = Latency(0.5, 0.6, 0.9, 0.49, 0.52, repeats=100, candidates=500, threads=2)
    return Timing(
        engine=engine,
        engines=[EngineTried(name="onnxruntime", latency=took)],
        latency=Latencies(before=took, before_exported=took, after=took),
        hardware=Hardware(cpu="a processor", cores=2, ram_bytes=2**33),
        versions={"onnxruntime": "1.2.3"},
        resident_bytes={"after": 1000},
        wall_seconds=1.5,
    )


def export(folder: Path, proto: ModelProto | None = None, *, outside: bool = True) -> int:
    """Save a model as an exporter would and return its bytes on disk."""
    folder.mkdir(parents=True, exist_ok=True)
    proto = ranker() if proto is None else proto
    if outside:
        onnx.save_model(
            proto,
            folder / "model.onnx",
            save_as_external_data=True,
            location="model.onnx.data",
            size_threshold=64,
        )
    else:
        onnx.save_model(proto, folder / "model.onnx")
    return sum(file.stat().st_size for file in folder.iterdir())


def contents(
    folder: Path, *, proto: ModelProto | None = None, outside: bool = True, engine: str = "onnxruntime", **changes: Any
) -> Contents:
    size = export(folder, proto, outside=outside)
    samples = [sample(), sample(3, seed=1)]
    return Contents(folder, evidence(size, **changes), timing(engine), samples, "<!doctype html><title>tiny</title>")

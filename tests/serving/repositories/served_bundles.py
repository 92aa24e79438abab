"""Small bundles of every form that a server can be given, and calls to them in ONNX Runtime and OpenVINO alone."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnxruntime
import tiny_models
from onnx import ModelProto, TensorProto, helper, numpy_helper
from tiny_models import INPUTS, ITEMS, evidence, expected, hoisted_ranker, model, ranker, timing

from flyweight.bundle.manifest import InputEntry
from flyweight.bundle.ranker import Ranker
from flyweight.bundle.read import read_bundle
from flyweight.bundle.samples import Sample
from flyweight.bundle.write import Contents, write_bundle
from flyweight.engines.registry import find_engine

Arrays = dict[str, np.ndarray]
node = helper.make_node
#: Ids as a user gives them, backwards in the model.
MAP = list(range(ITEMS))[::-1]
LENIENT = {
    **INPUTS,
    "user_id": INPUTS["user_id"].model_copy(update={"unknown": 3}),
    "item_id": INPUTS["item_id"].model_copy(update={"unknown": 2}),
}
MIXED = {
    "history": InputEntry(role="request", rows=9, dtype="int32", shape=[3], unknown=1),
    "tags": InputEntry(role="candidate", rows=7, dtype="int64", shape=[2]),
    "kind": InputEntry(role="candidate", rows=5, dtype="int32", shape=[]),
    "price": InputEntry(role="candidate", dtype="float16", shape=[2]),
}
IMAGES = {"image": InputEntry(role="sample", dtype="float32", shape=[1, 4])}
ROWS = 6


def write(folder: Path, proto: ModelProto, samples: list[Sample], **changes: Any) -> Path:
    """Write a bundle, unless it lies there already."""
    path = folder / "tiny.fly"
    if not path.exists():
        size = tiny_models.export(folder / "exported", proto)
        write_bundle(path, Contents(folder / "exported", evidence(size, **changes), timing(), samples, "<html></html>"))
    return path


def plain(folder: Path) -> Path:
    """Request values are repeated for each candidate."""
    return write(folder, ranker(), [tiny_models.sample(ROWS)])


def hoisted(folder: Path) -> Path:
    """A request is computed once; its sample holds two."""
    return write(folder, hoisted_ranker(), [tiny_models.sample(ROWS), _two_requests()])


def relabelled(folder: Path) -> Path:
    """Ids are unknown, or another row's."""
    one = tiny_models.sample(ROWS)
    scores = expected(one.inputs["user_id"], np.array(MAP)[one.inputs["item_id"]], one.inputs["price"])
    return write(folder, ranker(), [Sample(one.inputs, scores)], inputs=LENIENT, id_maps={"item_id": MAP})


def mixed(folder: Path) -> Path:
    """Histories, several ids a row, ids in four bytes, half floats, a column of scores."""
    rng = np.random.default_rng(1)
    table, kinds = rng.normal(size=(9, 2)).astype(np.float32), rng.normal(size=(5, 2)).astype(np.float32)
    nodes = [
        node("Gather", ["table", "history"], ["h"]),
        node("ReduceMean", ["h", "ones"], ["hm"], keepdims=0),
        node("Gather", ["table", "tags"], ["t"]),
        node("ReduceMean", ["t", "ones"], ["tm"], keepdims=0),
        node("Gather", ["kinds", "kind"], ["k"]),
        node("Cast", ["price"], ["p"], to=TensorProto.FLOAT),
        node("Sum", ["hm", "tm", "k", "p"], ["x"]),
        node("Tanh", ["x"], ["y"]),
        node("MatMul", ["y", "w"], ["score"]),
    ]
    constants = {"table": table, "kinds": kinds, "ones": np.array([1]), "w": rng.normal(size=(2, 1)).astype(np.float32)}
    kinds_of = {
        "history": (TensorProto.INT32, [3]),
        "tags": (TensorProto.INT64, [2]),
        "kind": (TensorProto.INT32, []),
        "price": (TensorProto.FLOAT16, [2]),
    }
    proto = model(nodes, [numpy_helper.from_array(value, name) for name, value in constants.items()], kinds_of, [1])
    history = np.tile(rng.integers(0, 9, (1, 3)).astype(np.int32), (ROWS, 1))
    tags, kind = rng.integers(0, 7, (ROWS, 2)), rng.integers(0, 5, ROWS).astype(np.int32)
    price = rng.normal(size=(ROWS, 2)).astype(np.float16)
    x = table[history].mean(1) + table[tags].mean(1) + kinds[kind] + price.astype(np.float32)
    scores = (np.tanh(x) @ constants["w"])[:, 0]
    inputs = {"history": history, "tags": tags, "kind": kind, "price": price}
    return write(folder, proto, [Sample(inputs, scores)], inputs=MIXED)


def images(folder: Path) -> Path:
    """A flat batch with a score for each of three classes."""
    rng = np.random.default_rng(2)
    weights, image = rng.normal(size=(4, 3)).astype(np.float32), rng.normal(size=(ROWS, 1, 4)).astype(np.float32)
    nodes = [node("Flatten", ["image"], ["f"]), node("MatMul", ["f", "w"], ["score"])]
    proto = model(nodes, [numpy_helper.from_array(weights, "w")], {"image": (TensorProto.FLOAT, [1, 4])}, [3])
    return write(folder, proto, [Sample({"image": image}, image[:, 0] @ weights)], inputs=IMAGES, output="columns")


def four_bits(folder: Path) -> Path:
    """Weights of four bits in blocks, beside which ONNX Runtime rounds activations unless it is told not to."""
    rng = np.random.default_rng(3)
    weights = rng.integers(-8, 8, (64, 3)).astype(ml_dtypes.int4)
    scales = (rng.random((2, 3)) * 0.1 + 0.01).astype(np.float32)
    image = rng.normal(size=(ROWS, 1, 64)).astype(np.float32)
    nodes = [
        node("Flatten", ["image"], ["f"]),
        node("DequantizeLinear", ["w", "s"], ["wf"], axis=0, block_size=32),
        node("MatMul", ["f", "wf"], ["score"]),
    ]
    constants = [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(scales, "s")]
    proto = model(nodes, constants, {"image": (TensorProto.FLOAT, [1, 64])}, [3])
    proto.opset_import[0].version = 21
    scores = image[:, 0] @ (weights.astype(np.float32) * np.repeat(scales, 32, 0))
    entry = InputEntry(role="sample", dtype="float32", shape=[1, 64])
    return write(folder, proto, [Sample({"image": image}, scores)], inputs={"image": entry}, output="columns")


FORMS: dict[str, Callable[[Path], Path]] = {
    one.__name__: one for one in (plain, hoisted, relabelled, mixed, images, four_bits)
}


def _two_requests() -> Sample:
    one, two = tiny_models.sample(ROWS, seed=4), tiny_models.sample(ROWS, seed=5)
    order = np.random.default_rng(0).permutation(2 * ROWS)
    inputs = {name: np.concatenate([one.inputs[name], two.inputs[name]])[order] for name in one.inputs}
    return Sample(inputs, np.concatenate([one.scores, two.scores])[order])


def start(out: Path, to: str) -> Callable[[Arrays], np.ndarray]:
    """Return how to score with what was written, in the engine of its server and with nothing of Flyweight's."""
    (file,) = out.rglob("model.onnx")
    if to == "openvino-model-server":
        import openvino

        config = json.loads((out / "models" / "config.json").read_text())["model_config_list"][0]["config"]
        core = openvino.Core()
        request = core.compile_model(core.read_model(file), "CPU", config["plugin_config"]).create_infer_request()
        return lambda arrays: np.array(request.infer(arrays)[0])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = onnxruntime.InferenceSession(str(file), options)
    return lambda arrays: session.run(None, arrays)[0]


def sample_request(out: Path) -> Arrays:
    """Return the sample request as a server reads its JSON."""
    dtypes = {"INT64": np.int64, "FP32": np.float32}
    asked = json.loads((out / "sample_request.json").read_text())["inputs"]
    return {one["name"]: np.array(one["data"], dtypes[one["datatype"]]).reshape(one["shape"]) for one in asked}


def due_scores(bundle: Path, to: str, arrays: Arrays) -> np.ndarray:
    """Return what `Ranker` answers in the engine of a server."""
    name = "openvino" if to == "openvino-model-server" else "onnxruntime"
    read = read_bundle(bundle)
    with Ranker(read, find_engine(name).prepare(read.model, 1), name) as ranking:
        asked = {key: value for key, value in arrays.items() if read.manifest.inputs[key].role == "request"}
        return ranking.score(asked, {key: value for key, value in arrays.items() if key not in asked})

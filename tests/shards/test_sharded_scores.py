"""A sharded bundle gives the scores of the bundle it was made of, however it was split."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
from onnx import ModelProto, TensorProto, helper, numpy_helper
from shard_servers import served, shards_of

import flyweight as fw
from flyweight.bundle.add_vocabularies import add_vocabularies
from flyweight.bundle.manifest import InputEntry
from flyweight.bundle.samples import Sample
from flyweight.bundle.shards.shard import shard
from flyweight.bundle.shards.verify_sharded import verify_sharded
from flyweight.bundle.write import Contents, write_bundle
from flyweight.errors import InputError
from flyweight.task.field import REQUEST_INDEX

ITEMS = np.array([0, 5, 17, 17, tiny_models.ITEMS - 1])
PRICES = np.array([0.5, 1.0, 2.0, 3.0, 0.25], np.float32)


def bundle(folder: Path, *, hoisted: bool) -> Path:
    proto = tiny_models.hoisted_ranker() if hoisted else tiny_models.ranker()
    return write_bundle(folder / "ranker.fly", tiny_models.contents(folder / "e", proto=proto))


@pytest.mark.parametrize("hoisted", [False, True])
@pytest.mark.parametrize(("shards", "by"), [(1, "rows"), (2, "rows"), (3, "rows"), (2, "tables")])
def test_scores_are_bit_equal_to_the_bundles(tmp_path: Path, hoisted: bool, shards: int, by: Any) -> None:
    path = bundle(tmp_path, hoisted=hoisted)
    out = shard(path, tmp_path / "s.fly", shards=shards, by=by, over=1).path
    request, candidates = {"user_id": 7}, {"item_id": ITEMS, "price": PRICES}
    several = {"user_id": [3, 9, 19]}
    flat = {"user_id": np.array([1, 2, 3, 4, 5]), **candidates}
    none = {"item_id": np.empty(0, np.int64), "price": np.empty(0, np.float32)}
    offsets = [0, 2, 2, 5]
    with (
        served(*shards_of(out, shards)) as addresses,
        fw.load(path) as whole,
        fw.load(out, shards=addresses) as parts,
    ):
        assert np.array_equal(whole.score(request, candidates), parts.score(request, candidates))
        together = parts.score_many(several, candidates, offsets)
        assert np.array_equal(whole.score_many(several, candidates, offsets), together)
        assert np.array_equal(whole.predict(flat), parts.predict(flat))
        assert parts.score(request, none).shape == (0,)
        assert parts.degraded == {}


def test_front_holds_no_row_of_the_tables(tmp_path: Path) -> None:
    out = shard(bundle(tmp_path, hoisted=True), tmp_path / "s.fly", shards=2, over=1).path
    stored = b"".join((out / name).read_bytes() for name in ("model.onnx", "lookups.onnx"))
    assert not (out / "model.onnx.data").exists()
    assert tiny_models.weights()["codes"].tobytes() not in stored
    assert tiny_models.weights()["users"].tobytes() not in stored


def test_openvino_scores_a_front_too(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    path = bundle(tmp_path, hoisted=True)
    out = shard(path, tmp_path / "s.fly", shards=2, over=1).path
    with served(*shards_of(out, 2)) as addresses, fw.load(out, shards=addresses, engine="openvino") as ranker:
        scores = ranker.score({"user_id": 7}, {"item_id": ITEMS, "price": PRICES})
    due = tiny_models.expected(np.full(5, 7), ITEMS, PRICES)
    np.testing.assert_allclose(scores, due, rtol=1e-4, atol=1e-5)


def test_threads_score_at_the_same_time(tmp_path: Path) -> None:
    out = shard(bundle(tmp_path, hoisted=False), tmp_path / "s.fly", shards=2, over=1).path
    wrong: list[int] = []

    def score(user: int) -> None:
        for _ in range(50):
            scores = ranker.score({"user_id": user}, {"item_id": ITEMS, "price": PRICES})
            due = tiny_models.expected(np.full(5, user), ITEMS, PRICES)
            wrong.extend([user] * (not np.allclose(scores, due, rtol=1e-4, atol=1e-5)))

    with served(*shards_of(out, 2)) as addresses, fw.load(out, shards=addresses, threads=1) as ranker:
        threads = [threading.Thread(target=score, args=(user,)) for user in range(8)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
    assert wrong == []


def test_raw_values_come_along_to_the_front(tmp_path: Path) -> None:
    path = write_bundle(tmp_path / "r.fly", tiny_models.contents(tmp_path / "e"))
    skus = [f"sku-{number}" for number in range(tiny_models.ITEMS)]
    add_vocabularies(path, {"item_id": skus})
    out = shard(path, tmp_path / "s.fly", shards=2, over=1).path
    candidates = {"item_id": [skus[7], skus[299]], "price": [1.0, 2.0]}
    with served(*shards_of(out, 2)) as addresses, fw.load(out, shards=addresses, threads=1) as ranker:
        scores = ranker.score({"user_id": 3}, candidates)
        assert "every raw value is found with its id: item_id 300" in str(verify_sharded(out, addresses))
    due = tiny_models.expected(np.full(2, 3), np.array([7, 299]), np.array([1.0, 2.0], np.float32))
    np.testing.assert_allclose(scores, due, rtol=1e-5)
    with pytest.raises(InputError, match="is sharded; write vocabularies into the bundle it was made of"):
        add_vocabularies(out, {"item_id": skus})


def history_bundle(folder: Path) -> tuple[Path, np.ndarray[Any, Any]]:
    """A bundle that sums wide rows of a history of any length, by places counted from the end too."""
    table = np.random.default_rng(0).normal(size=(40, 64)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "history"], ["rows"]),
        helper.make_node("ReduceSum", ["rows", "axes"], ["score"], keepdims=0),
    ]
    constants = [numpy_helper.from_array(table, "table"), numpy_helper.from_array(np.array([1, 2]), "axes")]
    proto: ModelProto = tiny_models.model(nodes, constants, {"history": (TensorProto.INT64, ["length"])})
    size = tiny_models.export(folder / "e", proto, outside=False)
    entries = {"history": InputEntry(role="sample", rows=40, dtype="int64", shape=[None])}
    ids = np.array([[0, 39, 39, 7]])
    sample = Sample({"history": ids}, table[ids].sum((1, 2)))
    contents = Contents(
        folder / "e", tiny_models.evidence(size, inputs=entries), tiny_models.timing(), [sample], "<html>"
    )
    return write_bundle(folder / "h.fly", contents), table


def test_wide_rows_of_histories_of_any_length_are_asked_for_once(tmp_path: Path) -> None:
    path, table = history_bundle(tmp_path)
    out = shard(path, tmp_path / "s.fly", shards=3, over=1).path
    ids = np.array([[5, 5, 5, 38, 0, 1, 2], [5, 39, 0, 0, 0, 0, 0]])
    with served(*shards_of(out, 3)) as addresses, fw.load(out, shards=addresses) as ranker:
        np.testing.assert_allclose(ranker.predict({"history": ids}), table[ids].sum((1, 2)), rtol=1e-4, atol=1e-4)


def stacked_bundle(folder: Path) -> Path:
    """A hoisted bundle that looks two fields of a request up in one stack, as `fw.compress` writes several."""
    rng = np.random.default_rng(1)
    sizes = {"stack": (50, 4), "items": (30, 4), "w": (8, 4)}
    weights = {name: rng.normal(size=size).astype(np.float32) for name, size in sizes.items()}
    whole = {"starts": [[0], [20]], "both": [2, -1], "flat": [-1], "rows_first": [-1, 8], "w_axis": [1]}
    nodes = [
        helper.make_node("Concat", ["user", "store"], ["ids"], axis=0),
        helper.make_node("Reshape", ["ids", "both"], ["by_field"]),
        helper.make_node("Add", ["by_field", "starts"], ["in_stack"]),
        helper.make_node("Transpose", ["in_stack"], ["by_request"], perm=[1, 0]),
        helper.make_node("Reshape", ["by_request", "flat"], ["places"]),
        helper.make_node("Gather", ["stack", "places"], ["found"]),
        helper.make_node("Reshape", ["found", "rows_first"], ["request"]),
        helper.make_node("MatMul", ["request", "w"], ["once"]),
        helper.make_node("Gather", ["once", REQUEST_INDEX], ["spread"]),
        helper.make_node("Gather", ["items", "item"], ["candidate"]),
        helper.make_node("Mul", ["spread", "candidate"], ["products"]),
        helper.make_node("ReduceSum", ["products", "w_axis"], ["score"], keepdims=0),
    ]
    constants = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    constants += [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in whole.items()]
    proto = tiny_models.model(nodes, constants, {name: (TensorProto.INT64, []) for name in ("user", "store", "item")})
    for value in proto.graph.input:
        value.type.tensor_type.shape.dim[0].dim_param = "n" if value.name == "item" else "requests"
    proto.graph.input.append(helper.make_tensor_value_info(REQUEST_INDEX, TensorProto.INT64, ["spread"]))
    proto.graph.initializer.append(numpy_helper.from_array(np.array([0]), REQUEST_INDEX))
    size = tiny_models.export(folder / "e", proto, outside=False)
    rows = {"user": 20, "store": 30, "item": 30}
    entries = {
        name: InputEntry(role="candidate" if name == "item" else "request", rows=count, dtype="int64", shape=[])
        for name, count in rows.items()
    }
    ids = {name: np.full(3, count - 1) for name, count in rows.items()}
    request = np.concatenate([weights["stack"][19], weights["stack"][49]])
    score = float((request @ weights["w"] * weights["items"][29]).sum())
    sample = Sample(ids, np.full(3, score, np.float32))
    contents = Contents(
        folder / "e", tiny_models.evidence(size, inputs=entries), tiny_models.timing(), [sample], "<html>"
    )
    return write_bundle(folder / "stacked.fly", contents)


@pytest.mark.parametrize("by", ["rows", "tables"])
def test_stacked_fields_of_several_requests_are_told_apart(tmp_path: Path, by: Any) -> None:
    path = stacked_bundle(tmp_path)
    out = shard(path, tmp_path / "s.fly", shards=2, by=by, over=1)
    assert out.plan.tables[0].edges == [0, 20]
    flat = {"user": np.arange(20), "store": np.arange(29, 9, -1), "item": np.arange(20)}
    requests, offsets = {"user": [3, 4, 5], "store": [7, 8, 9]}, [0, 8, 8, 20]
    with (
        served(*shards_of(out.path, 2)) as addresses,
        fw.load(path) as whole,
        fw.load(out.path, shards=addresses) as parts,
    ):
        assert np.array_equal(whole.predict(flat), parts.predict(flat))
        together = parts.score_many(requests, {"item": np.arange(20)}, offsets)
        assert np.array_equal(whole.score_many(requests, {"item": np.arange(20)}, offsets), together)


def test_coded_ranker_of_the_exporter_scores_alike(tmp_path: Path) -> None:
    """Packed codes, stacked tables, a request computed once: what `fw.compress` writes."""
    import torch

    from flyweight.engines.export import export_onnx
    from flyweight.rewrite.hoist import hoist
    from flyweight.rewrite.rules import RULES
    from flyweight.tables.encode_tables import EncodeTables
    from flyweight.task.task import Task
    from small_tasks import Ranker, batches, world

    torch.manual_seed(0)
    fields = {
        "user_id": fw.Field("request", 60),
        "item_id": fw.Field("candidate", 400),
        "price": fw.Field("candidate"),
    }
    data = batches(*world(600, seed=3))
    task = Task(model=Ranker().eval(), inputs=fields, train=data, validation=data, test=data, metric="auc")
    coded = EncodeTables(bits_per_row=8, seed=0).apply(task).model
    inputs = data[0][0]
    hoisted = hoist(coded, fields, [inputs], RULES).model
    exported = export_onnx(hoisted, inputs, tmp_path / "e")
    entries = {
        name: InputEntry(role=field.role, rows=field.rows, dtype=str(inputs[name].numpy().dtype), shape=[])
        for name, field in fields.items()
    }
    with torch.no_grad():
        scores = coded(**inputs).numpy()
    sample = Sample({name: value.numpy() for name, value in inputs.items()}, scores)
    evidence = tiny_models.evidence(exported.bytes, inputs=entries)
    contents = Contents(exported.path.parent, evidence, tiny_models.timing(), [sample], "<html>")
    path = write_bundle(tmp_path / "r.fly", contents)
    out = shard(path, tmp_path / "s.fly", shards=2, over=64).path
    flat = dict(sample.inputs)
    with served(*shards_of(out, 2)) as addresses, fw.load(path) as whole, fw.load(out, shards=addresses) as parts:
        assert np.array_equal(whole.predict(flat), parts.predict(flat))
        assert parts.bundle.graph.requests == whole.bundle.graph.requests
        assert REQUEST_INDEX in parts._joined._front.taken

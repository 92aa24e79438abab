"""Counts of exported models beside two other tools: PyTorch's counter of operations, and what ONNX Runtime makes."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import ValueInfoProto, helper

from flyweight.cost.macs import count_macs
from flyweight.cost.onnx_shapes import Value, read_graph, value_shapes
from flyweight.cost.onnx_work import count_work
from flyweight.engines.export import export_onnx
from flyweight.rewrite.hoist import hoist
from flyweight.rewrite.rules import RULES
from flyweight.task.field import Field
from flyweight.zoo.models.din import DIN

FIELDS = {"history": Field("request", 50), "user": Field("request", 30), "item": Field("candidate", 50)}


def batch(rows: int) -> dict[str, torch.Tensor]:
    """One request: its history and its user stand in every row."""
    draw = torch.Generator().manual_seed(rows)
    history = torch.randint(1, 50, (1, 6), generator=draw).expand(rows, 6).clone()
    return {"history": history, "user": torch.full((rows,), 3), "item": torch.randint(0, 50, (rows,), generator=draw)}


@pytest.fixture(scope="module")
def model(one_thread: None) -> DIN:
    torch.manual_seed(0)
    return DIN({"user": 30, "item": 50}, item="item", dim=4, item_dim=8, attention=6, hidden=(8, 4)).eval()


@pytest.fixture(scope="module")
def files(model: DIN, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("exported")
    hoisted = hoist(model, FIELDS, [batch(5)], RULES).model
    return {
        "flat": export_onnx(model, batch(5), folder / "flat").path,
        "hoisted": export_onnx(hoisted, batch(5), folder / "hoisted").path,
    }


def given(form: str, rows: int) -> dict[str, np.ndarray]:
    cut = {name for name, field in FIELDS.items() if field.role == "request"} if form == "hoisted" else set()
    return {name: value[:1].numpy() if name in cut else value.numpy() for name, value in batch(rows).items()}


@pytest.mark.parametrize("rows", [2, 7, 500])
def test_macs_of_the_file_are_those_that_pytorch_counts(model: DIN, files: dict[str, Path], rows: int) -> None:
    counted = count_work(files["flat"], given("flat", rows))
    assert counted.macs == {"float32": count_macs(model, batch(rows)).total}
    assert counted.skipped == ()


def test_request_worked_out_once_is_less_work_and_grows_more_slowly(files: dict[str, Path]) -> None:
    few, many = (
        {form: count_work(path, given(form, rows)).macs["float32"] for form, path in files.items()} for rows in (10, 20)
    )
    assert few["hoisted"] < few["flat"]
    assert many["hoisted"] - few["hoisted"] < many["flat"] - few["flat"]


@pytest.mark.parametrize("form", ["flat", "hoisted"])
def test_inferred_sizes_are_those_that_onnx_runtime_makes(files: dict[str, Path], form: str) -> None:
    inputs = given(form, 7)
    inferred = value_shapes(read_graph(files[form]), inputs, files[form].parent)
    whole = onnx.load(str(files[form]))
    names = [name for node in whole.graph.node for name in node.output if name]
    del whole.graph.output[:]
    whole.graph.output.extend(ValueInfoProto(name=name) for name in names)
    session = onnxruntime.InferenceSession(whole.SerializeToString(), providers=["CPUExecutionProvider"])
    made = dict(zip(names, session.run(names, inputs), strict=True))
    sizes = {name: Value(helper.np_dtype_to_tensor_dtype(value.dtype), value.shape) for name, value in made.items()}
    assert {name: inferred[name] for name in names} == sizes

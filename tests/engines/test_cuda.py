"""Engines on a CUDA device: right scores where there is one, and one plain sentence where there is none."""

from pathlib import Path

import numpy as np
import pytest
import torch
from exportable import MODELS
from hoisted_file import INDEX, ITEM, USER, expected, write_hoisted

from flyweight.engines.cuda import module_on
from flyweight.engines.export import export_onnx
from flyweight.engines.inputs import read_signature
from flyweight.engines.registry import CUDA, ROUNDING, find_engine, tolerance_in
from flyweight.engines.torch_module import load_module
from flyweight.engines.torch_program import trace_program
from flyweight.errors import EngineError

NAMES = (*CUDA, *(name for name in ROUNDING if "cuda" in name))
HERE = torch.cuda.is_available()


@pytest.mark.skipif(HERE, reason="there is a CUDA device")
@pytest.mark.parametrize("name", NAMES)
def test_missing_device_is_said(name: str, tmp_path: Path) -> None:
    engine = find_engine(name)
    why = engine.available()
    assert why is not None
    assert "CUDA" in why
    with pytest.raises(EngineError, match=name):
        engine.prepare(write_hoisted(tmp_path))


@pytest.mark.parametrize("name", ["ranker", "history", "images"])
def test_whole_module_moves_to_a_device(name: str, tmp_path: Path) -> None:
    """A constant left on the processor would meet tensors of the device; "meta" is a device that every machine has."""
    make, batch = MODELS[name]
    exported = export_onnx(make().eval(), batch(6), tmp_path)
    signature = read_signature(exported.path)
    loaded = load_module(exported.path, signature, (), "torch-cuda")
    module = module_on("meta", trace_program(loaded, signature, ()), "f32")
    assert all(tensor.is_meta for tensor in module.state_dict().values())
    tensors = [batch(9)[name].to("meta") for name in loaded.names]
    scores = module(*tensors)
    assert scores.is_meta
    assert len(scores) == 9


@pytest.mark.parametrize("name", ["ranker", "history"])
def test_moved_module_rounds_products(name: str, tmp_path: Path) -> None:
    """On the processor, which every machine has: the same scores in float32, and near them in bfloat16."""
    make, batch = MODELS[name]
    torch.manual_seed(0)
    model = make().eval()
    exported = export_onnx(model, batch(6), tmp_path)
    signature = read_signature(exported.path)
    seen = {}
    with torch.inference_mode():
        due = model(**batch(9))
        for precision in ("f32", "bf16"):
            loaded = load_module(exported.path, signature, (), "torch-cuda")
            module = module_on("cpu", trace_program(loaded, signature, ()), precision)
            seen[precision] = (module(*(batch(9)[one] for one in loaded.names)) - due).abs().max() / due.abs().median()
            held = {tensor.dtype for name, tensor in module.state_dict().items() if name.endswith("weight")}
            assert (torch.bfloat16 in held) == (precision == "bf16")
    assert seen["f32"] < 1e-5 < seen["bf16"] < tolerance_in("torch-cuda-bf16")


@pytest.mark.skipif(not HERE, reason="no CUDA device")
@pytest.mark.parametrize("name", NAMES)
def test_scores_on_the_device(name: str, tmp_path: Path) -> None:
    engine = find_engine(name)
    why = engine.available()
    if why is not None:
        pytest.skip(why)
    prepared = engine.prepare(write_hoisted(tmp_path))
    tolerance = tolerance_in(name) * 10 if name in ROUNDING else 1e-4
    for rows in (5, 1, 0, 5):
        scores = prepared.run({"user": USER[:1], "item": ITEM[:rows]})
        due = expected(USER[:1], ITEM[:rows], np.zeros(rows, np.int64))
        np.testing.assert_allclose(scores, due, rtol=tolerance, atol=tolerance)
    scores = prepared.run({"user": USER, "item": ITEM, "request_index": INDEX})
    np.testing.assert_allclose(scores, expected(USER, ITEM, INDEX), rtol=tolerance, atol=tolerance)
    prepared.close()
    with pytest.raises(EngineError, match="the model is closed"):
        prepared.run({"user": USER[:1], "item": ITEM})

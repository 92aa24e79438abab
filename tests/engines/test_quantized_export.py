"""Quantised models are written as standard ONNX with integers in the file, and engines give PyTorch's scores."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from quantised import QUANTISED, Activation, QuantConv, build, exported, images, vectors
from torch import Tensor, nn
from torch.nn import functional

from flyweight.engines.agreement import agreement
from flyweight.engines.export import export_onnx
from flyweight.engines.operators import operator_counts
from flyweight.engines.registry import ENGINES
from flyweight.errors import ExportError
from flyweight.graph.quantize_ops import quantize_dequantize, quantize_dequantize_blocks
from flyweight.graph.unrounded import Unrounded

INTEGERS = {TensorProto.INT8, TensorProto.UINT8, TensorProto.INT4, TensorProto.UINT4}


@pytest.mark.parametrize("name", QUANTISED)
def test_engines_give_the_scores_of_the_simulation(name: str) -> None:
    """Where a sum ends between two steps of a grid its last bit decides, so that single scores differ by a step."""
    model, inputs = build(name), QUANTISED[name][1](200)
    with torch.no_grad():
        expected = model(**inputs).numpy()
        with Unrounded():
            noise = float(np.sqrt(np.square(model(**inputs).numpy() - expected).mean()))
    assert noise > 0
    for engine in ENGINES.values():
        prepared = engine.prepare(exported(name).path, threads=1)
        scores = prepared.run({key: value.numpy() for key, value in inputs.items()})
        seen = agreement(expected, scores, noise=noise)
        assert seen.ok, f"{name} in {engine.name}: {seen.words}"
        if "dynamic" not in name:  # whose grid is that of the whole batch
            one = prepared.run({key: value[:1].numpy() for key, value in inputs.items()})
            np.testing.assert_allclose(one, scores[:1], atol=5 * noise)
        prepared.close()


WEIGHTS_ALONE = ("int8 weights", "int4 weights", "int4 blocks", "int4 blocks of sequences", "bfloat16")


@pytest.mark.parametrize("name", WEIGHTS_ALONE)
def test_engines_leave_activations_alone_where_only_weights_are_rounded(name: str) -> None:
    inputs = QUANTISED[name][1](50)
    with torch.no_grad():
        expected = build(name)(**inputs).numpy()
    for engine in ENGINES.values():
        prepared = engine.prepare(exported(name).path, threads=1)
        scores = prepared.run({key: value.numpy() for key, value in inputs.items()})
        np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", QUANTISED)
def test_file_is_sound_and_holds_no_float_weights(name: str) -> None:
    path = exported(name).path
    onnx.checker.check_model(str(path), full_check=True)
    proto = onnx.load(path)
    assert {node.domain for node in proto.graph.node} == {""}
    four_bits = "int4" in name or "mixed" in name
    assert [(one.domain, one.version) for one in proto.opset_import] == [("", 21 if four_bits else 20)]
    large = [one for one in proto.graph.initializer if np.prod(one.dims) >= 32 * 48]
    assert len(large) == (0 if name == "residual" else 2)
    assert {one.data_type for one in large} <= ({TensorProto.BFLOAT16} if name == "bfloat16" else INTEGERS)


@pytest.mark.parametrize(("name", "each"), [("bfloat16", 2.0), ("int8 weights", 1.0), ("int4 weights", 0.5)])
def test_bytes_shrink_with_the_bits(name: str, each: float) -> None:
    """Two weights of 1,536 numbers; scales, biases and the graph lie beside them."""
    file = exported(name)
    matrices = [one for one in onnx.load(file.path).graph.initializer if len(one.dims) == 2]
    assert [len(one.raw_data) for one in matrices] == [1536 * each] * 2
    assert file.bytes < 2 * 1536 * each + 4096


@pytest.mark.parametrize("name", ["residual", "mixed"])
def test_same_model_gives_the_same_bytes(name: str, tmp_path: Path) -> None:
    again = export_onnx(build(name), QUANTISED[name][1](9), tmp_path)
    assert again.bytes == exported(name).bytes
    files = [{one.name: one.read_bytes() for one in file.path.parent.iterdir()} for file in (exported(name), again)]
    assert files[0] == files[1]


def test_two_grids_on_one_value_keep_apart(tmp_path: Path) -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.coarse, self.fine = Activation(-4, 4, 0, 15), Activation(-4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.coarse(x) + 100 * self.fine(x)

    path = export_onnx(Two(), vectors(3), tmp_path).path
    names = [node.name for node in onnx.load(path).graph.node]
    assert len(set(names)) == len(names)
    expected = Two()(**vectors(9)).numpy()
    scores = ENGINES["onnxruntime"].prepare(path).run({"x": vectors(9)["x"].numpy()})
    assert agreement(expected, scores).ok


def test_weight_read_twice_is_stored_once(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(32, 32))
            self.register_buffer("scale", torch.full((32,), 0.02))

        def forward(self, x: Tensor) -> Tensor:
            x = functional.linear(x, quantize_dequantize(self.weight, self.scale))
            return functional.linear(torch.relu(x), quantize_dequantize(self.weight, self.scale))

    path = export_onnx(Tied(), vectors(3), tmp_path).path
    matrices = [one for one in onnx.load(path).graph.initializer if len(one.dims) == 2]
    assert [one.data_type for one in matrices] == [TensorProto.INT8]


@pytest.mark.parametrize(("low", "high"), [(0, 100), (-127, 127)])
def test_grid_narrower_than_its_type_is_cut_in_engines_too(low: int, high: int, tmp_path: Path) -> None:
    model = Activation(-1, 1, low, high)
    x = torch.linspace(-3, 3, 600).reshape(-1, 6)
    path = export_onnx(model, {"x": x[:4]}, tmp_path).path
    for engine in ENGINES.values():
        np.testing.assert_allclose(engine.prepare(path).run({"x": x.numpy()}), model(x).numpy(), atol=1e-6)


def test_activations_with_a_scale_each_are_cut_and_rounded(tmp_path: Path) -> None:
    class Columns(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("scale", torch.linspace(0.01, 0.02, 32))

        def forward(self, x: Tensor) -> Tensor:
            return quantize_dequantize(x, self.scale, None, 1, -100, 100)

    path = export_onnx(Columns(), vectors(3), tmp_path).path
    scores = ENGINES["onnxruntime"].prepare(path).run({"x": vectors(40)["x"].numpy()})
    np.testing.assert_allclose(scores, Columns()(**vectors(40)).numpy(), atol=1e-6)


def test_dynamic_layers_give_the_very_numbers_of_onnxruntime() -> None:
    model, path = build("dynamic"), exported("dynamic").path
    counts = operator_counts(path)
    assert counts["DynamicQuantizeLinear"] == counts["MatMulInteger"] == 2
    for x in (torch.zeros(3, 32), torch.full((3, 32), -2.0), vectors(100)["x"]):
        scores = ENGINES["onnxruntime"].prepare(path).run({"x": x.numpy()})
        np.testing.assert_allclose(scores, model(x).detach().numpy(), rtol=1e-5, atol=1e-5)


def test_bias_too_large_for_int32_stays_float(tmp_path: Path) -> None:
    class Tiny(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.end = QuantConv(3, 2), Activation(-1e-4, 1e-4)
            self.inner.scale.fill_(1e-7)

        def forward(self, image: Tensor) -> Tensor:
            return self.inner(self.end(image))

    path = export_onnx(Tiny(), images(2), tmp_path).path
    assert TensorProto.INT32 not in {one.data_type for one in onnx.load(path).graph.initializer}


class Broken(nn.Module):
    def __init__(self, scale: Tensor, block: int = 0) -> None:
        super().__init__()
        self.block = block
        self.weight = nn.Parameter(torch.randn(4, 32))
        self.register_buffer("scale", scale)

    def forward(self, x: Tensor) -> Tensor:
        if self.block:
            return functional.linear(x, quantize_dequantize_blocks(self.weight, self.scale, None, 1, self.block))
        scale = x.abs().amax(0)[:4] if self.scale.ndim == 2 else self.scale
        return functional.linear(x, quantize_dequantize(self.weight, scale))


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (Broken(torch.zeros(4)), "scales that are not all positive numbers"),
        (Broken(torch.full((4,), torch.nan)), "scales that are not all positive numbers"),
        (Broken(torch.ones(1, 1)), "worked out while the model runs"),
        (Broken(torch.ones(1, 2), 16), r"scales of shape \[1, 2\] .* where \[4, 2\] is due"),
    ],
)
def test_scales_that_do_not_fit_are_refused(model: nn.Module, words: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=words):
        export_onnx(model, vectors(6), tmp_path)

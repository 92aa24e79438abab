"""What ONNX Runtime, OpenVINO and NNCF offer to make a file smaller or quicker, each pass from a file to a file.

The passes and their settings are those of Olive's (OnnxQuantization, OnnxBlockWiseRtnQuantization, OnnxFloatToFloat16,
OrtTransformersOptimization, OpenVINOQuantization, OpenVINOWeightCompression, GemmToMatMulAdd; Olive of August 2026),
called through the same public functions of the tools that Olive calls.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from auto_peer_engines import core
from dense_peers import rows_of
from flyweight.cost.sizes import bytes_on_disk

Arrays = dict[str, NDArray[Any]]
Recipe = Mapping[str, Any]
#: Calibration rows, NNCF's default for all, given one by one: ONNX Runtime's histograms want calls of one size.
SUBSET = 300


@dataclass(frozen=True)
class Facts:
    """What a file has, so that no pass is tried that cannot change anything."""

    tables: bool
    convolutions: bool
    attention: bool


@dataclass(frozen=True)
class Made:
    """A file and how it is run."""

    path: Path
    engine: str
    precision: str

    @property
    def bytes(self) -> int:
        """Of the file and what lies beside it."""
        beside = (self.path.with_suffix(".bin"), self.path.with_name(f"{self.path.name}.data"))
        return bytes_on_disk(self.path, *(one for one in beside if one.exists()))


def facts_of(path: Path) -> Facts:
    """Return what a file has."""
    graph = onnx.load(path, load_external_data=False).graph
    weights = {tensor.name for tensor in graph.initializer}
    kinds = {node.op_type for node in graph.node}
    tables = any(node.op_type == "Gather" and node.input[0] in weights for node in graph.node)
    return Facts(tables, "Conv" in kinds, {"Softmax", "LayerNormalization"} <= kinds)


def make(original: Path, recipe: Recipe, calibration: Iterable[Arrays], folder: Path) -> Made:
    """Apply a recipe to the original float32 file and return what came out.

    Args:
        original: the exported model.
        recipe: see `auto_peer_space.suggest`.
        calibration: batches of training rows.
        folder: empty; for the file.
    """
    if recipe["engine"] == "openvino":
        return _openvino(original, recipe, calibration, folder)
    path = original
    for number, step in enumerate(_onnx_passes(recipe, calibration)):
        made = folder / f"{number}.onnx"
        step(path, made)
        _remove(path, original)
        path = made
    return Made(path, "onnxruntime", "f32")


Pass = Callable[[Path, Path], None]


def _onnx_passes(recipe: Recipe, calibration: Iterable[Arrays]) -> Iterator[Pass]:
    """Yield the passes of a recipe for ONNX Runtime, in the order in which they compose."""
    tables, dense = recipe.get("tables", "float32"), recipe["dense"]
    if recipe.get("transformers"):
        yield _transformers
    if tables.endswith("bits"):
        yield lambda path, made: _blocks(path, made, "Gather", tables, recipe)
    elif tables == "int8" and not dense.endswith("int8"):
        yield lambda path, made: _dynamic(path, made, recipe, ["Gather"])
    if dense.endswith("bits"):
        yield _gemm_to_matmul
        yield lambda path, made: _blocks(path, made, "MatMul", dense, recipe)
    if dense == "dynamic int8":
        yield lambda path, made: _dynamic(path, made, recipe, _operators(recipe, "MatMul", "Gemm", "Attention"))
    if dense == "static int8":
        yield lambda path, made: _static(path, made, recipe, calibration)
    if dense == "float16":
        yield _float16


def _operators(recipe: Recipe, *always: str) -> list[str]:
    """Return which operators the quantiser may take: tables and convolutions where the recipe says so."""
    chosen = {"Gather": recipe.get("tables") == "int8", "Conv": recipe.get("convolutions", False)}
    return [*always, *(name for name, wanted in chosen.items() if wanted)]


def _transformers(path: Path, made: Path) -> None:
    from onnxruntime.transformers.optimizer import optimize_model

    optimize_model(str(path), model_type="bert", opt_level=0).save_model_to_file(str(made))


def _gemm_to_matmul(path: Path, made: Path) -> None:
    """Write each Gemm as MatMul and Add: the block quantiser knows MatMul only."""
    model = onnx.load(path)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = []
    for node in model.graph.node:
        settings = {one.name: helper.get_attribute_value(one) for one in node.attribute}
        plain = settings.get("alpha", 1.0) == settings.get("beta", 1.0) == 1.0 and not settings.get("transA", 0)
        if node.op_type != "Gemm" or not plain or node.input[1] not in weights:
            nodes.append(node)
            continue
        matrix = weights[node.input[1]]
        if settings.get("transB", 0):
            turned = numpy_helper.from_array(np.ascontiguousarray(numpy_helper.to_array(matrix).T), f"{matrix.name}_T")
            model.graph.initializer.append(turned)
            matrix = turned
        last = node.output[0] if len(node.input) < 3 else f"{node.output[0]}_product"
        nodes.append(helper.make_node("MatMul", [node.input[0], matrix.name], [last], name=f"{node.name}_MatMul"))
        if len(node.input) == 3:
            nodes.append(helper.make_node("Add", [last, node.input[2]], node.output, name=f"{node.name}_Add"))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    _drop_unread(model)
    onnx.save(model, made)


def _blocks(path: Path, made: Path, operator: str, width: str, recipe: Recipe) -> None:
    """Hold matrices (MatMulNBits) or tables (GatherBlockQuantized) in 4 or 8 bits with a scale for each block."""
    from onnxruntime.quantization import matmul_nbits_quantizer as nbits

    settings: dict[str, Any] = {"block_size": recipe["block_size"], "is_symmetric": recipe["symmetric"]}
    settings |= {"op_types_to_quantize": (operator,), "quant_axes": (("MatMul", 0), ("Gather", 1))}
    settings["bits"] = int(width.split()[0])
    algorithm = recipe.get("algorithm", "default") if operator == "MatMul" else "default"
    more = {"accuracy_level": recipe.get("accuracy_level")}
    if algorithm == "hqq":
        kept = {key: settings[key] for key in ("block_size", "bits", "op_types_to_quantize", "quant_axes")}
        more["algo_config"] = nbits.HQQWeightOnlyQuantConfig(**kept)
    elif algorithm == "k_quant":
        more["algo_config"] = nbits.KQuantWeightOnlyQuantConfig(op_types_to_quantize=(operator,))
    if operator == "Gather" and settings["bits"] == 8:  # the operator has 8 bits, the quantiser leaves tables at them
        return _tables_8_bits(path, made, recipe["block_size"])
    quantizer = nbits.MatMulNBitsQuantizer(onnx.load(path), **settings, **more)
    quantizer.process()
    quantizer.model.save_model_to_file(str(made), False)
    return None


def _tables_8_bits(path: Path, made: Path, block_size: int) -> None:
    """Hold tables as GatherBlockQuantized of 8 bits: a scale for each block of a row, zero at 128."""
    model = onnx.load(path)
    tables = {tensor.name: tensor for tensor in model.graph.initializer}
    readers = [node for node in model.graph.node if node.op_type == "Gather" and node.input[0] in tables]
    for node in readers:
        values = numpy_helper.to_array(tables[node.input[0]])
        if values.ndim != 2 or values.dtype != np.float32:
            continue
        name, blocks = node.input[0], -(-values.shape[1] // block_size)
        if f"{name}_scales" not in tables:
            padded = np.pad(values, ((0, 0), (0, blocks * block_size - values.shape[1])))
            cut = padded.reshape(len(values), blocks, block_size)
            scales = np.maximum(np.abs(cut).max(2), 1e-12).astype(np.float32) / 127  # (rows, blocks)
            codes = np.rint(cut / scales[:, :, None]).reshape(padded.shape)[:, : values.shape[1]] + 128
            for tensor in (
                numpy_helper.from_array(codes.astype(np.uint8), f"{name}_codes"),
                numpy_helper.from_array(scales, f"{name}_scales"),
            ):
                model.graph.initializer.append(tensor)
                tables[tensor.name] = tensor
        inputs = [f"{name}_codes", node.input[1], f"{name}_scales"]
        settings = {"gather_axis": 0, "quantize_axis": 1, "block_size": block_size, "bits": 8}
        new = helper.make_node("GatherBlockQuantized", inputs, node.output, domain="com.microsoft", **settings)
        place = list(model.graph.node).index(node)
        model.graph.node.remove(node)
        model.graph.node.insert(place, new)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    _drop_unread(model)
    onnx.save(model, made)


def _drop_unread(model: onnx.ModelProto) -> None:
    read = {name for node in model.graph.node for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in read]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)


def _dynamic(path: Path, made: Path, recipe: Recipe, operators: list[str]) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    kinds = {"int8": QuantType.QInt8, "uint8": QuantType.QUInt8}
    ready = _preprocessed(path, made.parent) if recipe.get("preprocess") else path
    quantize_dynamic(
        str(ready), str(made), op_types_to_quantize=operators, per_channel=recipe.get("per_channel", False),
        reduce_range=recipe.get("reduce_range", False), weight_type=kinds[recipe.get("weights", "int8")],
    )  # fmt: skip
    _remove(ready, path)


def _static(path: Path, made: Path, recipe: Recipe, calibration: Iterable[Arrays]) -> None:
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    kinds = {"int8": QuantType.QInt8, "uint8": QuantType.QUInt8}
    form, activations, weights = recipe["kind"].split()
    ready = _preprocessed(path, made.parent) if recipe.get("preprocess") else path
    operators = ["MatMul", "Gemm", "Conv", "Add", "Mul", "Relu", "Concat", "Attention", "GlobalAveragePool"]
    quantize_static(
        str(ready), str(made), _Reader(rows_of(calibration, SUBSET)),
        quant_format=QuantFormat[form], calibrate_method=CalibrationMethod[recipe["calibration"]],
        op_types_to_quantize=[*operators, *(["Gather"] if recipe.get("tables") == "int8" else [])],
        per_channel=recipe["per_channel"], reduce_range=recipe["reduce_range"],
        activation_type=kinds[activations], weight_type=kinds[weights],
    )  # fmt: skip
    _remove(ready, path)


def _preprocessed(path: Path, folder: Path) -> Path:
    """Return the file after shape inference and the optimiser, as the quantisers advise."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    whole, ready = folder / "whole.onnx", folder / "ready.onnx"
    onnx.save(onnx.load(path), whole)  # in one file: the preprocessing looks for weights in a folder of its own
    quant_pre_process(str(whole), str(ready), auto_merge=True)
    whole.unlink()
    return ready


def _float16(path: Path, made: Path) -> None:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    onnx.save(convert_float_to_float16(onnx.load(path), keep_io_types=True), made)


class _Reader:
    """Calibration batches as ONNX Runtime asks for them."""

    def __init__(self, batches: Iterable[Arrays]) -> None:
        self._left = iter(batches)

    def get_next(self) -> Arrays | None:
        return next(self._left, None)

    def __iter__(self) -> Iterator[Arrays]:
        return self._left


def _openvino(original: Path, recipe: Recipe, calibration: Iterable[Arrays], folder: Path) -> Made:
    """Compress weights, quantise what is left, and save in OpenVINO's format."""
    import nncf
    import openvino

    model = core().read_model(str(original))
    if recipe["weights"] != "none":
        model = nncf.compress_weights(model, **_weight_settings(recipe))
    if recipe["dense"] != "float32":
        data = nncf.Dataset(list(rows_of(calibration, SUBSET)))
        model = nncf.quantize(
            model, data, subset_size=SUBSET, preset=nncf.QuantizationPreset[recipe["preset"].upper()],
            fast_bias_correction=recipe["dense"] == "PTQ, fast bias correction",
            model_type=nncf.ModelType.TRANSFORMER if recipe.get("transformers") else None,
        )  # fmt: skip
    openvino.save_model(model, folder / "model.xml", compress_to_fp16=recipe["stored"] == "float16")
    return Made(folder / "model.xml", "openvino", recipe["precision"])


def _weight_settings(recipe: Recipe) -> dict[str, Any]:
    """Return what `nncf.compress_weights` is called with; below 8 bits tables too, which it leaves at 8 by itself."""
    import nncf

    mode = nncf.CompressWeightsMode[recipe["weights"].upper()]
    settings: dict[str, Any] = {"mode": mode}
    if "int8" not in recipe["weights"]:
        settings |= {"all_layers": True, "group_size": recipe["group_size"], "ratio": 1.0}
    if recipe["dense"] != "float32":  # tables here, layers by the quantiser
        settings["ignored_scope"] = nncf.IgnoredScope(types=["MatMul", "Convolution"], validate=False)
    return settings


def _remove(path: Path, kept: Path) -> None:
    """Delete a file that was only on the way."""
    if path != kept:
        path.unlink(missing_ok=True)
        path.with_name(f"{path.name}.data").unlink(missing_ok=True)

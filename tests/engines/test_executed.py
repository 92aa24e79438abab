"""What engines really run: integers for quantised models, none for float32."""

from pathlib import Path

import pytest
import torch
from exportable import MODELS as FLOAT
from exportable import Images
from quantised import exported

from flyweight.engines.executed import INTEGERS, executed_operators, integer_share
from flyweight.engines.export import export_onnx
from flyweight.engines.registry import ENGINES, ROUNDING, find_engine
from flyweight.errors import EngineError, InputError

EACH = pytest.mark.parametrize("engine", list(ENGINES))


@EACH
@pytest.mark.parametrize(("name", "layers"), [("residual", 4), ("static", 2), ("static of sequences", 2)])
def test_every_layer_of_a_quantised_model_runs_in_integers(engine: str, name: str, layers: int) -> None:
    assert integer_share(executed_operators(exported(name).path, engine)) == (layers, layers)


def test_onnxruntime_fuses_convolutions_sums_and_concatenations() -> None:
    counts = {row.operator: row.count for row in executed_operators(exported("residual").path, "onnxruntime")}
    assert counts.items() >= {"QLinearConv": 3, "QLinearAdd": 1, "QLinearConcat": 1, "QGemm": 1}.items()
    assert not {"Conv", "FusedConv", "Add", "Gemm"} & set(counts)


def test_dynamic_layers_run_in_integers_in_onnxruntime() -> None:
    assert integer_share(executed_operators(exported("dynamic").path, "onnxruntime")) == (2, 2)


@EACH
@pytest.mark.parametrize("name", ["int8 weights", "int4 blocks", "bfloat16"])
def test_layers_with_float_activations_run_in_float(engine: str, name: str) -> None:
    assert integer_share(executed_operators(exported(name).path, engine)) == (0, 2)


@EACH
@pytest.mark.parametrize("name", ["images", "probability"])
def test_float_models_run_no_integer_layers(engine: str, name: str, tmp_path: Path) -> None:
    make, batch = FLOAT[name]
    executed = executed_operators(export_onnx(make(), batch(6), tmp_path).path, engine)
    integers, layers = integer_share(executed)
    assert integers == 0
    assert layers == 2
    assert not {row.precision for row in executed} & INTEGERS


def test_bfloat16_engine_runs_layers_in_bfloat16_where_the_processor_has_it(tmp_path: Path) -> None:
    engine = find_engine("openvino-bf16")
    if engine.available() is not None:
        pytest.skip(str(engine.available()))
    torch.manual_seed(0)
    path = export_onnx(Images(), FLOAT["images"][1](6), tmp_path).path
    layers = [row for row in executed_operators(path, "openvino-bf16") if row.multiplies]
    assert {row.precision for row in layers} == {"bfloat16"}


def test_rounding_engines_are_known_by_name_and_not_tried_unasked() -> None:
    assert not set(ROUNDING) & set(ENGINES)
    assert all(find_engine(name).name == name for name in ROUNDING)


def test_numbers_of_the_model_are_left_alone() -> None:
    path = exported("residual").path
    before = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    executed_operators(path, "onnxruntime")
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == before


def test_unknown_engine_and_broken_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'tensorrt' is unknown"):
        executed_operators(tmp_path / "model.onnx", "tensorrt")
    (tmp_path / "model.onnx").write_bytes(b"no model")
    for engine in ENGINES:
        with pytest.raises(EngineError):
            executed_operators(tmp_path / "model.onnx", engine)

"""What every engine in the registry must do."""

import builtins
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from flyweight.engines.engine import Engine, Prepared
from flyweight.engines.export import Exported, export_onnx
from flyweight.engines.registry import ENGINES, TORCH, find_engine
from flyweight.errors import EngineError, InputError

#: Those that start at once; test_inductor.py and test_cuda.py hold the rest to the same.
STARTED = {**ENGINES, "torch": TORCH["torch"]}
ALL = pytest.mark.parametrize("engine", STARTED.values(), ids=list(STARTED))


class Dot(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.item = nn.Embedding.from_pretrained(torch.arange(20.0).reshape(10, 2))

    def forward(self, item_id: Tensor, user: Tensor) -> Tensor:
        return (self.item(item_id) * user).sum(1)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    inputs = {"item_id": torch.arange(3), "user": torch.rand(3, 2)}
    return export_onnx(Dot(), inputs, tmp_path_factory.mktemp("dot"))


@pytest.fixture
def prepared(engine: Engine, exported: Exported) -> Iterator[Prepared]:
    prepared = engine.prepare(exported.path, threads=1)
    yield prepared
    prepared.close()


ITEM_ID, USER = np.array([0, 9, 4]), np.array([[1, 0], [0, 1], [1, 1]], dtype=np.float32)
SCORES = [0.0, 19.0, 17.0]  # rows are (2 i, 2 i + 1)


@ALL
def test_engine_is_an_engine(engine: Engine, exported: Exported) -> None:
    assert isinstance(engine, Engine)
    assert isinstance(engine.prepare(exported.path), Prepared)
    assert find_engine(engine.name) is engine
    assert engine.available() is None
    assert engine.cannot_run(exported.path) is None


@ALL
def test_run_gives_scores(prepared: Prepared) -> None:
    assert prepared.input_names == ("item_id", "user")
    np.testing.assert_allclose(prepared.run({"user": USER, "item_id": ITEM_ID}), SCORES)


@ALL
@pytest.mark.parametrize("rows", [1, 0])
def test_one_row_and_none_are_scored(prepared: Prepared, rows: int) -> None:
    np.testing.assert_allclose(prepared.run({"item_id": ITEM_ID[:rows], "user": USER[:rows]}), SCORES[:rows])


@ALL
@pytest.mark.parametrize(("ids", "floats"), [("int32", "float64"), ("uint8", "float16"), ("int64", "int64")])
def test_kin_dtypes_are_taken(prepared: Prepared, ids: str, floats: str) -> None:
    np.testing.assert_allclose(prepared.run({"item_id": ITEM_ID.astype(ids), "user": USER.astype(floats)}), SCORES)


@ALL
def test_arrays_with_strides_are_taken(prepared: Prepared) -> None:
    wide = np.repeat(USER, 2, axis=0)
    np.testing.assert_allclose(prepared.run({"item_id": np.repeat(ITEM_ID, 2)[::2], "user": wide[::2]}), SCORES)


@ALL
def test_scores_belong_to_the_caller(prepared: Prepared) -> None:
    first = prepared.run({"item_id": ITEM_ID, "user": USER})
    prepared.run({"item_id": np.array([1, 1, 1]), "user": USER})
    np.testing.assert_allclose(first, SCORES)


@ALL
def test_threads_get_the_scores_of_their_own_rows(prepared: Prepared) -> None:
    """Batches of one size: where threads shared an engine's inputs, only the numbers would tell."""
    rows = 2000

    def seen(item: int) -> np.ndarray:
        return prepared.run({"item_id": np.full(rows, item), "user": np.ones((rows, 2), np.float32)})

    items = [call % 10 for call in range(200)]
    with ThreadPoolExecutor(4) as pool:
        for item, scores in zip(items, pool.map(seen, items), strict=True):
            np.testing.assert_allclose(scores, 4 * item + 1)


@ALL
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"item_id": None}, "lacks input 'item_id'; seen ['user'], the model takes ['item_id', 'user']"),
        ({"color": ITEM_ID}, "has 'color', which the model does not take"),
        ({"item_id": ITEM_ID.astype(float)}, "'item_id' has dtype float64; the model takes int64. Give whole numbers"),
        ({"user": USER.astype(str)}, "'user' has dtype <U32; the model takes float32. Give numbers"),
        ({"user": USER[:, :1]}, "'user' has shape (3, 1); the model takes (any, 2)"),
        ({"item_id": ITEM_ID[:, None]}, "'item_id' has shape (3, 1); the model takes (any)"),
        (
            {"item_id": np.array([2**63], dtype=np.uint64), "user": USER[:1]},
            "9223372036854775808; the model takes int64",
        ),
    ],
)
def test_wrong_input_is_named(prepared: Prepared, change: dict[str, np.ndarray | None], words: str) -> None:
    given = {"item_id": ITEM_ID, "user": USER} | change
    with pytest.raises(InputError) as caught:
        prepared.run({name: value for name, value in given.items() if value is not None})
    assert words in str(caught.value)


@ALL
def test_unequal_rows_are_refused(prepared: Prepared) -> None:
    with pytest.raises(InputError, match="'user' has 2 rows and 'item_id' has 3; they must be equally long"):
        prepared.run({"item_id": ITEM_ID, "user": USER[:2]})


@ALL
def test_closed_model_refuses(engine: Engine, exported: Exported) -> None:
    prepared = engine.prepare(exported.path)
    prepared.close()
    prepared.close()
    with pytest.raises(EngineError, match=f"{engine.name}: the model is closed"):
        prepared.run({"item_id": ITEM_ID, "user": USER})


@ALL
def test_damaged_file_is_refused_in_one_line(engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"\x08\x0anot a model")
    with pytest.raises(EngineError, match=rf"^{engine.name} refused broken.onnx: .+$"):
        engine.prepare(path)
    why = engine.cannot_run(path)
    assert why is not None
    assert "\n" not in why


@ALL
def test_unknown_operator_is_named(engine: Engine, tmp_path: Path) -> None:
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["rows"])
    score = onnx.helper.make_tensor_value_info("score", onnx.TensorProto.FLOAT, ["rows"])
    node = onnx.helper.make_node("Frobnicate", ["x"], ["score"], domain="example")
    opsets = [onnx.helper.make_opsetid("", 20), onnx.helper.make_opsetid("example", 1)]
    model = onnx.helper.make_model(
        onnx.helper.make_graph([node], "g", [value], [score]), opset_imports=opsets, ir_version=10
    )
    path = tmp_path / "odd.onnx"
    onnx.save(model, path)
    why = engine.cannot_run(path)
    assert why is not None
    assert "Frobnicate" in why


@ALL
def test_missing_package_says_what_to_install(
    engine: Engine, exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *rest: object) -> object:
        if name.split(".")[0] == engine.name:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(EngineError, match=f"{engine.name} is not installed: pip install"):
        engine.prepare(exported.path)


def test_unknown_engine_lists_the_known() -> None:
    with pytest.raises(InputError, match="'tpu' is unknown; use one of onnxruntime, openvino"):
        find_engine("tpu")


def test_engines_import_no_torch() -> None:
    """Nor OpenVINO, which only its own class imports."""
    code = (
        "import sys, flyweight.engines.choose, flyweight.engines.operators;"
        "print(sorted({'torch', 'openvino', 'onnxscript', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

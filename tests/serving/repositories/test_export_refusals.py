"""What cannot be exported, and where: one line says what is wrong, and nothing is left behind."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import tiny_models
from onnx import TensorProto, helper, numpy_helper
from served_bundles import hoisted, images, node, write
from tiny_models import model
from typer.testing import CliRunner

from flyweight.bundle.manifest import InputEntry
from flyweight.bundle.samples import Sample
from flyweight.cli.main import app
from flyweight.engines import openvino
from flyweight.errors import BundleError, EngineError, InputError
from flyweight.serving.repositories.export_bundle import export_bundle

SOURCE = Path(__file__).parents[3] / "src"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return hoisted(tmp_path)


def left(bundle: Path) -> set[str]:
    return {path.name for path in bundle.parent.iterdir()} - {"tiny.fly", "exported"}


@pytest.mark.parametrize("name", ["", ".", "..", "../up", "a/b", "a\\b", "-x", "a b", "a\n", "é", "x" * 64])
def test_a_name_that_is_no_folder_is_refused(bundle: Path, name: str) -> None:
    with pytest.raises(InputError, match="cannot name a served model; give 1 to 63 letters, digits"):
        export_bundle(bundle, bundle.parent / "out", to="triton", name=name)
    assert left(bundle) == set()


@pytest.mark.parametrize("name", ["Ranker", "a_b", "1a", "a-", "a.b", "x" * 54])
def test_a_name_that_kubernetes_does_not_take_is_refused(bundle: Path, name: str) -> None:
    with pytest.raises(InputError, match="give 1 to 53 lower case letters"):
        export_bundle(bundle, bundle.parent / "out", to="kserve", name=name)


@pytest.mark.parametrize("version", [0, -1, 2**31, True, 1.0])
def test_a_version_that_is_no_folder_is_refused(bundle: Path, version: int) -> None:
    with pytest.raises(InputError, match="whole number from 1 to"):
        export_bundle(bundle, bundle.parent / "out", to="triton", version=version)


def test_an_unknown_server_is_refused_with_the_nearest(bundle: Path) -> None:
    with pytest.raises(InputError, match=r"no way to 'tritton'; use one of triton, .* The nearest is 'triton'"):
        export_bundle(bundle, bundle.parent / "out", to="tritton")


def test_a_storage_address_is_kserves_alone(bundle: Path) -> None:
    with pytest.raises(InputError, match="A storage address is KServe's"):
        export_bundle(bundle, bundle.parent / "out", to="triton", storage_uri="s3://b/c")


def test_an_export_is_replaced_only_when_told_to(bundle: Path) -> None:
    out = bundle.parent / "out"
    export_bundle(bundle, out, to="triton")
    with pytest.raises(InputError, match=r"out exists; choose another path, or overwrite it"):
        export_bundle(bundle, out, to="kserve")
    export_bundle(bundle, out, to="openvino-model-server", overwrite=True)
    assert (out / "models").is_dir()
    assert not (out / "repository").exists()
    assert left(bundle) == {"out"}


def _add(out: Path) -> None:
    (out / "repository" / "tiny" / "2").mkdir()
    (out / "repository" / "tiny" / "2" / "model.onnx").write_bytes(b"mine")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_add, "holds 'repository/tiny/2/model.onnx', which no export has written"),
        (lambda out: (out / "link").symlink_to("README.txt"), "holds 'link', which no export has written"),
        (lambda out: (out / "flyweight_export.json").unlink(), "lacks flyweight_export.json"),
        (lambda out: (out / "flyweight_export.json").write_text("[]"), "holds a damaged flyweight_export.json"),
    ],
)
def test_a_folder_that_is_more_than_an_export_is_never_replaced(
    bundle: Path, spoil: Callable[[Path], None], words: str
) -> None:
    out = export_bundle(bundle, bundle.parent / "out", to="triton").path
    spoil(out)
    before = sorted(out.rglob("*"))
    with pytest.raises(InputError, match=f"{words}, so it is not overwritten"):
        export_bundle(bundle, out, to="triton", overwrite=True)
    assert sorted(out.rglob("*")) == before


def test_links_files_and_the_bundle_itself_are_no_place_to_write(bundle: Path) -> None:
    link, file = bundle.parent / "link", bundle.parent / "file"
    link.symlink_to(bundle.parent)
    file.write_text("mine")
    for place, words in (
        (link, "exists and is no folder"),
        (file, "exists and is no folder"),
        (file / "out", "is no folder"),
        (bundle / "out", "lies in the bundle"),
        (Path(".."), "is no name for a folder"),
    ):
        with pytest.raises(InputError, match=words):
            export_bundle(bundle, place, to="triton", overwrite=True)
    assert file.read_text() == "mine"


def test_a_full_disk_leaves_nothing(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*paths: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(InputError, match=r"The disk is full: the export .* needs [\d,]+ bytes; nothing was left"):
        export_bundle(bundle, bundle.parent / "out", to="triton")
    assert left(bundle) == set()


@pytest.mark.parametrize("to", ["triton", "openvino-model-server", "kserve"])
def test_scores_that_are_not_the_models_are_refused(tmp_path: Path, to: str) -> None:
    wrong = tiny_models.sample()
    bundle = write(tmp_path, tiny_models.ranker(), [Sample(wrong.inputs, wrong.scores + 0.5)])
    with pytest.raises(EngineError, match=r"does not give the scores of .*largest difference 0.5"):
        export_bundle(bundle, tmp_path / "out", to=to)
    assert left(bundle) == set()


def test_an_engine_that_cannot_run_the_model_is_named_with_its_reason(tmp_path: Path) -> None:
    weights = np.ones((4, 3), ml_dtypes.int4)
    nodes = [
        node("Flatten", ["image"], ["f"]),
        node("DequantizeLinear", ["w", "s"], ["wf"], axis=0),
        node("MatMul", ["f", "wf"], ["score"]),
    ]
    constants = [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(np.ones(4, np.float32), "s")]
    proto = model(nodes, constants, {"image": (TensorProto.FLOAT, [1, 4])}, [3])
    proto.opset_import[0].version = 21
    sample = Sample({"image": np.ones((2, 1, 4), np.float32)}, np.full((2, 3), 4, np.float32))
    entry = InputEntry(role="sample", dtype="float32", shape=[1, 4])
    bundle = write(tmp_path, proto, [sample], inputs={"image": entry}, output="columns")
    with pytest.raises(EngineError, match="cannot be written for OpenVINO Model Server: openvino divides by zero"):
        export_bundle(bundle, tmp_path / "out", to="openvino-model-server")
    assert export_bundle(bundle, tmp_path / "out", to="triton").path.is_dir()


def test_openvinos_export_is_checked_in_openvino_or_not_written(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino, "find_spec", lambda name: None)
    with pytest.raises(EngineError, match=r"openvino is not installed: pip install 'flyweight\[openvino\]'"):
        export_bundle(bundle, bundle.parent / "out", to="openvino-model-server")
    assert left(bundle) == set()


def test_flat_ids_of_bags_beside_a_request_are_refused(tmp_path: Path) -> None:
    nodes = [node("Gather", ["t", "user"], ["u"]), node("ReduceSum", ["bag"], ["b"], keepdims=0),
             node("Add", ["u", "b"], ["s"]), node("Add", ["s", "price"], ["score"])]  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "bags",
        [
            helper.make_tensor_value_info("user", TensorProto.INT64, ["rows"]),
            helper.make_tensor_value_info("bag", TensorProto.FLOAT, ["bag_length"]),
            helper.make_tensor_value_info("price", TensorProto.FLOAT, ["rows"]),
        ],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["rows"])],
        [numpy_helper.from_array(np.arange(3, dtype=np.float32), "t")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    inputs = {
        "user": InputEntry(role="request", rows=3, dtype="int64"),
        "bag": InputEntry(role="candidate", dtype="float32"),
        "price": InputEntry(role="candidate", dtype="float32"),
    }
    sample = Sample({"user": np.array([1, 1]), "bag": np.ones(3, np.float32), "price": np.zeros(2, np.float32)},
                    np.full(2, 4, np.float32))  # fmt: skip
    bundle = write(tmp_path, proto, [sample], inputs=inputs)
    with pytest.raises(InputError, match="input 'bag' has a length of its own"):
        export_bundle(bundle, tmp_path / "out", to="triton")


def test_a_bundle_without_stored_requests_cannot_be_checked(tmp_path: Path) -> None:
    bundle = write(tmp_path, tiny_models.ranker(), [])
    with pytest.raises(InputError, match="holds no stored requests to check the export with"):
        export_bundle(bundle, tmp_path / "out", to="triton")


def test_a_damaged_bundle_is_not_exported(bundle: Path) -> None:
    data = bytearray((bundle / "model.onnx").read_bytes())
    data[-5] ^= 1
    (bundle / "model.onnx").write_bytes(data)
    with pytest.raises(BundleError, match="altered or damaged"):
        export_bundle(bundle, bundle.parent / "out", to="triton")


def test_the_verb_writes_and_says_how_to_start(bundle: Path) -> None:
    out = bundle.parent / "out"
    done = CliRunner().invoke(app, ["export", str(bundle), "--to", "triton", "--out", str(out), "--name", "mine"])
    assert done.exit_code == 0, done.output
    assert "mine, version 1" in done.output
    assert "tritonserver --model-repository=/models" in done.output
    assert (out / "repository" / "mine" / "1" / "model.onnx").is_file()
    again = CliRunner().invoke(app, ["export", str(bundle), "--to", "triton", "--out", str(out)])
    assert isinstance(again.exception, InputError)
    over = CliRunner().invoke(
        app,
        ["export", str(bundle), "--to", "kserve", "--out", str(out), "--storage-uri", "s3://b/r", "--overwrite"],
    )
    assert over.exit_code == 0, over.output
    assert "kubectl apply" in over.output
    assert json.loads((out / "flyweight_export.json").read_text())["to"] == "kserve"


def test_exporting_needs_no_torch(tmp_path: Path) -> None:
    bundle = images(tmp_path)
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from flyweight.serving.repositories.export_bundle import export_bundle\n"
        f"print(export_bundle({str(bundle)!r}, {str(tmp_path / 'out')!r}, to='triton').agreement)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": str(SOURCE)})
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("largest difference")

"""What is written for each server: read back with the schemas and clients that those servers publish."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import yaml
from google.protobuf import text_format
from served_bundles import FORMS, hoisted, mixed, sample_request, start
from tritonclient.grpc import model_config_pb2
from tritonclient.utils import np_to_triton_dtype

from flyweight.bundle.read import read_bundle
from flyweight.engines.agreement import agreement
from flyweight.serving.repositories.export_bundle import export_bundle

#: Keys of one model in `config.json`, from OpenVINO Model Server's documentation of its parameters.
OVMS_KEYS = {
    "name", "base_path", "batch_size", "shape", "layout", "model_version_policy", "nireq", "target_device",
    "plugin_config", "stateful", "idle_sequence_cleanup", "max_sequence_number", "low_latency_transformation",
}  # fmt: skip


def parsed(out: Path, name: str = "tiny") -> Any:
    """Triton's configuration, read as Triton reads it: an unknown field or word is an error."""
    text = (out / "repository" / name / "config.pbtxt").read_text()
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def session_of(out: Path) -> onnxruntime.InferenceSession:
    (file,) = out.rglob("model.onnx")
    return onnxruntime.InferenceSession(str(file))


@pytest.mark.parametrize("form", FORMS)
def test_tritons_configuration_fits_the_model_that_lies_beside_it(form: str, tmp_path: Path) -> None:
    out = export_bundle(FORMS[form](tmp_path), tmp_path / "out", to="triton").path
    config, session = parsed(out), session_of(out)
    types = {"tensor(int64)": "TYPE_INT64", "tensor(float)": "TYPE_FP32"}
    for given, seen in ((config.input, session.get_inputs()), (config.output, session.get_outputs())):
        assert [one.name for one in given] == [one.name for one in seen]
        for one, due in zip(given, seen, strict=True):
            assert model_config_pb2.DataType.Name(one.data_type) == types[due.type]
            assert len(one.dims) == len(due.shape)
            assert all(dim == size for dim, size in zip(one.dims, due.shape, strict=True) if isinstance(size, int))


def test_tritons_configuration_says_how_it_is_run(tmp_path: Path) -> None:
    bundle = hoisted(tmp_path)
    config = parsed(export_bundle(bundle, tmp_path / "out", to="triton", name="r", version=7).path, "r")
    assert (config.name, config.platform, config.max_batch_size) == ("r", "onnxruntime_onnx", 0)
    assert [list(one.dims) for one in config.input] == [[1], [-1], [-1]], "one user, as many items as come"
    assert config.version_policy.latest.num_versions == 1
    assert config.instance_group[0].kind == model_config_pb2.ModelInstanceGroup.KIND_CPU
    manifest = hashlib.sha256((bundle / "manifest.json").read_bytes()).hexdigest()
    assert config.parameters["flyweight_manifest_sha256"].string_value == manifest
    assert (tmp_path / "out" / "repository" / "r" / "7" / config.default_model_filename).is_file()


def test_triton_is_warmed_up_with_a_stored_request(tmp_path: Path) -> None:
    bundle = mixed(tmp_path)
    out = export_bundle(bundle, tmp_path / "out", to="triton").path
    (warmup,) = parsed(out).model_warmup
    assert warmup.batch_size == 1, "all that a model without batching takes"
    dtypes = {"TYPE_INT64": "<i8", "TYPE_FP32": "<f4"}
    request = {}
    for name, one in warmup.inputs.items():
        raw = (out / "repository" / "tiny" / "warmup" / one.input_data_file).read_bytes()
        request[name] = np.frombuffer(raw, dtypes[model_config_pb2.DataType.Name(one.data_type)]).reshape(one.dims)
    assert agreement(read_bundle(bundle).samples[0].scores, start(out, "triton")(request)).ok


def test_triton_finds_nothing_but_models_in_the_repository(tmp_path: Path) -> None:
    out = export_bundle(hoisted(tmp_path), tmp_path / "out", to="triton").path
    assert [path.name for path in (out / "repository").iterdir()] == ["tiny"]
    assert {path.name for path in (out / "repository" / "tiny").iterdir()} == {"1", "config.pbtxt", "warmup"}


def test_openvino_model_servers_configuration_names_the_model_and_its_folder(tmp_path: Path) -> None:
    out = export_bundle(hoisted(tmp_path), tmp_path / "out", to="openvino-model-server", version=3).path
    config = json.loads((out / "models" / "config.json").read_text())
    assert config.keys() == {"model_config_list"}
    (entry,) = config["model_config_list"]
    assert entry.keys() == {"config"}
    model = entry["config"]
    assert {"name", "base_path"} <= model.keys() <= OVMS_KEYS
    assert (out / model["base_path"].removeprefix("/") / "3" / "model.onnx").is_file()
    assert model["plugin_config"]["INFERENCE_PRECISION_HINT"] == "f32", "it takes bfloat16 where nothing is said"
    assert all(isinstance(value, str) for value in model["plugin_config"].values())


def test_kserves_manifest_is_an_inference_service_for_its_triton_runtime(tmp_path: Path) -> None:
    out = export_bundle(hoisted(tmp_path), tmp_path / "out", to="kserve").path
    service = yaml.safe_load((out / "inference_service.yaml").read_text())
    assert (service["apiVersion"], service["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
    assert service["metadata"]["name"] == parsed(out).name == "tiny"
    predictor = service["spec"]["predictor"]["model"]
    assert predictor["modelFormat"] == {"name": "onnx"}
    assert (predictor["protocolVersion"], predictor["runtime"]) == ("v2", "kserve-tritonserver")
    assert "YOUR-BUCKET" in predictor["storageUri"]
    assert "write that address into inference_service.yaml" in (out / "README.txt").read_text()


def test_kserves_address_is_written_as_given(tmp_path: Path) -> None:
    address = 'pvc://models/"a"#b: c\x7f\x85d'
    out = export_bundle(hoisted(tmp_path), tmp_path / "out", to="kserve", storage_uri=address).path
    service = yaml.safe_load((out / "inference_service.yaml").read_text())
    assert service["spec"]["predictor"]["model"]["storageUri"] == address


@pytest.mark.parametrize("to", ["triton", "openvino-model-server", "kserve"])
def test_the_sample_request_gets_the_expected_response(to: str, tmp_path: Path) -> None:
    out = export_bundle(hoisted(tmp_path), tmp_path / "out", to=to).path
    asked = json.loads((out / "sample_request.json").read_text())
    request = sample_request(out)
    assert [one["datatype"] for one in asked["inputs"]] == [np_to_triton_dtype(one.dtype) for one in request.values()]
    response = json.loads((out / "expected_response.json").read_text())
    (answer,) = response["outputs"]
    scores = start(out, to)(request)
    assert (answer["name"], answer["shape"]) == (asked["outputs"][0]["name"], list(scores.shape))
    assert agreement(np.array(answer["data"]), scores).ok
    words = (out / "README.txt").read_text()
    command = "kubectl apply -f inference_service.yaml" if to == "kserve" else "docker run --rm -p "
    assert command in words
    assert f"/v2/models/{response['model_name']}/infer" in words
    assert "-d @sample_request.json" in words


def test_the_same_bundle_gives_the_same_bytes_all_listed_with_their_hashes(tmp_path: Path) -> None:
    bundle = hoisted(tmp_path)
    first, second = (export_bundle(bundle, tmp_path / name, to="triton").path for name in ("a", "b"))
    bytes_of = [
        {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}
        for out in (first, second)
    ]
    assert bytes_of[0] == bytes_of[1]
    record = json.loads(bytes_of[0].pop("flyweight_export.json"))
    due = {name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in bytes_of[0].items()}
    assert record["files"] == due

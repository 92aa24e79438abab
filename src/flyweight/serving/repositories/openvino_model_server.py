"""OpenVINO Model Server: `models/config.json` and `models/NAME/VERSION/model.onnx`.

Layout: https://github.com/openvinotoolkit/model_server, docs/models_repository_classic.md and docs/starting_server.md.
The model stays ONNX, which the server reads as it is. Intermediate representation would tie what is written to the
OpenVINO release that wrote it, and is no faster once it is loaded: both are compiled for the processor.
"""

import json
from pathlib import Path
from typing import Any, Literal

from flyweight.engines.openvino import NAME, plugin_settings
from flyweight.serving.repositories.served_model import ServedModel

MODELS = "models"
IMAGE = "openvino/model_server:latest"


def write_configuration(folder: Path, model: ServedModel) -> None:
    """Write the server's `config.json`."""
    text = json.dumps(server_config(model), indent=2, ensure_ascii=False)
    (folder / MODELS / "config.json").write_text(text + "\n", encoding="utf-8")


def precision(model: ServedModel) -> Literal["f32", "bf16"]:
    """Return the precision that the bundle was certified in; left to itself, OpenVINO takes bfloat16 where it can."""
    return "bf16" if model.bundle.timing.engine == f"{NAME}-bf16" else "f32"


def server_config(model: ServedModel) -> dict[str, Any]:
    """Return the server's configuration; the plug-in's settings are those that Flyweight itself gives OpenVINO."""
    return {
        "model_config_list": [
            {
                "config": {
                    "name": model.name,
                    "base_path": f"/models/{model.name}",
                    "target_device": "CPU",
                    "model_version_policy": {"latest": {"num_versions": 1}},
                    "plugin_config": {key: str(value) for key, value in plugin_settings(precision(model)).items()},
                }
            }
        ]
    }


def starting(model: ServedModel) -> str:
    """Return the command that starts the server, in the folder that was written."""
    return (
        f'docker run --rm -p 9000:9000 -p 8000:8000 -v "$PWD/{MODELS}:/models:ro" \\\n'
        f"  {IMAGE} --config_path /models/config.json --port 9000 --rest_port 8000"
    )


def address(model: ServedModel) -> str:
    """Return where a request goes once it has started."""
    return f"http://localhost:8000{model.infer_path}"

"""KServe: an `InferenceService` for its Triton runtime, and the model repository to upload for it.

https://kserve.github.io/website, "Deploying ONNX Models with KServe"; the runtime is `kserve-tritonserver` of
kserve/kserve, config/runtimes. JSON texts are YAML texts too, so quoting needs no library.
"""

import json
from pathlib import Path

from flyweight.serving.repositories import triton
from flyweight.serving.repositories.served_model import STORAGE_URI, ServedModel

MANIFEST = "inference_service.yaml"


def write_configuration(folder: Path, model: ServedModel) -> None:
    """Write Triton's configuration into the repository, and the manifest beside it."""
    triton.write_configuration(folder, model)
    (folder / MANIFEST).write_text(inference_service(model), encoding="utf-8")


def inference_service(model: ServedModel) -> str:
    """Return the manifest of the service, `serving.kserve.io/v1beta1`."""
    memory = _memory(model)
    return f"""apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: {_quoted(model.name)}
  annotations:
    flyweight/bundle: {_quoted(model.bundle.manifest.name)}
    flyweight/manifest-sha256: {_quoted(model.manifest_sha256)}
spec:
  predictor:
    model:
      modelFormat:
        name: onnx
      protocolVersion: v2
      runtime: kserve-tritonserver
      # Where the folder {triton.MODELS}/ was uploaded to: the address of the folder that holds {model.name}/.
      storageUri: {_quoted(model.storage_uri)}
      resources:
        requests:
          cpu: "1"
          memory: {memory}
        limits:
          memory: {memory}
"""


def starting(model: ServedModel) -> str:
    """Return the command that starts the service, in the folder that was written."""
    return f"kubectl apply -f {MANIFEST}"


def before_starting(model: ServedModel) -> str:
    """Return what is to be done first."""
    words = f"Upload the folder {triton.MODELS}/ to where the cluster can read it"
    if model.storage_uri == STORAGE_URI:
        return f"{words}, and write that address into {MANIFEST} as storageUri (or export with --storage-uri)."
    return f"{words}: {model.storage_uri}"


def address(model: ServedModel) -> str:
    """Return where a request goes once it has started."""
    return f"$(kubectl get inferenceservice {model.name} -o jsonpath='{{.status.url}}'){model.infer_path}"


def _memory(model: ServedModel) -> str:
    """Return a bound of the memory: Triton itself, and the model's constants twice while it is loaded."""
    constants = sum(model.bundle.sizes.values())
    return f"{1024 + 2 * constants // 2**20}Mi"


def _quoted(text: str) -> str:
    """Return a JSON text with what YAML takes in no text (the end of a line that only some know, among others) by its
    number.
    """
    spelled = json.dumps(text, ensure_ascii=False)
    return "".join(letter if letter.isprintable() else f"\\U{ord(letter):08x}" for letter in spelled)

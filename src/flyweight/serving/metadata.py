"""What the protocol v2 tells of a server and of a model: names, datatypes and shapes."""

from collections.abc import Mapping
from typing import Any

import numpy as np

import flyweight
from flyweight.bundle.ranker import Ranker
from flyweight.serving.datatypes import datatype_of
from flyweight.serving.layout import SCORES

#: What is served beside the protocol itself.
EXTENSIONS = ["binary_tensor_data", "model_repository", "model_repository(unload_dependents)"]


def describe_server() -> dict[str, Any]:
    """Return the server's metadata."""
    return {"name": "flyweight", "version": flyweight.__version__, "extensions": EXTENSIONS}


def describe_model(
    model: str, versions: list[str], ranker: Ranker, raw_values: Mapping[str, int] | None = None
) -> dict[str, Any]:
    """Return a model's metadata; a leading 1 is the request's one row, -1 counts candidates.

    Args:
        raw_values: how many raw values are known of each input that takes them, as BYTES, beside its ids; told as the
            parameter `raw_values` of that input.
    """
    inputs = ranker.manifest.inputs
    rows = -1 if all(entry.role == "request" for entry in inputs.values()) else 1
    listed = [
        {
            "name": name,
            "datatype": datatype_of(np.dtype(entry.dtype)),
            "shape": [rows if entry.role == "request" else -1, *(-1 if size is None else size for size in entry.shape)],
            **({"parameters": {"raw_values": raw_values[name]}} if raw_values and name in raw_values else {}),
        }
        for name, entry in inputs.items()
    ]
    width = [-1 if size is None else size for size in ranker.bundle.graph.output]
    output = {"name": SCORES, "datatype": "FP32", "shape": [-1, *([] if width in ([1], []) else width)]}
    return {
        "name": model,
        "versions": versions,
        "platform": f"flyweight_{ranker.engine}",
        "inputs": listed,
        "outputs": [output],
    }

"""Versions of the tiny ranker whose scores are known: a factor times those of the first."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tiny_models
from onnx import numpy_helper

from flyweight.bundle.samples import Sample
from flyweight.bundle.write import write_bundle


def version_bundle(path: Path, factor: float, *, hoisted: bool = True, **evidence: Any) -> Path:
    """Write a bundle whose scores are `factor` times those of `tiny_models.expected`."""
    proto = tiny_models.hoisted_ranker() if hoisted else tiny_models.ranker()
    for constant in proto.graph.initializer:
        if constant.name == "w2":
            constant.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(constant) * np.float32(factor), "w2"))
    made = tiny_models.contents(path.parent / f"export-{path.name}", proto=proto, **evidence)
    samples = [Sample(one.inputs, one.scores * np.float32(factor)) for one in made.samples]
    return write_bundle(path, replace(made, samples=samples))

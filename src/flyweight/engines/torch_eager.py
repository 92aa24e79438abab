"""PyTorch on the processor, operator by operator: slower than the others and runs what none of them does."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyweight.engines.forms import PreparedForms, Run
from flyweight.engines.torch_module import (
    Loaded,
    Precision,
    load_module,
    refusal,
    rounded,
    running,
    signature_of,
    torch_missing,
)


class TorchEager:
    """Runs ONNX files with `torch`.

    Args:
        precision: "bf16" multiplies matrices in bfloat16 (see `bfloat16`).
    """

    def __init__(self, precision: Precision = "f32") -> None:
        self.name = "torch" if precision == "f32" else f"torch-{precision}"
        self._precision = precision

    def available(self) -> str | None:
        """Return None if `torch` is installed, else what to install."""
        return torch_missing(self.name)

    def cannot_run(self, path: Path) -> str | None:
        """Return None if every operator of the model is known, else which is not."""
        return refusal(path, self.name)

    def prepare(self, path: Path, threads: int = 0) -> PreparedForms:
        """Read a model's graph and weights."""

        signature = signature_of(path, self.name)

        def form(given: tuple[str, ...]) -> Run:
            loaded = load_module(path, signature, given, self.name)
            return partial(_run, rounded(loaded, self._precision), threads)

        return PreparedForms(form, signature, self.name)


def _run(loaded: Loaded, threads: int, arrays: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    with running(threads):
        return np.array(loaded.module(*loaded.tensors(arrays)).numpy())

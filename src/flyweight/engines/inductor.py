"""PyTorch's compiler on the processor: C++ of a model's own, compiled once and kept, loaded in milliseconds after."""

import os
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyweight.engines.complaint import complaint
from flyweight.engines.forms import PreparedForms, Run
from flyweight.engines.inputs import Signature
from flyweight.engines.packages import kept_package
from flyweight.engines.padding import at_least_two, can_pad, pad
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
from flyweight.engines.torch_program import trace_program


class Inductor:
    """Compiles ONNX files with AOTInductor (`torch._inductor.aoti_compile_and_package`).

    Args:
        precision: "bf16" multiplies matrices in bfloat16 (see `bfloat16`).
    """

    def __init__(self, precision: Precision = "f32") -> None:
        self.name = "inductor" if precision == "f32" else f"inductor-{precision}"
        self._precision: Precision = precision

    def available(self) -> str | None:
        """Return None if `torch` and a C++ compiler are here, else what to install."""
        missing = torch_missing(self.name)
        return missing or (None if _compiler() else f"{self.name}: {_wanted()} is not installed, {_ADVICE}")

    def cannot_run(self, path: Path) -> str | None:
        """Return None if every operator of the model is known, else which is not; compiling may still refuse it."""
        return refusal(path, self.name)

    def prepare(self, path: Path, threads: int = 0) -> PreparedForms:
        """Compile a model, some 10 to 60 seconds, or load what was compiled of it before for as many threads.

        Raises:
            EngineError: it does not compile.
        """
        signature = signature_of(path, self.name)
        return PreparedForms(lambda given: self._form(path, signature, given, threads), signature, self.name)

    def _form(self, path: Path, signature: Signature, given: tuple[str, ...], threads: int) -> Run:
        loaded = load_module(path, signature, given, self.name)
        key = (self._precision, *given)
        build = partial(self._build, loaded, signature, given)
        try:
            with running(threads):
                call = _load(kept_package(path, key, build))
        except Exception as error:  # the compiler's errors have no parent of their own
            raise complaint(self.name, f"refused {path.name}", error) from error
        return partial(_run, call, loaded, signature, threads)

    def _build(self, loaded: Loaded, signature: Signature, given: tuple[str, ...], target: Path) -> None:
        import torch

        program = trace_program(rounded(loaded, self._precision), signature, given)
        # Weights are packed, and rounded where they are, while compiling; the number of threads is compiled in.
        settings = {"freezing": True, "cpp.threads": torch.get_num_threads()}
        with torch.no_grad():
            torch._inductor.aoti_compile_and_package(program, package_path=str(target), inductor_configs=settings)


_ADVICE = "with which it compiles: apt install g++, or set CXX to a compiler"


def _wanted() -> str:
    return os.environ.get("CXX") or "g++"


def _compiler() -> str | None:
    return shutil.which(_wanted())


def _load(package: Path) -> Callable[..., Any]:
    import torch

    loaded: Callable[..., Any] = torch._inductor.aoti_load_package(str(package))
    return loaded


def _run(
    call: Callable[..., Any], loaded: Loaded, signature: Signature, threads: int, arrays: Mapping[str, NDArray[Any]]
) -> NDArray[Any]:
    rows = None
    if can_pad(signature):
        arrays, rows = pad(signature, arrays, at_least_two)
    with running(threads):
        return np.array(call(*loaded.tensors(arrays)).numpy()[:rows])

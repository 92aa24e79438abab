"""A bundle's ONNX file as a PyTorch module that takes its inputs by place, for the engines that run in PyTorch."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from flyweight.engines.bfloat16 import in_bfloat16, round_layers
from flyweight.engines.complaint import complaint
from flyweight.engines.inputs import Signature, read_signature
from flyweight.errors import EngineError, FlyweightError

if TYPE_CHECKING:
    from torch import Tensor, nn

Precision = Literal["f32", "bf16"]
MISSING = "torch is not installed: pip install 'flyweight[compress]'"


@dataclass(frozen=True, eq=False)
class Loaded:
    """A module and the names of what it takes, by place; inputs that the graph does not read are not among them."""

    module: "nn.Module"
    names: tuple[str, ...]

    def tensors(self, arrays: Mapping[str, NDArray[Any]]) -> "tuple[Tensor, ...]":
        """Return what the module takes, sharing memory with the arrays."""
        return tuple(as_tensor(arrays[name]) for name in self.names)


def torch_missing(name: str) -> str | None:
    """Return None if PyTorch is installed, else what to install."""
    return None if find_spec("torch") else f"{name}: {MISSING}"


def load_module(path: Path, signature: Signature, given: tuple[str, ...], name: str) -> Loaded:
    """Return the module of an ONNX file.

    Args:
        given: optional inputs that it takes; the others are constants.
        name: the engine's, for errors.

    Raises:
        EngineError: PyTorch is missing, or the file holds what it does not run; the operator.
    """
    try:
        import torch  # noqa: F401

        from flyweight.graph.from_onnx import OnnxModel
        from flyweight.graph.onnx_import.assembly import assemble
        from flyweight.graph.onnx_import.file import read_graph
    except ImportError as error:
        raise EngineError(f"{name}: {MISSING}") from error
    try:
        graph = read_graph(path)
        kinds = {one.name: as_tensor(np.empty(0, one.dtype)).dtype for one in signature.optional if one.name in given}
        constants = {key: value for key, value in graph.constants.items() if key not in kinds}
        assembled = assemble(replace(graph, constants=constants, inputs=graph.inputs | kinds), graph.outputs[0])
    except FlyweightError as error:
        raise EngineError(f"{name} refused {path.name}: {error}") from error
    except Exception as error:  # a damaged file breaks its reader anywhere
        raise complaint(name, f"refused {path.name}", error) from error
    module = OnnxModel(assembled).eval().requires_grad_(False)
    return Loaded(module, tuple(there for there, _ in assembled.inputs.values()))


def signature_of(path: Path, name: str) -> Signature:
    """Return what a file takes.

    Raises:
        EngineError: it cannot be read.
    """
    try:
        return read_signature(path)
    except Exception as error:  # as above
        raise complaint(name, f"refused {path.name}", error) from error


def refusal(path: Path, name: str) -> str | None:
    """Return None if PyTorch runs every operator of the file, else what it said."""
    try:
        load_module(path, signature_of(path, name), (), name)
    except EngineError as error:
        return str(error)
    return None


def rounded(loaded: Loaded, precision: Precision) -> Loaded:
    """Return a module that multiplies in the precision on the processor; what was given is used up."""
    if precision == "f32":
        return loaded
    round_layers(loaded.module)
    return replace(loaded, module=in_bfloat16(loaded.module, "cpu"))


def as_tensor(array: NDArray[Any]) -> "Tensor":
    """Return a tensor on the array's memory; PyTorch warns of arrays that it must not write to, so those are copied."""
    import torch

    return torch.from_numpy(array if array.flags.writeable else array.copy())


@contextmanager
def running(threads: int) -> Iterator[None]:
    """Run without gradients, in so many threads (0: as PyTorch is set); its number of threads is the process's."""
    import torch

    before = torch.get_num_threads()
    changed = threads not in (0, before)
    if changed:
        torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            yield
    finally:
        if changed:
            torch.set_num_threads(before)

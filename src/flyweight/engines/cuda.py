"""PyTorch on a CUDA device: its own kernels or compiled ones, all of a call launched as one CUDA graph."""

import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from flyweight.engines.bfloat16 import in_bfloat16, round_graph
from flyweight.engines.complaint import complaint
from flyweight.engines.cuda_device import NO_DEVICE, no_cuda_device
from flyweight.engines.cuda_graph import Graphed
from flyweight.engines.inputs import Signature
from flyweight.engines.padding import at_least_two, can_pad, pad, power_of_two
from flyweight.engines.torch_module import Precision, as_tensor, load_module, refusal, signature_of, torch_missing
from flyweight.engines.torch_program import trace_program
from flyweight.errors import EngineError

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.export import ExportedProgram

DEVICE = "cuda"


class TorchCuda:
    """Runs ONNX files with `torch` on the current CUDA device.

    Each size of batch is captured as one CUDA graph, so that a call costs one launch: a ranker's fifty kernels on 500
    rows are done sooner than they are launched. Rows are padded to powers of two, so that few graphs are captured.

    Args:
        compiled: fuse operators into kernels of the model's own (`torch.compile`).
        precision: "bf16" multiplies matrices in bfloat16 (see `bfloat16`); "f32" never in TF32.
    """

    def __init__(self, *, compiled: bool = False, precision: Precision = "f32") -> None:
        rounds = "" if precision == "f32" else f"-{precision}"
        self.name = f"{'inductor' if compiled else 'torch'}-{DEVICE}{rounds}"
        self._compiled = compiled
        self._precision: Precision = precision

    def available(self) -> str | None:
        """Return None if `torch`, built for CUDA, and a CUDA device are here, else what is missing."""
        missing = torch_missing(self.name)
        if missing is not None:
            return missing
        why = no_cuda_device()
        if why is not None:
            return f"{self.name}: {why}"
        import torch

        if torch.version.cuda is None:
            return f"{self.name}: this torch is built without CUDA: install one from pytorch.org/get-started"
        return None if torch.cuda.is_available() else f"{self.name}: {NO_DEVICE} that this torch can use"

    def cannot_run(self, path: Path) -> str | None:
        """Return None if every operator of the model is known, else which is not; compiling may still refuse it."""
        return refusal(path, self.name)

    def prepare(self, path: Path, threads: int = 0) -> "PreparedOnCuda":
        """Bring a model to the device; `threads` are the processor's, and none of them computes.

        Raises:
            EngineError: there is no device, or the model cannot be brought there.
        """
        why = self.available()
        if why is not None:
            raise EngineError(why)
        signature = signature_of(path, self.name)

        def form(given: tuple[str, ...]) -> Form:
            loaded = load_module(path, signature, given, self.name)
            try:
                module = module_on(DEVICE, trace_program(loaded, signature, given), self._precision)
                return Form(module, loaded.names, graphs=can_pad(signature), fuse=self._compiled)
            except Exception as error:  # PyTorch's and the driver's errors have no parent of their own
                raise complaint(self.name, f"refused {path.name}", error) from error

        return PreparedOnCuda(form, signature, self.name)


def module_on(device: str, program: "ExportedProgram", precision: Precision) -> "nn.Module":
    """Return traced operators as a module whose weights and constants all lie on a device."""
    from torch.export.passes import move_to_device_pass

    module = move_to_device_pass(program, device).module(check_guards=False)
    _drop_device_checks(module)
    if precision == "f32":
        return module
    round_graph(module)
    return in_bfloat16(module, device)


def _drop_device_checks(module: "nn.Module") -> None:
    """Take out checks that a value lies on the device it was traced on: "cuda" is not "cuda:0" to them."""
    import torch
    from torch import fx

    check = torch.ops.aten._assert_tensor_metadata.default
    for part in module.modules():
        if isinstance(part, fx.GraphModule):
            for node in part.graph.find_nodes(op="call_function", target=check):
                part.graph.erase_node(node)
            part.recompile()


class Form:
    """A module on the device for calls with some optional inputs.

    Args:
        module: takes tensors on the device, by place.
        names: of its inputs, by place.
        graphs: capture a CUDA graph for each shape.
        fuse: compile it.
    """

    def __init__(self, module: "nn.Module", names: tuple[str, ...], *, graphs: bool, fuse: bool) -> None:
        import torch

        self.names = names
        # Shapes stay open in the kernels; the graphs, captured by ourselves, are per shape.
        self._call: Callable[..., Tensor] = torch.compile(module, dynamic=True) if fuse else module
        self._graphs: dict[tuple[tuple[int, ...], ...], Graphed] | None = {} if graphs else None

    def size(self, count: int) -> int:
        """Return to how many rows so many are padded."""
        return at_least_two(count) if self._graphs is None else power_of_two(count)

    def __call__(self, tensors: "tuple[Tensor, ...]") -> "Tensor":
        """Return scores on the device; the next call may write over them."""
        with _plain_float32():
            if self._graphs is None:
                return self._call(*tensors)
            shapes = tuple(tuple(tensor.shape) for tensor in tensors)
            if shapes not in self._graphs:
                self._graphs[shapes] = Graphed(self._call, tensors)
            return self._graphs[shapes](tensors)


class PreparedOnCuda:
    """A model on a CUDA device.

    Args:
        compile_form: brings it there for calls with some optional inputs.
        signature: what it takes.
        name: the engine's, for errors.
    """

    def __init__(self, compile_form: Callable[[tuple[str, ...]], Form], signature: Signature, name: str) -> None:
        self._compile = compile_form
        self._signature = signature
        self._name = name
        self._turn = threading.Lock()
        self._forms: dict[tuple[str, ...], Form] | None = {(): compile_form(())}

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the inputs, in the model's order."""
        return self._signature.names

    def run(self, inputs: dict[str, NDArray[Any]]) -> NDArray[Any]:
        """Return the scores of a batch: copied to the device, scored, copied back; threads take turns."""
        with self._turn:  # a graph reads its inputs where it was captured with them: one call at a time
            form, arrays, rows = self._placed(inputs)
            return self._scored(form, arrays)[:rows].copy()

    def _scored(self, form: Form, arrays: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        try:
            import torch

            with torch.inference_mode():
                scores: NDArray[Any] = form(_to_device(form.names, arrays)).float().cpu().numpy()
        except Exception as error:  # as above
            raise complaint(self._name, "failed", error) from error
        return scores

    def on_device(self, inputs: dict[str, NDArray[Any]]) -> "Callable[[], Tensor]":
        """Return a call that scores a batch lying on the device already, for measuring the device alone.

        Its scores lie on the device, with those of padded rows at the end; `torch.cuda.synchronize()` waits for them.
        """
        import torch

        form, arrays, _ = self._placed(inputs)
        tensors = _to_device(form.names, arrays)

        def call() -> "Tensor":
            with torch.inference_mode():
                return form(tensors)

        return call

    def close(self) -> None:
        """Free the device's memory, but for what PyTorch keeps to hand out again."""
        self._forms = None

    def _placed(self, inputs: dict[str, NDArray[Any]]) -> tuple[Form, Mapping[str, NDArray[Any]], int | None]:
        if self._forms is None:
            raise EngineError(f"{self._name}: the model is closed; prepare it again.")
        arrays: Mapping[str, NDArray[Any]] = self._signature.fit(inputs)
        given = self._signature.given(arrays)
        if given not in self._forms:
            self._forms[given] = self._compile(given)
        form = self._forms[given]
        if not can_pad(self._signature):
            return form, arrays, None
        padded, rows = pad(self._signature, arrays, form.size)
        return form, padded, rows


def _to_device(names: tuple[str, ...], arrays: Mapping[str, NDArray[Any]]) -> "tuple[Tensor, ...]":
    return tuple(as_tensor(arrays[name]).to(DEVICE) for name in names)


def _plain_float32() -> AbstractContextManager[Any]:
    """Keep convolutions from rounding to TF32, which they do unasked; matrices do not unless told to."""
    import torch

    context: AbstractContextManager[Any] = torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=False, allow_tf32=False
    )
    return context

"""Who takes part in the GPU benchmark: PyTorch's own ways to run a model, and files in our engines."""

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from flyweight.engines.inputs import read_signature
from flyweight.engines.registry import find_engine
from flyweight.errors import FlyweightError
from flyweight.task.field import REQUEST_INDEX
from gpu_cases import Arrays, Case, Request

ORIGINAL, REWRITTEN, BUNDLE = "original", "rewritten", "bundle"
EAGER = "eager float32"
FLOATS = ("float32", "bfloat16")
#: Device -> engines that run the original's file, and those that run ours.
PEERS = {"cuda": ("onnxruntime-cuda",), "cpu": ("onnxruntime",)}
OURS = {
    "cuda": ("onnxruntime-cuda", "torch-cuda", "torch-cuda-bf16", "inductor-cuda", "inductor-cuda-bf16"),
    "cpu": ("onnxruntime", "torch"),
}


@dataclass(frozen=True, eq=False)
class Contender:
    """One way to score a request.

    Args:
        file: whose work it does: the original's, or a file's of ours.
        floats: "float32" or "bfloat16".
        host: from arrays to arrays, copies to the device and back in it.
        resident: the same on inputs that lie on the device already, scores left there; None where there is no such way.
    """

    name: str
    file: str
    floats: str
    host: Callable[[], NDArray[Any]]
    resident: Callable[[], object] | None = None


def as_taken(path: Path, request: Request) -> Arrays:
    """Requests as a file takes them: flat, or with each request once."""
    signature = read_signature(path)
    given = request.hoisted if any(one.name == REQUEST_INDEX for one in signature.optional) else request.flat
    wanted = {*signature.names, *(one.name for one in signature.optional)}
    return {name: value for name, value in given.items() if name in wanted}


def contenders(
    case: Case, files: Mapping[str, Path], request: Request, device: str, *, compiled: bool = True
) -> tuple[list[Contender], list[str]]:
    """Return all that can be made ready on a device, the eager original first, and why the others cannot."""
    ready: list[Contender] = []
    left_out: list[str] = []
    for name, make in (*_of_torch(case, request, device, compiled), *_of_engines(files, request, device)):
        try:
            made = make()
            made.host()  # compiles, and fails where it fails
            ready.append(made)
        except (FlyweightError, RuntimeError, NotImplementedError, ImportError) as error:
            left_out.append(f"{name}: {(str(error).splitlines() or [type(error).__name__])[0][:200]}")
    return ready, left_out


def _of_torch(
    case: Case, request: Request, device: str, compiled: bool
) -> Iterator[tuple[str, Callable[[], Contender]]]:
    kinds: list[tuple[str, str | None, str]] = [(EAGER, None, "float32"), ("eager bfloat16", None, "bfloat16")]
    if compiled:
        torch.compiler.reset()  # past eight models of one class, what is compiled would run eagerly without a word
        modes = {"torch.compile": "default", "torch.compile and CUDA graphs": "reduce-overhead"}
        kinds += [(f"{how} {floats}", mode, floats) for how, mode in modes.items() for floats in FLOATS]
    for name, mode, floats in kinds:
        yield name, partial(_torch_contender, name, mode, floats, case, request, device)
    for floats in FLOATS:
        name = f"CUDA graph {floats}"
        yield name, partial(_graph_contender, name, floats, case, request, device)


def _placed(
    case: Case, request: Request, device: str, floats: str
) -> tuple[nn.Module, Callable[[], dict[str, Tensor]]]:
    """The model on the device, its weights rounded where wanted, and what brings the inputs there."""
    model = copy.deepcopy(case.model).to(device=device, dtype=getattr(torch, floats)).eval().requires_grad_(False)
    flat = request.flat
    return model, lambda: {name: torch.from_numpy(value).to(device) for name, value in flat.items()}


def _torch_contender(
    name: str, mode: str | None, floats: str, case: Case, request: Request, device: str
) -> Contender:
    model, bring = _placed(case, request, device, floats)
    call: Callable[..., Tensor] = model if mode is None else torch.compile(model, mode=mode)
    there = bring()

    def resident() -> Tensor:
        with torch.inference_mode():
            return call(**there)

    def host() -> NDArray[Any]:
        with torch.inference_mode():
            return np.asarray(call(**bring()).float().cpu().numpy())

    return Contender(name, ORIGINAL, floats, host, resident)


def _graph_contender(name: str, floats: str, case: Case, request: Request, device: str) -> Contender:
    """All kernels of the eager model in one launch."""
    if device != "cuda":
        raise NotImplementedError("CUDA graphs need a CUDA device")
    from flyweight.engines.cuda_graph import Graphed

    model, bring = _placed(case, request, device, floats)
    names = tuple(bring())
    there = tuple(bring().values())
    graph = Graphed(lambda *tensors: model(**dict(zip(names, tensors, strict=True))), there)
    return Contender(
        name, ORIGINAL, floats, lambda: graph(tuple(bring().values())).float().cpu().numpy(), lambda: graph(there)
    )


def _of_engines(
    files: Mapping[str, Path], request: Request, device: str
) -> Iterator[tuple[str, Callable[[], Contender]]]:
    for file, path in files.items():
        for engine in PEERS[device] if file == ORIGINAL else OURS[device]:
            name = f"{file} in {engine}"
            yield name, partial(_engine_contender, name, file, engine, path, request)


def _engine_contender(name: str, file: str, engine: str, path: Path, request: Request) -> Contender:
    why = find_engine(engine).available() or find_engine(engine).cannot_run(path)
    if why is not None:
        raise NotImplementedError(why)
    prepared = find_engine(engine).prepare(path, 0)
    given = as_taken(path, request)
    on_device = getattr(prepared, "on_device", None)  # engines with a device of their own have it
    return Contender(
        name,
        file,
        "bfloat16" if engine.endswith("bf16") else "float32",
        partial(prepared.run, given),
        on_device(given) if on_device is not None else None,
    )

"""The peers as lines of a case's table: made from the same original, trained on nothing, scored and timed with ours."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from torch import nn

import dense_peers
import flyweight as fw
from dense_harness import Contender, Json, export
from dense_running import Running
from flyweight.cost.sizes import bytes_on_disk
from flyweight.planning.recalibrate import recalibrate
from flyweight.planning.requests import as_arrays
from flyweight.task.step import Step


def quantizers(task: fw.Task) -> Iterator[Contender]:
    """Yield NNCF, ONNX Runtime's static quantiser, and torchao where there are linear layers for it to work on."""
    yield _of_file("NNCF", "openvino", _nncf)
    yield _of_file("ONNX Runtime's quantiser", "onnxruntime", _ort)
    yield _of_file("NNCF, ONNX backend", "onnxruntime", _nncf_onnx)
    yield torchao(task)


def torchao(task: fw.Task) -> Contender:
    """Return torchao's int8 linear layers with dynamic activations, as PyTorch runs them eagerly."""
    name = "torchao, dynamic int8 linear layers"

    def make(task: fw.Task, folder: Path) -> Json:
        return {"bytes": _torchao(task, name).bytes, "macs": None, "engine": "eager"}

    return Contender(name, "peer", make, lambda folder, threads: {"eager": _torchao(task, name)})


def torch_pruning(task: fw.Task, saliency: str, share: float, steps: tuple[Step, ...], seed: int) -> Contender:
    """Return a model pruned by Torch-Pruning to a share of the work, then given the same recovery as ours."""

    def make(task: fw.Task, folder: Path) -> Json:
        inputs, _, _ = next(task.batches("train"))
        last = [name for name, module in task.model.named_modules() if isinstance(module, nn.Linear)][-1:]
        if saliency == "L1":
            model = dense_peers.torch_pruning_l1(task.model, inputs, share, ignored=last)
        else:
            batches = ((rows, target) for _, (rows, target, _) in zip(range(8), task.batches("train"), strict=False))
            loss = _mean_loss(task)
            model = dense_peers.torch_pruning_taylor(task.model, batches, share, loss=loss, ignored=last)
        current, changes = task.with_model(model), []
        for step in steps:
            changes.append(step.apply(current))
            current = current.with_model(changes[-1].model)
        return export(task, recalibrate(task, current.model, tuple(changes))[0], folder)

    return Contender(f"Torch-Pruning, {saliency}; our Distill", "peer", make, key=f"{share} {steps!r} {seed}")


def _mean_loss(task: fw.Task) -> Callable[..., object]:
    return lambda outputs, target: task.row_loss(outputs, target).mean()


def _torchao(task: fw.Task, name: str) -> dense_peers.Contender:
    return dense_peers.contender_of_module(name, dense_peers.torchao_int8(task.model))


def _of_file(name: str, engine: str, quantise: Callable[..., Path]) -> Contender:
    def make(task: fw.Task, folder: Path) -> Json:
        rows = (as_arrays(inputs) for inputs, _, _ in task.batches("train"))
        original = folder.parent / "original" / "model.onnx"
        path = quantise(original, rows, folder)
        beside = path.with_suffix(".bin") if path.suffix == ".xml" else path.with_name(f"{path.name}.data")
        size = bytes_on_disk(*(one for one in (path, beside) if one.exists()))
        return {"bytes": size, "macs": None, "engine": engine, "file": path.name}

    def reopen(folder: Path, threads: int) -> Mapping[str, Running]:
        (path,) = [path for path in folder.iterdir() if path.suffix in (".xml", ".onnx")]
        return {engine: dense_peers.contender_of_file(name, path, engine, threads)}

    return Contender(name, "peer", make, reopen)


_nncf = dense_peers.nncf_int8
_nncf_onnx = partial(dense_peers.nncf_int8, backend="onnx")
_ort = dense_peers.ort_int8

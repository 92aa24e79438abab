"""Compiled models kept on disk, by what they were compiled from, for and with."""

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import onnx

from flyweight.cost.hardware import describe_hardware
from flyweight.graph.quiet import quietly
from flyweight.task.progress import stage
from flyweight.zoo.cache import cache_folder

_CHUNK = 2**20


def kept_package(path: Path, settings: tuple[str, ...], build: Callable[[Path], None]) -> Path:
    """Return the compiled package of a model, built if it is not there.

    It lies in the cache folder (`$FLYWEIGHT_CACHE`, or `~/.cache/flyweight`), never in the bundle: it holds machine
    code for this processor, which a bundle of others must not bring along.

    Args:
        settings: what else it depends on than the model, PyTorch, the processor and the number of threads.
        build: writes it to a path.
    """
    folder = cache_folder() / "inductor"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    target = folder / f"{_key(path, settings)}.pt2"
    if not target.is_file():
        compiling = stage("Compiling the model to C++", seconds=30.0)
        with tempfile.TemporaryDirectory(dir=folder) as part, compiling, quietly():
            made = Path(part, "model.pt2")
            build(made)
            os.replace(made, target)  # whole or absent, whoever else builds it
    return target


def _key(path: Path, settings: tuple[str, ...]) -> str:
    import torch

    facts = describe_hardware()
    machine = (facts["cpu"], *facts["instructions"], torch.__version__, str(torch.get_num_threads()))
    digest = hashlib.sha256(repr((settings, machine)).encode())
    for file in (path, *_outside(path)):
        with file.open("rb") as stream:
            while piece := stream.read(_CHUNK):
                digest.update(piece)
    return digest.hexdigest()


def _outside(path: Path) -> Iterator[Path]:
    """Files that hold the model's larger constants, each once."""
    tensors = onnx.load(path, load_external_data=False).graph.initializer
    places = {entry.value for tensor in tensors for entry in tensor.external_data if entry.key == "location"}
    return (path.parent / place for place in sorted(places))

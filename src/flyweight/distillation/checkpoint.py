"""Where a training stands, in a file: written whole or not at all, read without running anything of its author's."""

import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from flyweight.errors import InputError


class CheckpointError(InputError):
    """A checkpoint is damaged, or of another training."""


def write_checkpoint(path: Path, contents: dict[str, Any]) -> None:
    """Write tensors and plain values beside the target and rename."""
    _write(path, partial(torch.save, contents))


def write_checkpoint_bytes(path: Path, contents: bytes) -> None:
    """Write a checkpoint that another machine made, as its bytes."""
    _write(path, lambda file: file.write(contents))


def _write(path: Path, write: Callable[[Any], Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def read_checkpoint(path: Path, run: str) -> dict[str, Any] | None:
    """Return what was written, or None if there is no file.

    Args:
        path: the file.
        run: says which training it must be of: settings, student, teacher and data.

    Raises:
        CheckpointError: the file is damaged, or of another training.
    """
    if not path.exists():
        return None
    contents = _contents(path)
    if contents.get("run") != run:
        raise CheckpointError(
            f"The checkpoint {path} is of another training (other settings, student or data); "
            "remove it, or give this training a file of its own."
        )
    return contents


def rate_of(path: Path | None) -> float | None:
    """Return the learning rate that a training was begun with, or None if there is no file.

    Raises:
        CheckpointError: the file is damaged.
    """
    if path is None or not path.exists():
        return None
    rate = _contents(path).get("lr")
    return rate if isinstance(rate, float) else None


def _contents(path: Path) -> dict[str, Any]:
    try:
        contents = torch.load(path, weights_only=True)
    except Exception as error:  # what torch.load raises on a damaged file is not documented
        raise CheckpointError(
            f"The checkpoint {path} cannot be read ({type(error).__name__}); remove it to train from the start."
        ) from error
    return contents if isinstance(contents, dict) else {}

"""Predicted damages kept in a file: they take seconds to minutes to work out, and are the same for the same content."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from flyweight.tables.allocation import Damage, Menu

Damages = tuple[tuple[Damage, ...], ...]


def kept_damages(folder: Path | None, content: str, menu: Menu, work_out: Callable[[], Damages]) -> Damages:
    """Return damages from a file of the folder, or work them out and keep them there.

    Args:
        folder: None keeps nothing.
        content: says what the damages are of: model, data, anchors.
        menu: the options they are of.
        work_out: called where nothing is kept, or what is kept cannot be read.
    """
    if folder is None:
        return work_out()
    name = hashlib.sha256(content.encode() + menu.bytes.tobytes() + menu.starts.tobytes()).hexdigest()[:16]
    path = folder / f"damage-{name}.npz"
    found = _read(path)
    if found is None:
        found = work_out()
        _write(path, found)
    return found


def _read(path: Path) -> Damages | None:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            anchors, folds = (int(one) for one in arrays["shape"])
            return tuple(
                tuple(Damage(arrays[f"linear_{a}_{f}"], arrays[f"curvature_{a}_{f}"]) for f in range(folds))
                for a in range(anchors)
            )
    except (OSError, KeyError, ValueError, BadZipFile, EOFError):
        return None


def _write(path: Path, damages: Damages) -> None:
    arrays = {"shape": np.array([len(damages), len(damages[0])])}
    for a, anchor in enumerate(damages):
        for f, damage in enumerate(anchor):
            arrays[f"linear_{a}_{f}"], arrays[f"curvature_{a}_{f}"] = damage.linear, damage.curvature
    beside = path.with_name(f".{path.name}.{os.getpid()}.npz")
    try:
        np.savez(beside, **arrays)  # type: ignore[arg-type]
        os.replace(beside, path)
    except OSError:  # a full disk costs time, not the search
        beside.unlink(missing_ok=True)

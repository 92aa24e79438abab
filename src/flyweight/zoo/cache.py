"""Named sets of arrays kept on disk: written whole or not at all, hashed, rebuilt when damaged. No pickle."""

import hashlib
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]
MANIFEST = "manifest.json"


def cache_folder() -> Path:
    """Return where built data and trained weights lie: `$FLYWEIGHT_CACHE`, or `~/.cache/flyweight`."""
    chosen = os.environ.get("FLYWEIGHT_CACHE")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "flyweight"


def cached_arrays(name: str, build: Callable[[], Mapping[str, NDArray[Any]]]) -> Arrays:
    """Return the arrays kept under `name`, memory-mapped, or build them and keep them.

    Every file is hashed against the manifest; whatever is missing or altered is built again. The maps are
    copy-on-write: nothing done to the arrays reaches the disk. Where the folder cannot be written, a warning says so
    and the arrays are returned all the same.
    """
    folder = cache_folder() / name
    kept = _read(folder)
    if kept is not None:
        return kept
    built = dict(build())
    try:
        _write(folder, built)
    except OSError as error:
        warnings.warn(
            f"{folder} could not be written ({error}), so the work of building it is repeated next time; "
            "free some space or set FLYWEIGHT_CACHE to a folder that can be written.",
            stacklevel=2,
        )
        return built
    return _read(folder) or built


def fingerprint(arrays: Mapping[str, NDArray[Any]]) -> str:
    """Return the SHA-256 of names, types, shapes and contents, in order of name."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape};".encode())
        digest.update(array.data if array.size else b"")
    return digest.hexdigest()


def _read(folder: Path) -> Arrays | None:
    """Return the arrays of a folder if it is there and every file is what was written, else None."""
    try:
        hashes = json.loads((folder / MANIFEST).read_text())
        if not isinstance(hashes, dict) or any(_sha256(folder / f"{name}.npy") != hashes[name] for name in hashes):
            return None
        return {name: np.load(folder / f"{name}.npy", mmap_mode="c", allow_pickle=False) for name in hashes}
    except (OSError, ValueError):  # absent, truncated, not JSON: all of them mean "build it"
        return None


def _write(folder: Path, arrays: Arrays) -> None:
    """Write to a folder beside the target and rename, so that an interrupt leaves nothing half-made."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".new-") as made:
        part = Path(made) / "part"
        part.mkdir()
        for name, array in arrays.items():
            np.save(part / f"{name}.npy", array, allow_pickle=False)
        hashes = {name: _sha256(part / f"{name}.npy") for name in arrays}
        (part / MANIFEST).write_text(json.dumps(hashes, indent=1, sort_keys=True))
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

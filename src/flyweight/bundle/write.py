"""Writing a bundle: into a folder beside the target, flushed to the disk, renamed. It is whole or absent."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import flyweight
from flyweight.bundle.files import LIMITS
from flyweight.bundle.manifest import DATA, FORMAT, MANIFEST, MODEL, REPORT, SAMPLES, TIMING, Evidence
from flyweight.bundle.read import read_bundle
from flyweight.bundle.samples import Sample, samples_to_json
from flyweight.bundle.strict_json import canonical, checksum
from flyweight.bundle.timing import Timing
from flyweight.bundle.whole_folder import check_writable, disk_errors_in_words, flush_folder, part_beside, put_in_place
from flyweight.errors import BundleError, InputError

_CHUNK = 2**20


@dataclass(frozen=True)
class Contents:
    """All that goes into a bundle.

    Args:
        exported: the folder with `model.onnx` and, where constants lie outside it, `model.onnx.data`.
        evidence: the manifest but for version and hashes; it must not depend on the clock.
        timing: engine, latency, hardware, versions.
        samples: sample requests with the scores of the reference model.
        report: the HTML page.
    """

    exported: Path
    evidence: Evidence
    timing: Timing
    samples: Sequence[Sample]
    report: str


def write_bundle(path: str | Path, contents: Contents, *, overwrite: bool = False) -> Path:
    """Write a bundle and return its path.

    The same contents but for `timing` give the same bytes in all files but `timing.json` and `report.html`. What was
    written is read back and checked before it gets its name. With `overwrite` the old bundle is set aside, the new
    one renamed into place, and only then the old one removed.

    Raises:
        InputError: the target exists and `overwrite` is not set, or is no bundle; the disk is full or not writable.
        BundleError: the model holds what no bundle may (an operator, a size).
    """
    target = Path(path)
    check_target(target, overwrite=overwrite)
    texts = _texts(contents)
    sources = [contents.exported / name for name in (MODEL, DATA) if (contents.exported / name).is_file()]
    needed = sum(map(len, texts.values())) + sum(source.stat().st_size for source in sources)
    with disk_errors_in_words(target, needed):
        target.parent.mkdir(parents=True, exist_ok=True)
        with part_beside(target) as part:
            hashes = {source.name: copy_file(source, part / source.name) for source in sources}
            _write_texts(part, texts, contents, hashes)
            flush_folder(part)
            _read_back(part, target)
            put_in_place(part, target, overwrite)
            flush_folder(target.parent)
    return target


def check_target(target: Path, *, overwrite: bool) -> None:
    """Find out what would keep a bundle from being written to a path; ask before minutes of work.

    Raises:
        InputError: it exists and `overwrite` is not set, or is no bundle; its folder is no folder or is not writable.
    """
    if not target.name or target.name in (".", ".."):
        raise InputError(
            f"{str(target)!r} is no name for a bundle; give a path that ends in a name, such as ranker.fly."
        )
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise InputError(f"{target} exists and is no bundle; choose another path.")
    check_writable(target)
    if not target.exists():
        return
    if not overwrite:
        raise InputError(f"{target} exists; choose another path, or overwrite it (overwrite=True, --overwrite).")
    names = {entry.name for entry in target.iterdir()}
    if MANIFEST not in names or names - LIMITS.keys():
        odd = sorted(names - LIMITS.keys())[:1]
        seen = f"holds {odd[0]!r}" if odd else f"lacks {MANIFEST}"
        raise InputError(f"{target} {seen}, so it is no bundle and is not overwritten; choose another path.")


def _texts(contents: Contents) -> dict[str, bytes]:
    if not (contents.exported / MODEL).is_file():
        raise InputError(f"{contents.exported} holds no {MODEL}; export the model there first.")
    return {SAMPLES: canonical(samples_to_json(contents.samples)), REPORT: contents.report.encode()}


def _write_texts(part: Path, texts: dict[str, bytes], contents: Contents, hashes: dict[str, dict[str, object]]) -> None:
    for name, data in texts.items():
        write_file(part / name, data)
    files = {**hashes, SAMPLES: described(texts[SAMPLES])}
    evidence = contents.evidence.model_dump()
    manifest = canonical({**evidence, "format": FORMAT, "flyweight": flyweight.__version__, "files": files})
    write_file(part / MANIFEST, manifest)
    timing = contents.timing.model_dump()
    timing["files"] = {MANIFEST: described(manifest), REPORT: described(texts[REPORT])}
    write_file(part / TIMING, canonical({**timing, "checksum": checksum(timing)}))


def described(data: bytes) -> dict[str, object]:
    """Return the size and the hash of a file's content."""
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def copy_file(source: Path, copy: Path) -> dict[str, object]:
    """Copy a file, flushed to the disk, and return its size and hash."""
    digest, size = hashlib.sha256(), 0
    with source.open("rb") as old, copy.open("xb") as new:
        while piece := old.read(_CHUNK):
            digest.update(piece)
            size += new.write(piece)
        new.flush()
        os.fsync(new.fileno())
    return {"bytes": size, "sha256": digest.hexdigest()}


def write_file(file: Path, data: bytes) -> None:
    """Write a new file, flushed to the disk."""
    with file.open("xb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def _read_back(part: Path, target: Path) -> None:
    try:
        read_bundle(part)
    except BundleError as error:
        raise BundleError(str(error).replace(str(part), str(target))) from None

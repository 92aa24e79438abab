"""Writing a bundle: into a folder beside the target, flushed to the disk, renamed. It is whole or absent."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import flyweight
from flyweight.bundle.files import LIMITS
from flyweight.bundle.manifest import (
    DATA,
    FORMAT,
    MANIFEST,
    MODEL,
    PLAIN_FORMAT,
    REPORT,
    SAMPLES,
    TIMING,
    VOCABULARIES,
    Evidence,
)
from flyweight.bundle.read import read_bundle
from flyweight.bundle.samples import Sample, samples_to_json
from flyweight.bundle.strict_json import canonical, checksum
from flyweight.bundle.timing import Timing
from flyweight.bundle.vocabulary_file import write_vocabularies
from flyweight.bundle.whole_folder import check_writable, disk_errors_in_words, flush_folder, part_beside, put_in_place
from flyweight.errors import BundleError, InputError
from flyweight.task.vocabulary import Vocabulary

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
        vocabularies: the raw values of inputs, where they are to go into the bundle.
    """

    exported: Path
    evidence: Evidence
    timing: Timing
    samples: Sequence[Sample]
    report: str
    vocabularies: Mapping[str, Vocabulary] = field(default_factory=dict)


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
    needed += sum(one.nbytes for one in contents.vocabularies.values())
    with disk_errors_in_words(target, needed):
        target.parent.mkdir(parents=True, exist_ok=True)
        with part_beside(target) as part:
            hashes = {source.name: copy_file(source, part / source.name) for source in sources}
            if contents.vocabularies:
                hashes[VOCABULARIES] = write_vocabularies(part / VOCABULARIES, contents.vocabularies)
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
    manifest = {**contents.evidence.model_dump(), **named(contents.vocabularies), "files": files}
    text = canonical({**manifest, "flyweight": flyweight.__version__})
    write_file(part / MANIFEST, text)
    write_timing(part, contents.timing, {MANIFEST: described(text), REPORT: described(texts[REPORT])})


def named(vocabularies: Mapping[str, Vocabulary]) -> dict[str, object]:
    """Return what a manifest says of vocabularies, and the format that it has for them."""
    if not vocabularies:
        return {"format": PLAIN_FORMAT}
    entries = {name: {"values": len(one), "seed": one.seed} for name, one in vocabularies.items()}
    return {"format": FORMAT, "vocabularies": entries}


def write_timing(part: Path, timing: Timing, files: Mapping[str, object]) -> None:
    """Write a bundle's timing with its checksum; `files` are size and hash of the manifest and the page."""
    content = {**timing.model_dump(exclude={"checksum", "files"}), "files": dict(files)}
    write_file(part / TIMING, canonical({**content, "checksum": checksum(content)}))


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

"""Writing a bundle for another server: its model with all that a ranker does around it, configured and checked."""

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import flyweight
from flyweight.bundle.manifest import DATA, MODEL
from flyweight.bundle.read import Bundle, read_bundle
from flyweight.bundle.whole_folder import disk_errors_in_words, flush_folder, part_beside, put_in_place
from flyweight.errors import InputError
from flyweight.serving.repositories.answering_graph import AnsweringGraph, fold_preparation
from flyweight.serving.repositories.confirm_scores import confirm_scores
from flyweight.serving.repositories.instructions import instruction_files
from flyweight.serving.repositories.model_names import checked_version, model_name
from flyweight.serving.repositories.place import RECORD, check_place
from flyweight.serving.repositories.served_model import STORAGE_URI, ServedModel
from flyweight.serving.repositories.targets import TARGETS, Target


@dataclass(frozen=True)
class Written:
    """What was written.

    Args:
        path: the folder.
        model: under which name and version, and what it is asked and answers.
        start: the command that starts the server, in that folder.
        agreement: in words, how close the stored requests' scores came in the server's engine.
        bytes: of all files.
    """

    path: Path
    model: ServedModel
    start: str
    agreement: str
    bytes: int


def export_bundle(
    bundle: str | Path,
    out: str | Path,
    *,
    to: str,
    name: str | None = None,
    version: int = 1,
    storage_uri: str | None = None,
    overwrite: bool = False,
) -> Written:
    """Write a bundle as a folder that another server takes as it is; its scores are checked in that server's engine.

    The same bundle gives the same bytes. Nothing is left behind where it fails.

    Args:
        to: "triton", "openvino-model-server" or "kserve".
        name, version: under which the server knows the model; the name is that of the bundle's folder otherwise.
        storage_uri: for KServe, where the model repository will lie; a setting to fill in otherwise.
        overwrite: replace an older export; nothing else is ever replaced.

    Raises:
        BundleError: the bundle is damaged or not to be trusted.
        InputError: the server is unknown, a name or a version cannot be one, the place is taken, the bundle holds no
            stored requests or cannot be served by requests.
        EngineError: the server's engine is missing, cannot run the model or gives other scores.

    Example:
        >>> export_bundle("ranker.fly", "for-triton", to="triton").model.name  # doctest: +SKIP
        'ranker'
    """
    target = _target(to)
    if storage_uri is not None and not target.as_label:
        raise InputError(f"A storage address is KServe's; --to {to} reads the folder that is written. Leave it out.")
    place = Path(out)
    read = read_bundle(bundle)
    check_place(place, read.path, overwrite=overwrite)
    if not read.samples:
        raise InputError(f"{read.path} holds no stored requests to check the export with; compress the model again.")
    graph = fold_preparation(read, target.engine)
    model = ServedModel(
        model_name(read.path, name, as_label=target.as_label),
        checked_version(version),
        read,
        graph.signature,
        STORAGE_URI if storage_uri is None else storage_uri,
    )
    needed = sum(read.sizes.values()) + len(graph.added)
    with disk_errors_in_words(place, needed, "export"):
        place.parent.mkdir(parents=True, exist_ok=True)
        with part_beside(place) as part:
            words = _fill(part, model, target, graph)
            total = _record(part, model, to)
            put_in_place(part, place, overwrite)
            flush_folder(place.parent)
    return Written(place, model, target.start(model), words, total)


def _target(to: str) -> Target:
    found = TARGETS.get(to)
    if found is None:
        near = get_close_matches(str(to), TARGETS, 1)
        hint = f" The nearest is {near[0]!r}." if near else ""
        raise InputError(f"There is no way to {str(to)[:80]!r}; use one of {', '.join(TARGETS)}.{hint}")
    return found


def _fill(part: Path, model: ServedModel, target: Target, graph: AnsweringGraph) -> str:
    """Write all files but the record; return how close the scores came."""
    version = part / target.models / model.name / str(model.version)
    version.mkdir(parents=True)
    graph.write(version)
    _copy_constants(model.bundle, version)
    target.write(part, model)
    seen = confirm_scores(version / MODEL, model, target.engine)
    for name, text in instruction_files(model, target, seen, graph.unread).items():
        (part / name).write_text(text, encoding="utf-8")
    return seen.words


def _copy_constants(bundle: Bundle, folder: Path) -> None:
    if DATA in bundle.sizes:
        shutil.copyfile(bundle.path / DATA, folder / DATA)


def _record(part: Path, model: ServedModel, to: str) -> int:
    """Write what was written from what, every file with its hash, flushed to the disk; return the bytes of all."""
    files = {}
    for file in sorted(path for path in part.rglob("*") if path.is_file()):
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            os.fsync(stream.fileno())
        files[file.relative_to(part).as_posix()] = {"bytes": file.stat().st_size, "sha256": digest}
    record: dict[str, Any] = {
        "flyweight": flyweight.__version__,
        "bundle": model.bundle.manifest.name,
        "manifest_sha256": model.manifest_sha256,
        "to": to,
        "name": model.name,
        "version": model.version,
        "files": files,
    }
    with (part / RECORD).open("x", encoding="utf-8") as stream:
        stream.write(json.dumps(record, indent=2, ensure_ascii=False) + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    for folder in (part, *(path for path in part.rglob("*") if path.is_dir())):
        flush_folder(folder)
    return sum(path.stat().st_size for path in part.rglob("*") if path.is_file())

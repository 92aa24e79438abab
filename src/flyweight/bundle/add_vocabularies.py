"""Giving vocabularies to a bundle that exists already: written anew beside its place, then renamed into it."""

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import flyweight
from flyweight.bundle.manifest import MANIFEST, REPORT, TIMING, VOCABULARIES
from flyweight.bundle.read import Bundle, read_bundle
from flyweight.bundle.shards.read import is_sharded
from flyweight.bundle.strict_json import canonical
from flyweight.bundle.vocabulary_file import write_vocabularies
from flyweight.bundle.whole_folder import (
    check_writable,
    disk_errors_in_words,
    flush_folder,
    part_beside,
    put_in_place,
)
from flyweight.bundle.write import copy_file, described, named, write_file, write_timing
from flyweight.errors import InputError
from flyweight.task.raw_values import RawValues, vocabulary_of
from flyweight.task.vocabulary import Vocabulary


def add_vocabularies(path: str | Path, vocabularies: Mapping[str, RawValues]) -> dict[str, int]:
    """Write the raw values of a bundle's inputs into it; those of other inputs, and all else, stay as they are.

    Scores, certificate and measurements stay what they were. While it is written the bundle can be read as before;
    servers that run keep what they opened.

    Args:
        vocabularies: for each input what `Field(vocabulary=...)` takes; in place of the one it had.

    Returns:
        How many raw values each input of the bundle now has.

    Raises:
        BundleError: the bundle is damaged, altered, incomplete, newer or not to be trusted.
        InputError: an input is unknown or holds no ids, values do not fit it, or the disk is full or not writable.

    Example:
        >>> add_vocabularies("ranker.fly", {"item_id": {"sku-17": 42, "sku-18": 43}})  # doctest: +SKIP
        {'item_id': 2}
    """
    if is_sharded(path):
        raise InputError(f"{path} is sharded; write vocabularies into the bundle it was made of, and split that again.")
    bundle = read_bundle(path)
    target = bundle.path.resolve()
    made = {name: _made(bundle, name, given) for name, given in vocabularies.items()}
    if not made:
        raise InputError("No vocabulary was given; give the raw values of at least one input.")
    every = dict(sorted({**bundle.vocabularies, **made}.items()))
    check_writable(target)
    with disk_errors_in_words(target, sum(one.nbytes for one in every.values())), part_beside(target) as part:
        _write(part, bundle, every)
        flush_folder(part)
        read_bundle(part)
        put_in_place(part, target, overwrite=True)
        flush_folder(target.parent)
    return {name: len(one) for name, one in every.items()}


def _made(bundle: Bundle, name: str, given: RawValues) -> Vocabulary:
    ids = [one for one, entry in bundle.manifest.inputs.items() if entry.rows is not None]
    if name not in ids:
        near = get_close_matches(str(name), ids, 1, 0.0)
        hint = f"; the nearest of ids is {near[0]!r}" if near else ""
        seen = "takes numbers" if name in bundle.manifest.inputs else f"is not an input of {bundle.path}"
        raise InputError(f"{str(name)[:80]!r} {seen}{hint}. A vocabulary belongs to an input of ids.")
    entry = bundle.manifest.inputs[name]
    assert entry.rows is not None
    try:
        return vocabulary_of(given, entry.rows, entry.unknown)
    except InputError as error:
        raise InputError(f"Input {name!r}: {error}") from None


def _write(part: Path, bundle: Bundle, vocabularies: Mapping[str, Vocabulary]) -> None:
    kept = [name for name in bundle.manifest.files if name != VOCABULARIES]
    for name in (*kept, REPORT):
        _link(bundle.path / name, part / name)
    files = bundle.manifest.model_dump()["files"]
    files[VOCABULARIES] = write_vocabularies(part / VOCABULARIES, vocabularies)
    manifest = {**bundle.manifest.model_dump(), **named(vocabularies), "flyweight": flyweight.__version__}
    text = canonical({**manifest, "files": files})
    write_file(part / MANIFEST, text)
    page = bundle.timing.files["report.html"].model_dump()
    write_timing(part, bundle.timing, {MANIFEST: described(text), REPORT: page})
    shutil.copymode(bundle.path / TIMING, part / TIMING)


def _link(source: Path, place: Path) -> None:
    """Give a file a second name, as tables may be large; a copy where the disk has no such thing."""
    try:
        os.link(source, place, follow_symlinks=False)
    except OSError:
        copy_file(source, place)


def read_raw_values(path: str | Path) -> dict[str, Any]:
    """Read `{"input": {"raw value": id, ...}}` or `{"input": ["raw value of id 0", ...]}` from a JSON file.

    Raises:
        InputError: the file cannot be read or is not that; a value is there twice.

    Example:
        >>> read_raw_values("vocabulary.json")  # doctest: +SKIP
        {'item_id': {'sku-17': 42}}
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        found = json.loads(text, object_pairs_hook=_without_twins)
    except OSError as error:
        raise InputError(f"The vocabulary {path} cannot be read: {error.strerror}; check the path.") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"The vocabulary {path} is no JSON: {error}.") from None
    if not isinstance(found, dict) or not found:
        raise InputError(
            f"The vocabulary {path} must be an object of inputs, as in {{\"item_id\": {{\"sku-17\": 42}}}}; seen "
            f"{'an empty one' if found == {} else type(found).__name__}."
        )
    return found


def _without_twins(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    listed = list(pairs)
    found = dict(listed)
    if len(found) < len(listed):
        seen: set[str] = set()
        twin = next(name for name, _ in listed if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise InputError(f"{twin[:60]!r} is there twice; which id it has cannot be told. Keep one.")
    return found

"""The file of a bundle's vocabularies: every array in safetensors' form, so that a process maps it and reads nothing.

Source of the form: https://github.com/huggingface/safetensors, "Format": eight bytes that say how long a JSON header
is, the header (type, shape and place of each array), the arrays without holes.
"""

import codecs
import hashlib
import json
import mmap
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyweight.bundle.files import opened
from flyweight.bundle.manifest import VocabularyEntry
from flyweight.bundle.strict_json import one_line
from flyweight.errors import BundleError
from flyweight.task.joined_vocabularies import PARTS, JoinedVocabularies
from flyweight.task.packed_texts import PAD
from flyweight.task.vocabulary import LONGEST, WIDEST, Vocabulary

Arrays = dict[str, NDArray[Any]]
#: The types that the numbers of each array may have: of 64 bits only where 32 do not hold them.
KINDS = dict(zip(PARTS, (("U32", "U64"), ("U32", "U64"), ("U32",), ("U32",), ("U8",)), strict=True))
_DTYPES: dict[str, np.dtype[Any]] = {"U8": np.dtype("u1"), "U32": np.dtype("<u4"), "U64": np.dtype("<u8")}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_LENGTH_BYTES, _MOST_HEADER, _CHUNK = 8, 2**24, 2**24


def write_vocabularies(file: Path, vocabularies: Mapping[str, Vocabulary]) -> dict[str, object]:
    """Write a new file, flushed to the disk, and return its size and hash; equal vocabularies give equal bytes."""
    every = [vocabularies[name] for name in sorted(vocabularies)]
    width = max(int(np.diff(one.buckets).max()) for one in every)
    arrays: Arrays = {}
    for part in PARTS:
        some = [np.asarray(getattr(one, part)) for one in every]
        if part == "tags":
            some = [np.pad(tags[: len(one)], (0, width)) for tags, one in zip(some, every, strict=True)]
        dtype = max((array.dtype for array in some), key=lambda one: one.itemsize).newbyteorder("<")
        arrays |= {
            f"{name}.{part}": array.astype(dtype, copy=False)
            for name, array in zip(sorted(vocabularies), some, strict=True)
        }
    # The widest numbers first, as each must begin at a multiple of its size; the order is kept within them.
    return write_arrays(file, dict(sorted(arrays.items(), key=lambda item: -item[1].itemsize)))


def write_arrays(file: Path, arrays: Mapping[str, NDArray[Any]]) -> dict[str, object]:
    """Write a new safetensors file of arrays of one dimension, in their order, and return its size and hash."""
    header: dict[str, Any] = {}
    place = 0
    for name, array in arrays.items():
        end = place + array.nbytes
        header[name] = {"dtype": _NAMES[array.dtype], "shape": [len(array)], "data_offsets": [place, end]}
        place = end
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _LENGTH_BYTES)  # so that numbers of eight bytes begin where they may
    digest, size = hashlib.sha256(), 0
    with file.open("xb") as stream:
        for piece in (np.frombuffer(len(text).to_bytes(_LENGTH_BYTES, "little") + text, "u1"), *arrays.values()):
            data = np.ascontiguousarray(piece).data.cast("B")
            digest.update(data)
            size += stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    return {"bytes": size, "sha256": digest.hexdigest()}


def read_vocabularies(
    file: Path, entries: Mapping[str, VocabularyEntry], rows: Mapping[str, int]
) -> JoinedVocabularies:
    """Return the vocabularies of a file whose hash was checked, mapped: processes share them, and pages come as needed.

    Args:
        rows: of each input; ids lie below.

    Raises:
        BundleError: the file does not hold the arrays that a look-up can rely on.
    """
    with opened(file) as stream:
        size = os.fstat(stream.fileno()).st_size
        if size <= _LENGTH_BYTES:
            raise _damaged(file, f"has {size} bytes")
        mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    arrays, start = _arrays(file, mapped, size)
    whole = _joined(file, arrays, sorted(entries), mapped, start)
    found = {}
    for name in sorted(entries):
        parts = {part: arrays[f"{name}.{part}"] for part in PARTS}
        why = next(_faults(parts, entries[name].values, rows[name]), None)
        if why is not None:
            raise _damaged(file, f"the vocabulary of {name[:80]!r} {why}")
        found[name] = Vocabulary(entries[name].seed, **parts)
    if len({one.width for one in found.values()}) > 1:
        raise _damaged(file, "has tags that end with different numbers of zeros")
    return JoinedVocabularies(found, whole)


def _joined(file: Path, arrays: Arrays, names: Sequence[str], mapped: mmap.mmap, start: int) -> Arrays:
    """Return each part's arrays as one, having checked that they lie one after the other and are of one type."""
    whole: Arrays = {}
    due = {f"{name}.{part}" for name in names for part in PARTS}
    if odd := sorted(arrays.keys() ^ due):
        raise _damaged(file, f"{'holds' if odd[0] in arrays else 'lacks'} the array {odd[0][:80]!r}")
    widths = {part: arrays[f"{names[0]}.{part}"].itemsize for part in PARTS}
    order = sorted(PARTS, key=lambda part: -widths[part])
    if list(arrays) != [f"{name}.{part}" for part in order for name in names]:
        raise _damaged(file, "holds its arrays in another order")
    for part in order:
        some = [arrays[f"{name}.{part}"] for name in names]
        if len({array.dtype for array in some}) > 1:
            raise _damaged(file, f"holds {part} of different types")
        whole[part] = np.frombuffer(mapped, some[0].dtype, sum(map(len, some)), start)
        start += whole[part].nbytes
    return whole


def _arrays(file: Path, mapped: mmap.mmap, size: int) -> tuple[Arrays, int]:
    """Return what the header says lies in the file, arrays of one dimension without holes, and where they begin."""
    length = int.from_bytes(mapped[:_LENGTH_BYTES], "little")
    if not 0 < length <= min(_MOST_HEADER, size - _LENGTH_BYTES):
        raise _damaged(file, f"says that its header has {length:,} bytes")
    start = _LENGTH_BYTES + length
    try:
        header: Any = json.loads(mapped[_LENGTH_BYTES:start].decode())
        arrays: Arrays = {}
        place = 0
        for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            dtype = _DTYPES[entry["dtype"]]
            (count,), (begin, end) = entry["shape"], entry["data_offsets"]
            if type(count) is not int or count < 0 or end != begin + count * dtype.itemsize:
                raise ValueError(f"{name[:80]!r} is of another size than its shape")
            if begin != place or (start + begin) % dtype.itemsize:
                raise ValueError(f"{name[:80]!r} begins at byte {begin}")
            arrays[name] = np.frombuffer(mapped, dtype, count, start + begin)
            place = end
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise _damaged(file, f"has a header that is none ({type(error).__name__}: {one_line(error, 120)})") from None
    if start + place != size:
        raise _damaged(file, f"has {size:,} bytes, of which its header names {start + place:,}")
    return arrays, start


def _faults(parts: Arrays, values: int, rows: int) -> Iterator[str]:
    """Yield why a look-up in the arrays could read beside them, or find what is no text or no id."""
    for part, kinds in KINDS.items():
        if _NAMES[parts[part].dtype] not in kinds:
            yield f"has {part} of type {_NAMES[parts[part].dtype]}"
    starts, ids, tags, buckets, texts = (parts[part] for part in PARTS)
    width, named = len(tags) - len(ids), len(buckets) - 1
    if len(ids) != values or len(starts) != values + 1 or not 0 < width <= WIDEST:
        yield f"has {len(ids):,} ids, {len(starts):,} starts and {len(tags):,} tags for {values:,} values"
    if len(texts) < PAD or texts[-PAD:].any() or starts[-1] != len(texts) - PAD or _longest(starts) > LONGEST:
        yield f"has starts that are not those of its {len(texts):,} bytes of text"
    if named < 2 or named & (named - 1) or buckets[-1] != values or _longest(buckets) > width:
        yield f"has {named:,} buckets that do not fit its values"
    if ids.max() >= rows:
        yield f"has the id {ids.max():,}, and the input {rows:,} rows"
    if not _is_text(texts, starts):
        yield "holds bytes that are no text"


def _longest(starts: NDArray[Any]) -> int:
    """Return the longest step from one start to the next; past all bounds where they do not rise from 0."""
    if not len(starts) or starts[0] != 0 or (starts[1:] < starts[:-1]).any():
        return 2**63
    return int((starts[1:] - starts[:-1]).max(initial=0))


def _is_text(texts: NDArray[np.uint8], starts: NDArray[Any]) -> bool:
    """Return whether all bytes are UTF-8, and no value begins inside of a sign."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for place in range(0, len(texts), _CHUNK):
            decoder.decode(texts[place : place + _CHUNK].tobytes(), place + _CHUNK >= len(texts))
    except UnicodeDecodeError:
        return False
    return not ((texts[starts] & 0xC0) == 0x80).any()


def _damaged(file: Path, why: str) -> BundleError:
    return BundleError(f"{file} {why}; it was altered or damaged. Get the bundle again from its source.")

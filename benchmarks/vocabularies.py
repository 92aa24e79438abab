"""What raw values cost: bytes on disk, opening, looking up 500 of them, and memory in each worker, in three layouts.

    python benchmarks/vocabularies.py      # two minutes on one core, 1 GB of memory; writes JSON and the docs

Each layout is opened in a process of its own while another has it open, as workers do. Every look-up asks for 500
values that none before it asked for, so that what is not in the caches is really fetched.
"""

import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from textwrap import fill
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from flyweight.bundle.manifest import VocabularyEntry
from flyweight.bundle.vocabulary_file import read_vocabularies, write_vocabularies
from flyweight.cost.hardware import describe_hardware
from flyweight.serving.vocabulary import Vocabularies
from flyweight.task.packed_texts import PAD, PackedTexts, hash_texts, pack_texts, same_texts, words_of
from flyweight.task.vocabulary import make_vocabulary
from page_section import put

HERE = Path(__file__).parent
RESULTS, DOCS = HERE / "results" / "vocabularies.json", HERE.parent / "docs" / "bundle.md"
SIZES, IDS, CALLS, FIELDS = (10_000, 1_000_000), 500, 100, 10
#: Items, makers, types, sizes, categories, departments, places, ...
SHOP = (1_000_000, 3_000, 2_000, 2_000, 300, 30, 12, 10, 10, 5)
LookUp = Callable[[Sequence[str]], NDArray[np.int64]]


def values(count: int, seed: int = 0) -> list[str]:
    """Raw values as shops have them: article numbers, with and without a word before them."""
    draw = random.Random(seed)
    found: dict[str, None] = {}
    while len(found) < count:
        number = draw.randrange(10**9)
        found[f"SKU-{number:09d}" if number % 2 else str(number % 10**8)] = None
    return list(found)


@dataclass(frozen=True)
class Layout:
    """One way to keep raw values: how a file of them is written, and opened to be asked."""

    title: str
    write: Callable[[Path, list[str]], None]
    open: Callable[[Path], LookUp]


def write_json(file: Path, texts: list[str]) -> None:
    file.write_bytes(orjson.dumps({"item": {text: id_ for id_, text in enumerate(texts)}}))


def open_json(file: Path) -> LookUp:
    known = orjson.loads(file.read_bytes())["item"]
    return lambda texts: np.array([known.get(text, -1) for text in texts], dtype=np.int64)


def write_sorted(file: Path, texts: list[str]) -> None:
    packed = pack_texts(texts)
    hashes = hash_texts(packed, 0)
    order = np.argsort(hashes)
    data = np.frombuffer("".join(texts).encode() + bytes(PAD), np.uint8)
    np.savez(file.open("wb"), hashes=hashes[order], ids=order.astype(np.uint32), starts=packed.starts, data=data)


def open_sorted(file: Path) -> LookUp:
    """64 bits of hash beside each value, found by `numpy.searchsorted`."""
    arrays = np.load(file)
    hashes, ids, starts = (arrays[name] for name in ("hashes", "ids", "starts"))
    words, ends = words_of(arrays["data"]), np.append(starts[1:], len(arrays["data"]) - PAD)

    def look_up(texts: Sequence[str]) -> NDArray[np.int64]:
        packed = pack_texts(texts)
        wanted = hash_texts(packed, 0)
        place = np.minimum(hashes.searchsorted(wanted), len(hashes) - 1)
        id_ = ids[place].astype(np.int64)
        found = same_texts(packed, PackedTexts(words, starts[id_], ends[id_] - starts[id_]))
        return np.where((hashes[place] == wanted) & found, id_, -1)

    return look_up


def write_ours(file: Path, texts: list[str]) -> None:
    made = make_vocabulary(texts, range(len(texts)))
    write_vocabularies(file, {"item": made})
    file.with_suffix(".entry").write_text(json.dumps({"values": len(made), "seed": made.seed}))


def open_ours(file: Path) -> LookUp:
    """Hash and check the file, as reading a bundle does, and map it."""
    with file.open("rb") as stream:
        hashlib.file_digest(stream, "sha256")
    entry = VocabularyEntry.model_validate_json(file.with_suffix(".entry").read_text())
    return read_vocabularies(file, {"item": entry}, {"item": entry.values})["item"].ids_of


LAYOUTS = {
    "dict": Layout("a dict made from JSON, as by `--vocabulary`", write_json, open_json),
    "sorted": Layout("64-bit hashes in order, binary search", write_sorted, open_sorted),
    "ours": Layout("**buckets by hash, mapped** (the bundle's)", write_ours, open_ours),
}


def private_bytes() -> int:
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))


def asked_of(name: str, file: Path, count: int) -> dict[str, Any]:
    """Open a layout and look values up; in a process of its own."""
    before = private_bytes()
    begin = time.perf_counter()
    look_up = LAYOUTS[name].open(file)
    opened = time.perf_counter() - begin
    look_up(["first"])  # what a small vocabulary works out once
    ready = time.perf_counter() - begin
    memory = private_bytes() - before
    texts = values(count)
    draw = random.Random(1)
    picked = [draw.randrange(count) for _ in range(CALLS * IDS)]
    seconds = []
    for start in range(0, len(picked), IDS):
        ids = picked[start : start + IDS]
        asked = ["".join(list(texts[id_])) for id_ in ids]  # texts of their own, as from a request
        begin = time.perf_counter()
        found = look_up(asked)
        seconds.append(time.perf_counter() - begin)
        assert found.tolist() == ids
    return {"open_ms": opened * 1e3, "ready_ms": ready * 1e3, "us": median(seconds) * 1e6, "private": memory}


def measured(folder: Path, count: int, name: str) -> dict[str, Any]:
    file = folder / f"{name}-{count}"
    LAYOUTS[name].write(file, values(count))
    other = LAYOUTS[name].open(file)  # the other worker
    words = [sys.executable, __file__, name, str(file), str(count)]
    told = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    assert other(["none"]).tolist() == [-1]
    return {"layout": name, "values": count, "bytes": file.stat().st_size, **told}


def ten_fields(folder: Path, sizes: Sequence[int]) -> dict[str, float]:
    """Return microseconds of one request's 500 candidates with ten fields of text, by our layout and by dicts."""
    texts = {f"field-{place}": values(size, seed=place) for place, size in enumerate(sizes)}
    file = folder / f"of-{sum(sizes)}"
    made = {name: make_vocabulary(some, range(len(some))) for name, some in texts.items()}
    write_vocabularies(file, made)
    entries = {name: VocabularyEntry(values=len(one), seed=one.seed) for name, one in made.items()}
    mapped = read_vocabularies(file, entries, {name: len(one) for name, one in made.items()})
    dicts = {name: {text: id_ for id_, text in enumerate(some)} for name, some in texts.items()}
    ways = {"ours": Vocabularies({}, mapped), "dict": Vocabularies(dicts)}
    draw, seconds = random.Random(2), {name: [] for name in ways}
    for turn in range(2 * CALLS):
        way = list(ways)[turn % 2]
        picked = {name: [draw.randrange(len(some)) for _ in range(IDS)] for name, some in texts.items()}
        raw = {
            name: np.array(["".join(list(texts[name][id_])) for id_ in ids], dtype=object)
            for name, ids in picked.items()
        }
        begin = time.perf_counter()
        found = ways[way].ids_of(raw, ())
        seconds[way].append(time.perf_counter() - begin)
        assert all(found[name].tolist() == ids for name, ids in picked.items())
    return {name: median(taken) * 1e6 for name, taken in seconds.items()}


def page(found: dict[str, Any]) -> str:
    lines = [
        "| layout | values | bytes a value on disk | open, ms | 500 look-ups, us | memory of its own in a worker, MB |",
        "|---|---|---|---|---|---|",
    ]
    for one in found["results"]:
        lines.append(
            f"| {LAYOUTS[one['layout']].title} | {one['values']:,} | {one['bytes'] / one['values']:.1f} | "
            f"{one['ready_ms']:.1f} | {one['us']:.0f} | {one['private'] / 1e6:.1f} |"
        )
    shop, small, large = (
        f"{one['ours']:.0f} us ({one['dict']:.0f} with a dict each)"
        for one in (found["ten_fields_us"][name] for name in ("shop", "small", "large"))
    )
    few, many = (f"{size:,}" for size in SIZES)
    words = (
        f"Ten text fields of {IDS} candidates at once: {shop} with vocabularies as shops have them "
        f"({', '.join(f'{size:,}' for size in SHOP)} values), {small} where all ten have {few}, {large} "
        f"where all ten have {many}. The values themselves are {found['text_bytes']:.1f} bytes each. "
        f"{found['hardware']['cpu']}, one thread, other "
        f"work beside it (load {found['load']:.0f} on {found['hardware']['cores']} cores)."
    )
    return "\n".join([*lines, "", fill(words, 118)])


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        results = [measured(folder, count, name) for count in SIZES for name in LAYOUTS]
        small, large = SIZES
        ten = {
            "shop": ten_fields(folder, SHOP),
            "small": ten_fields(folder, [small] * FIELDS),
            "large": ten_fields(folder, [large] * FIELDS),
        }
    texts = values(large)
    found = {
        "hardware": describe_hardware(),
        "results": results,
        "ten_fields_us": ten,
        "load": os.getloadavg()[0],
        "text_bytes": sum(map(len, texts)) / len(texts),
    }
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    put(DOCS, "vocabularies", page(found))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(asked_of(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))))
    else:
        main()

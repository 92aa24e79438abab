"""A shard on disk: a folder with `shard.json`, which says what it is, and `rows.bin`, its rows of every table."""

import hashlib
import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

import flyweight
from flyweight.bundle.entry import Count, Entry, File, Name, Sha256
from flyweight.bundle.files import check_content, check_file, list_sizes, read_bytes
from flyweight.bundle.manifest import Dtype, Size, Version
from flyweight.bundle.shards.places import rows_in
from flyweight.bundle.shards.plan import MAX_SHARDS, Shard, ShardedTable
from flyweight.bundle.strict_json import canonical, parse, validate
from flyweight.bundle.write import write_file
from flyweight.errors import BundleError
from flyweight.task.progress import stage

RECORD, ROWS = "shard.json", "rows.bin"
FOLDER = "shard-"
LIMITS = {RECORD: 2**26, ROWS: 2**44}
_ALIGNMENT = 64
_CHUNK = 1 << 24  # bytes of a table that are dealt out together


class StoredTable(Entry):
    """Rows of a table in a shard: `rows` of them, one after the other from byte `offset` of `rows.bin` on."""

    name: Name
    rows: Count
    row: Annotated[list[Size], Field(max_length=8)]
    dtype: Dtype
    offset: Count

    @property
    def row_bytes(self) -> int:
        """What one row takes."""
        return int(np.prod(self.row, dtype=np.int64)) * np.dtype(self.dtype).itemsize


class ShardRecord(Entry):
    """`shard.json`.

    Args:
        format: of a shard's folder.
        name: of the bundle.
        plan: the hash of the plan that it is a part of.
        shard, shards: which it is, of how many.
        tables: in the plan's order.
        file: size and hash of `rows.bin`.
    """

    format: Literal[1]
    flyweight: Version
    name: Name
    plan: Sha256
    shard: Shard
    shards: Annotated[int, Field(ge=1, le=MAX_SHARDS)]
    tables: Annotated[list[StoredTable], Field(min_length=1, max_length=4096)]
    file: File

    @model_validator(mode="after")
    def _fits(self) -> "ShardRecord":
        if self.shard >= self.shards:
            raise ValueError(f"shard {self.shard} is not among the {self.shards} of its plan")
        for table in self.tables:
            if table.offset + table.rows * table.row_bytes > self.file.bytes:
                raise ValueError(f"table {table.name!r} runs past the {self.file.bytes:,} bytes of {ROWS}")
        return self


@dataclass(frozen=True)
class OpenShard:
    """A shard, checked and mapped: `tables[k]` is (rows,) of the plan's table k, an item the bytes of a row."""

    path: Path
    record: ShardRecord
    tables: tuple[NDArray[Any], ...]


def open_shard(path: str | Path) -> OpenShard:
    """Check a shard's folder, size and hash included, and map its rows; none of them stays in this process's memory.

    Raises:
        BundleError: it is no shard, was cut or altered, or is of a newer format.
    """
    path = Path(path)
    if not path.is_dir():
        raise BundleError(f"A shard is a folder with {RECORD}; {path} is none. Check the path.")
    if not (path / RECORD).is_file():
        raise BundleError(f"{path} lacks {RECORD}: it is not a shard, or an incomplete one. Check the path.")
    try:
        sizes = list_sizes(path, LIMITS)
        file = path / RECORD
        record = validate(ShardRecord, parse(read_bytes(file, LIMITS[RECORD]), str(file)), str(file))
        check_content(path / ROWS, record.file, sizes[ROWS], "")
        with stage(f"Checking shard {record.shard} of {record.shards}", seconds=sizes[ROWS] / 1e9):
            check_file(path / ROWS, record.file)
        mapped = np.memmap(path / ROWS, np.uint8, "r") if sizes[ROWS] else np.empty(0, np.uint8)
    except OSError as error:
        raise BundleError(f"{path} cannot be read ({error.strerror}); check the path.") from None
    tables = (mapped[one.offset : one.offset + one.rows * one.row_bytes] for one in record.tables)
    items = (own.view(_item(one.row_bytes)) for own, one in zip(tables, record.tables, strict=True))
    return OpenShard(path, record, tuple(items))


def _item(row_bytes: int) -> np.dtype[Any]:
    """Return what a row is read as: a whole number where there is one of its size, which NumPy takes the quickest."""
    return np.dtype(f"u{row_bytes}" if row_bytes in (1, 2, 4, 8) else f"V{row_bytes}")


class _Part:
    """`rows.bin` as it grows."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self.bytes = 0

    def align(self) -> None:
        self.add(b"\0" * (-self.bytes % _ALIGNMENT))

    def add(self, data: bytes) -> None:
        self._digest.update(data)
        self.bytes += self._file.write(data)

    def end(self) -> File:
        self._file.flush()
        os.fsync(self._file.fileno())
        return File(bytes=self.bytes, sha256=self._digest.hexdigest())


@dataclass(frozen=True)
class Dealt:
    """What was written: the file of each shard, and where each table begins in it."""

    files: tuple[File, ...]
    offsets: tuple[tuple[int, ...], ...]  # (shards, tables)


def deal_rows(folder: Path, shards: int, tables: Sequence[tuple[ShardedTable, NDArray[Any]]]) -> Dealt:
    """Write `rows.bin` of every shard, each table read once, a block at a time."""
    total = sum(rows.nbytes for _, rows in tables)
    offsets: list[list[int]] = [[] for _ in range(shards)]
    with ExitStack() as stack, stage("Writing shards", total) as work:
        parts = []
        for shard in range(shards):
            (folder / f"{FOLDER}{shard}").mkdir()
            parts.append(_Part(stack.enter_context((folder / f"{FOLDER}{shard}" / ROWS).open("xb"))))
        for table, rows in tables:
            for part, own in zip(parts, offsets, strict=True):
                part.align()
                own.append(part.bytes)
            _deal(table, rows, parts, work.advance)
        return Dealt(tuple(part.end() for part in parts), tuple(map(tuple, offsets)))


def _deal(table: ShardedTable, rows: NDArray[Any], parts: Sequence[_Part], advance: Any) -> None:
    row_bytes = max(1, rows[:1].nbytes)
    for piece in table.pieces:
        ways = len(piece.shards)
        step = max(1, _CHUNK // row_bytes // ways) * ways  # so that each block begins with the same shard
        for start in range(piece.start, piece.stop, step):
            block = np.asarray(rows[start : min(start + step, piece.stop)])
            for way, shard in enumerate(piece.shards):
                parts[shard].add(np.ascontiguousarray(block[way::ways]).tobytes())
            advance(block.nbytes)


def write_record(
    folder: Path, name: str, plan: str, shard: int, tables: Sequence[ShardedTable], dealt: Dealt
) -> None:
    """Write `shard.json` of one shard, once the plan has its hash."""
    stored = [
        StoredTable(name=one.name, rows=rows_in(one, shard), row=one.row, dtype=one.dtype, offset=offset)
        for one, offset in zip(tables, dealt.offsets[shard], strict=True)
    ]
    record = ShardRecord(
        format=1,
        flyweight=flyweight.__version__,
        name=name,
        plan=plan,
        shard=shard,
        shards=len(dealt.files),
        tables=stored,
        file=dealt.files[shard],
    )
    write_file(folder / f"{FOLDER}{shard}" / RECORD, canonical(record.model_dump()))



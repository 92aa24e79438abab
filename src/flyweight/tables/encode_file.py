"""A table coded from file to file, in memory for a block alone: rows by the hundred million on a small machine.

Codewords are learned on a seeded sample of rows, as in memory. Then part after part is read, coded and written whole,
so that a run that was killed goes on with the parts that are missing and ends with the same bytes; and parts can be
coded by several processes, in any order.
"""

import errno
import fcntl
import io
import json
import os
import shutil
import socket
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flyweight.errors import InputError
from flyweight.tables.coded_file import CodedFile, fingerprint, read_coded_file
from flyweight.tables.coding import Coding, encode
from flyweight.tables.kmeans import SAMPLE_ROWS, assign
from flyweight.tables.packing import pack, packed_bytes
from flyweight.tables.table_file import TableFile
from flyweight.task.processes import Processes
from flyweight.task.progress import stage
from flyweight.task.runner import Here, Runner

__all__ = ["code_rows", "encode_file", "fingerprint", "read_coded_file"]

#: Rows of a part, which is written whole, and of a block, which is held in memory: multiples of 8, whatever the bits.
#: A block of some MB stays in the processor's cache from the read to the codes; larger ones are slower by a quarter.
PART_ROWS, BLOCK_ROWS = 1 << 20, 1 << 14
FORMAT = 1
#: How names begin of files on their way to their own, and the file that is locked while somebody codes.
HALF, LOCK = ".half-", "lock"


def encode_file(
    table: TableFile,
    folder: Path,
    coding: Coding,
    *,
    weights: TableFile | None = None,
    seed: int = 0,
    workers: int = 1,
    runner: Runner | None = None,
) -> CodedFile:
    """Code a table in a file into a folder; begun before and not ended, it goes on.

    Args:
        coding: with a code for each row.
        weights: (rows, 1) how much each row matters, in a file too; None for all alike.
        seed: of the rows that codewords are learned on.
        workers: processes of this machine; the bytes are the same whatever their number.
        runner: codes the parts elsewhere, as the workers of a cluster do, which must see the table under its path.

    Raises:
        InputError: the folder holds the codes of something else, the table changed, a row holds NaN, or the disk is
            full: what was coded stays, and the same call goes on.
    """
    workers = min(workers, -(-table.rows // PART_ROWS))  # a process takes two seconds to begin
    if coding.rounded or not 1 <= coding.bits <= 8 or coding.groups < 1 or table.dim % coding.groups:
        raise InputError(f"Codes have 1 to 8 bits, in pieces that divide {table.dim} columns; seen {coding}.")
    if weights is not None and (weights.rows, weights.dim) != (table.rows, 1):
        raise InputError(f"weights have the shape ({weights.rows:,}, {weights.dim}); ({table.rows:,}, 1) is due.")
    asked = _asked(table, coding, weights, seed)
    runner = runner or (Processes(workers) if workers > 1 else Here())
    _make(folder)
    with _alone_in(folder):
        try:
            if not _begun(folder, asked):
                _go_on(table, folder, coding, weights, seed, runner, asked)
            _clear(folder)
        except OSError as error:
            raise InputError(_in_words(error, folder, _due(table, coding, folder))) from error
    (folder / LOCK).unlink(missing_ok=True)
    return read_coded_file(folder)


def _go_on(
    table: TableFile,
    folder: Path,
    coding: Coding,
    weights: TableFile | None,
    seed: int,
    runner: Runner,
    asked: dict[str, Any],
) -> None:
    """Code the parts that are missing, and join all."""
    (folder / "parts").mkdir(exist_ok=True)
    missing = [start for start in range(0, table.rows, PART_ROWS) if not _part(folder, start).exists()]
    left = sum(_rows_of(table, start) for start in missing)
    _check_space(folder, _due(table, coding, folder))
    codebook = _codebook(table, folder, coding, weights, seed)
    _check_parts(table, folder, coding, codebook)
    with stage("Coding rows", total=table.rows) as work:
        work.advance(table.rows - left)
        with closing(_coded(table, folder, coding, codebook, missing, runner)) as coded:
            for start in coded:
                work.advance(_rows_of(table, start))
    _join(table, folder, asked)


def code_rows(rows: Tensor, codebook: Tensor) -> Tensor:
    """Return the codes of rows, stage after stage, in a stage group after group, (n, stages * groups) uint8.

    Args:
        rows: (n, dim) float32; codebook: (stages, groups, codewords, dim / groups).
    """
    stages, groups, _, width = codebook.shape
    codes = torch.empty(len(rows), stages * groups, dtype=torch.uint8)
    left = rows
    for number in range(stages):
        parts = []
        for group in range(groups):
            piece = left[:, group * width : (group + 1) * width].contiguous()
            chosen = assign(piece, codebook[number, group].float())
            codes[:, number * groups + group] = chosen
            if number + 1 < stages:
                parts.append(codebook[number, group].float()[chosen.long()])
        if parts:
            left = left - torch.cat(parts, 1)
    return codes


def _asked(table: TableFile, coding: Coding, weights: TableFile | None, seed: int) -> dict[str, Any]:
    """Return what tells whether a folder holds the codes of this."""
    of_weights = None if weights is None else [str(weights.path.resolve()), weights.name, *weights.stamp]
    return {
        "format": FORMAT,
        "rows": table.rows,
        "dim": table.dim,
        "coding": asdict(coding),
        "seed": seed,
        "source": [str(table.path.resolve()), table.name, *table.stamp],
        "weights": of_weights,
    }


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be made: {error.strerror}; name another folder.") from error


def _begun(folder: Path, asked: dict[str, Any]) -> bool:
    """Begin a folder, or take up one; return whether it is done.

    Raises:
        InputError: it is of something else.
    """
    state, done = folder / "state.json", folder / "coding.json"
    for file in (done, state):
        if file.exists():
            held = _read(file)
            if held != asked and file == state and not (folder / "codebook.npy").exists():
                break  # nothing was coded, as where the table was refused and mended since
            if held != asked:
                raise InputError(_difference(held, asked, folder))
            return file == done
    if any(file.name not in (LOCK, state.name, "parts") for file in folder.iterdir()):
        (folder / LOCK).unlink()
        raise InputError(f"{folder} is not empty; name another folder.")
    _write_whole(state, json.dumps(asked, indent=1).encode())
    return False


def _difference(held: Any, asked: dict[str, Any], folder: Path) -> str:
    """Return in words why a folder cannot be gone on with."""
    for what in ("source", "weights"):
        old, new = (one.get(what) if isinstance(one, dict) else None for one in (held, asked))
        if old and new and old[:2] == new[:2] and old != new:
            how = f"it had {old[2]:,} bytes, and has {new[2]:,}" if old[2] != new[2] else "it was written to"
            return (
                f"{new[0]} changed since {folder} was begun: {how}. Codes of both would be mixed; put the old file "
                "back, or name another folder."
            )
    return f"{folder} holds the codes of another table, coding or seed; name another folder."


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_text())
    except ValueError:  # damaged: of nothing that is known
        return None


def _due(table: TableFile, coding: Coding, folder: Path) -> int:
    """Return the bytes that are still to be written: the parts that are missing, and the whole beside all of them."""
    missing = [start for start in range(0, table.rows, PART_ROWS) if not _part(folder, start).exists()]
    codes = coding.stages * coding.groups
    left = sum(_rows_of(table, start) for start in missing)
    return packed_bytes(table.rows * codes, coding.bits) + packed_bytes(left * codes, coding.bits)


def _check_space(folder: Path, due: int) -> None:
    """Refuse what will not fit."""
    free = shutil.disk_usage(folder).free
    if free < due:
        raise InputError(
            f"The codes take {due:,} bytes more and {folder} has {free:,} free; make room, or name another disk."
        )


def _check_parts(table: TableFile, folder: Path, coding: Coding, codebook: Tensor) -> None:
    """Code the first block of each part that is there once more: other codes are those of another table.

    A file that was put back with its old size and time is found so, and a part that was damaged; a change within the
    other blocks of a part is not.
    """
    for start in range(0, table.rows, PART_ROWS):
        part = _part(folder, start)
        if not part.exists():
            continue
        stop = min(start + BLOCK_ROWS, start + _rows_of(table, start))
        again = pack(code_rows(table.read(start, stop), codebook).view(-1), coding.bits).numpy().tobytes()
        with part.open("rb") as file:
            held = file.read(len(again))
        whole = packed_bytes(_rows_of(table, start) * coding.stages * coding.groups, coding.bits)
        if held != again or part.stat().st_size != whole:
            raise InputError(
                f"Rows {start:,} to {stop:,} of {table.path} are not those that {part} was coded of, though the file's "
                "size and time are the same. Put the old file back, or name another folder."
            )


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Keep others out of a folder, and clear what a kill left half written."""
    with (folder / LOCK).open("wb") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(f"Another process codes into {folder}; wait for it, or name another folder.") from None
        for file in (*folder.glob(f"{HALF}*"), *(folder / "parts").glob(f"{HALF}*")):
            file.unlink()
        yield


def _codebook(table: TableFile, folder: Path, coding: Coding, weights: TableFile | None, seed: int) -> Tensor:
    """Return the codewords, learned on a sample; those that an earlier run has learned, where it has."""
    file = folder / "codebook.npy"
    if not file.exists():
        with stage("Learning codewords", seconds=5.0):
            generator = torch.Generator().manual_seed(seed)
            if table.rows > SAMPLE_ROWS:
                chosen = torch.randint(table.rows, (SAMPLE_ROWS,), generator=generator)
            else:
                chosen = torch.arange(table.rows)
            felt = torch.ones(len(chosen)) if weights is None else weights.gather(chosen)[:, 0]
            if bool((felt < 0).any()):
                row = int(chosen[int((felt < 0).nonzero()[0])])
                path = "the weights" if weights is None else weights.path
                raise InputError(f"Row {row:,} of {path} weighs less than 0; weights are 0 or more.")
            learned = encode(table.gather(chosen), felt, coding, generator).codebook
        whole = io.BytesIO()
        np.save(whole, learned.numpy())
        _write_whole(file, whole.getvalue())
    return torch.from_numpy(np.load(file))


def _coded(
    table: TableFile, folder: Path, coding: Coding, codebook: Tensor, starts: list[int], runner: Runner
) -> Generator[int, None, None]:
    """Code parts, and yield each one's first row as it is done.

    Workers of this machine write their parts themselves; those of others send them, so that the folder may lie on a
    disk that they do not see.
    """
    if runner.local:
        work: Callable[[range], bytes | None] = partial(_code_part, table, folder, coding, codebook)
    else:
        work = partial(_part_sent, replace(table, path=table.path.resolve()), coding, codebook)
    parts = (range(start, start + _rows_of(table, start)) for start in starts)
    with closing(runner.each(work, parts)) as each:
        for rows, done in each:
            content = done.result()
            if content is not None:
                _write_whole(_part(folder, rows.start), content)
            yield rows.start


def _code_part(table: TableFile, folder: Path, coding: Coding, codebook: Tensor, part: range) -> None:
    """Code the rows of one part, block by block, and write it whole."""
    file = _part(folder, part.start)
    half = file.with_name(f"{HALF}{file.name}-{os.getpid()}")
    try:
        with half.open("wb") as out:
            for block in _blocks(table, coding, codebook, part):
                out.write(block)
            out.flush()
            os.fsync(out.fileno())
        half.rename(file)
    except BaseException:
        half.unlink(missing_ok=True)
        raise


def _part_sent(table: TableFile, coding: Coding, codebook: Tensor, part: range) -> bytes:
    """Return the codes of one part, worked out on another machine.

    Raises:
        InputError: that machine does not see the table.
    """
    try:
        return b"".join(_blocks(table, coding, codebook, part))
    except OSError as error:
        raise InputError(
            f"The worker on {socket.gethostname()} cannot read {table.path} ({error.strerror}). Put the table on "
            "a disk that every node sees under this path, or use --cluster local. What was coded stays."
        ) from error


def _blocks(table: TableFile, coding: Coding, codebook: Tensor, part: range) -> Iterator[bytes]:
    """Yield the packed codes of one part, block by block."""
    for at in range(part.start, part.stop, BLOCK_ROWS):
        rows = table.read(at, min(at + BLOCK_ROWS, part.stop))
        yield pack(code_rows(rows, codebook).view(-1), coding.bits).numpy().tobytes()


def _join(table: TableFile, folder: Path, asked: dict[str, Any]) -> None:
    """Make one file of all parts, whole or not at all, and say that it is done."""
    half = folder / f"{HALF}codes.bin"
    try:
        with half.open("wb") as out:
            for start in range(0, table.rows, PART_ROWS):
                with _part(folder, start).open("rb") as part:
                    shutil.copyfileobj(part, out, 1 << 20)
            out.flush()
            os.fsync(out.fileno())
        half.rename(folder / "codes.bin")
    except BaseException:  # a full disk is not to be left fuller
        half.unlink(missing_ok=True)
        raise
    _write_whole(folder / "coding.json", json.dumps(asked, indent=1).encode())


def _clear(folder: Path) -> None:
    """Take away what is needed until the codes are there."""
    shutil.rmtree(folder / "parts", ignore_errors=True)
    (folder / "state.json").unlink(missing_ok=True)


def _rows_of(table: TableFile, start: int) -> int:
    return min(PART_ROWS, table.rows - start)


def _part(folder: Path, start: int) -> Path:
    return folder / "parts" / f"{start:012}.codes"


def _write_whole(file: Path, content: bytes) -> None:
    half = file.with_name(f"{HALF}{file.name}")
    with half.open("wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    half.rename(file)


def _in_words(error: OSError, folder: Path, due: int) -> str:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    what = "The disk is full" if full else f"{error.strerror}"
    if error.errno == errno.EFBIG:
        what = "A file may not grow as large here (ulimit -f)"
    parts = len(list((folder / "parts").glob("*.codes")))
    return (
        f"{what}: {folder} cannot be written on; {due:,} bytes are still due, {shutil.disk_usage(folder).free:,} are "
        f"free. The {parts:,} parts that were coded stay; make room and run the same again to go on."
    )

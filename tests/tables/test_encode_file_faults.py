"""Coding a table in a file when things go wrong: kills at any time, tables that change, disks that fill."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import flyweight.tables.encode_file as module
from flyweight.errors import InputError
from flyweight.tables.coding import Coding
from flyweight.tables.encode_file import encode_file, fingerprint
from flyweight.tables.table_file import open_table

ROWS, DIM, PART, BLOCK = 20_000, 8, 1_024, 512
#: Codes a table in small parts; `wait` seconds go by before each block.
SCRIPT = """
import resource, sys, time
from pathlib import Path
import flyweight.tables.encode_file as module
from flyweight.errors import InputError
from flyweight.tables.coding import Coding
from flyweight.tables.table_file import open_table
table, folder, wait, largest = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
module.PART_ROWS, module.BLOCK_ROWS = 1024, 512
code = module.code_rows
module.code_rows = lambda *given: (time.sleep(wait), code(*given))[1]
if largest:
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
try:
    module.encode_file(open_table(table), folder, Coding())
except InputError as error:
    sys.exit(str(error))
"""


def saved(path: Path, seed: int = 0) -> Path:
    np.save(path, np.random.default_rng(seed).standard_normal((ROWS, DIM), dtype=np.float32))
    return path


def command(table: Path, folder: Path, wait: float = 0.0, largest: int = 0) -> list[str]:
    return [sys.executable, "-c", SCRIPT, str(table), str(folder), str(wait), str(largest)]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PART_ROWS", PART)
    monkeypatch.setattr(module, "BLOCK_ROWS", BLOCK)


def parts_of(folder: Path) -> int:
    return len(list((folder / "parts").glob("*.codes")))


def test_killed_again_and_again_it_ends_with_the_same_bytes(tmp_path: Path) -> None:
    """Each process is killed at a random moment after it has begun to write; the last one is left to end."""
    table, folder = saved(tmp_path / "table.npy"), tmp_path / "coded"
    moments, done = random.Random(7), [0]
    for _ in range(3):
        process = subprocess.Popen(command(table, folder, wait=0.02))
        until = time.monotonic() + 60
        while process.poll() is None and parts_of(folder) <= done[-1] and time.monotonic() < until:
            time.sleep(0.005)
        time.sleep(moments.uniform(0.0, 0.15))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        done.append(parts_of(folder))
    assert 0 < done[1] < done[2] < done[3] < ROWS // PART + 1
    found = encode_file(open_table(table), folder, Coding())
    whole = encode_file(open_table(table), tmp_path / "whole", Coding())
    assert fingerprint(found.folder) == fingerprint(whole.folder)
    assert sorted(file.name for file in folder.iterdir()) == ["codebook.npy", "codes.bin", "coding.json"]


def stopped_after(folder: Path, table: Path, parts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Code so many parts and stop, as Ctrl-C does."""
    left, code_part = [parts], module._code_part

    def stops(*given: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        code_part(*given)

    with monkeypatch.context() as patch:
        patch.setattr(module, "_code_part", stops)
        with pytest.raises(KeyboardInterrupt):
            encode_file(open_table(table), folder, Coding())
    assert parts_of(folder) == parts


def longer(table: Path) -> None:
    with table.open("ab") as file:
        file.write(b"\0" * 32)


def touched(table: Path) -> None:
    os.utime(table)


def other_bytes_of_the_same_time(table: Path) -> None:
    before = table.stat()
    saved(table, seed=1)
    os.utime(table, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (longer, r"table.npy changed since .*coded was begun: it had 640,128 bytes, and has 640,160"),
        (touched, r"table.npy changed since .*coded was begun: it was written to"),
        (other_bytes_of_the_same_time, r"Rows 0 to 512 of .*table.npy are not those that .*000000000000.codes was"),
    ],
    ids=["size", "time", "bytes"],
)
def test_a_table_that_changed_between_parts_is_refused_and_how_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None], words: str
) -> None:
    table, folder = saved(tmp_path / "table.npy"), tmp_path / "coded"
    stopped_after(folder, table, 3, monkeypatch)
    change(table)
    with pytest.raises(InputError, match=words):
        encode_file(open_table(table), folder, Coding())
    assert parts_of(folder) == 3


def test_a_table_written_to_while_it_is_coded_is_refused(tmp_path: Path) -> None:
    opened = open_table(saved(tmp_path / "table.npy"))
    os.utime(opened.path)
    with pytest.raises(InputError, match=r"changed while it was read \(as large as before, written to since"):
        encode_file(opened, tmp_path / "coded", Coding())


def test_a_table_cut_since_it_was_opened_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = open_table(saved(tmp_path / "table.npy"))
    os.truncate(opened.path, 640_128 - 32 * 100)
    with pytest.raises(InputError, match=r"changed while it was read \(640,128 bytes then, 636,928 now\)"):
        encode_file(opened, tmp_path / "coded", Coding())
    monkeypatch.setattr(type(opened), "_check", lambda *_: None)  # cut after the look at its size
    with pytest.raises(InputError, match="ended before row 19,900; it was cut while it was read"):
        opened.read(19_500, 20_000)


def test_no_room_is_told_with_what_is_due_and_free_and_the_parts_stay(tmp_path: Path) -> None:
    """A process that may write no file over 4,000 bytes: parts of 512 fit, all codes together do not."""
    table, folder = saved(tmp_path / "table.npy"), tmp_path / "coded"
    done = subprocess.run(command(table, folder, largest=4_000), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "A file may not grow as large here (ulimit -f)" in done.stderr
    assert "10,000 bytes are still due" in done.stderr
    assert "The 20 parts that were coded stay; make room and run the same again to go on." in done.stderr
    assert parts_of(folder) == 20
    assert not list(folder.rglob(f"{module.HALF}*"))
    found = encode_file(open_table(table), folder, Coding())
    whole = encode_file(open_table(table), tmp_path / "whole", Coding())
    assert fingerprint(found.folder) == fingerprint(whole.folder)


def test_a_table_that_was_refused_and_mended_goes_into_the_same_folder(tmp_path: Path) -> None:
    path = saved(tmp_path / "table.npy")
    rows = np.load(path)
    spoilt = rows.copy()
    spoilt[37, 2] = np.nan
    np.save(path, spoilt)
    with pytest.raises(InputError, match=r"Row 37 of .* holds NaN"):
        encode_file(open_table(path), tmp_path / "codes", Coding())
    np.save(path, rows)
    found = encode_file(open_table(path), tmp_path / "codes", Coding())
    assert fingerprint(found.folder) == fingerprint(encode_file(open_table(path), tmp_path / "again", Coding()).folder)

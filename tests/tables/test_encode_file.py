"""Tables coded from file to file: the same codes as in memory, the same bytes after a kill, and a block of memory."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import flyweight.tables.encode_file as module
from flyweight.errors import InputError
from flyweight.tables.coding import Coding, encode
from flyweight.tables.encode_file import code_rows, encode_file, fingerprint, read_coded_file
from flyweight.tables.table_file import open_table

DIM = 8
CODINGS = [Coding(bits=4), Coding(stages=2, bits=3), Coding(groups=4, bits=1)]


def values(rows: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, DIM, generator=torch.Generator().manual_seed(seed))


def saved(path: Path, rows: int = 5_000, seed: int = 0) -> Path:
    np.save(path, values(rows, seed).numpy())
    return path


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PART_ROWS", 1_024)
    monkeypatch.setattr(module, "BLOCK_ROWS", 512)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("coding", CODINGS, ids=str)
def test_codes_are_those_of_the_table_in_memory(tmp_path: Path, coding: Coding) -> None:
    found = encode_file(open_table(saved(tmp_path / "table.npy")), tmp_path / "coded", coding)
    wanted = encode(values(5_000), torch.ones(5_000), coding, torch.Generator().manual_seed(0))
    ids = torch.arange(5_000)
    assert torch.equal(found.band().codes, wanted.codes)
    assert torch.equal(found.band().decode(ids), wanted.decode(ids))
    assert found.bytes == wanted.bytes
    assert sorted(file.name for file in found.folder.iterdir()) == ["codebook.npy", "codes.bin", "coding.json"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_safetensors_of_every_float_are_read(tmp_path: Path, dtype: torch.dtype) -> None:
    table = values(300).to(dtype)
    save_file({"other": torch.zeros(3), "table": table}, tmp_path / "two.safetensors")
    opened = open_table(tmp_path / "two.safetensors", "table")
    assert torch.equal(opened.read(17, 212), table[17:212].float())
    assert torch.equal(opened.gather(torch.tensor([250, 3, 3])), table[[250, 3, 3]].float())
    with pytest.raises(InputError, match="holds other, table; name one of them"):
        open_table(tmp_path / "two.safetensors")


@pytest.mark.usefixtures("small_parts")
def test_weights_are_read_from_a_file_too(tmp_path: Path) -> None:
    felt = torch.linspace(0.0, 4.0, 5_000)
    np.save(tmp_path / "weights.npy", felt[:, None].numpy())
    table, weights = open_table(saved(tmp_path / "table.npy")), open_table(tmp_path / "weights.npy")
    found = encode_file(table, tmp_path / "coded", Coding(), weights=weights)
    wanted = encode(values(5_000), felt, Coding(), torch.Generator().manual_seed(0))
    assert torch.equal(found.band().codebook, wanted.codebook)


def test_two_processes_give_the_same_bytes(tmp_path: Path) -> None:
    table = open_table(saved(tmp_path / "table.npy", rows=module.PART_ROWS + 5_000))
    one = encode_file(table, tmp_path / "one", Coding())
    two = encode_file(table, tmp_path / "two", Coding(), workers=2)
    assert fingerprint(one.folder) == fingerprint(two.folder)


def run_slowly(table: Path, folder: Path) -> "subprocess.Popen[bytes]":
    """Code in a process of its own that waits before each block."""
    script = (
        "import sys, time\nfrom pathlib import Path\nimport flyweight.tables.encode_file as m\n"
        "from flyweight.tables.coding import Coding\nfrom flyweight.tables.table_file import open_table\n"
        "m.PART_ROWS, m.BLOCK_ROWS = 1024, 512\ncode = m.code_rows\n"
        "m.code_rows = lambda *given: (time.sleep(0.1), code(*given))[1]\n"
        "m.encode_file(open_table(Path(sys.argv[1])), Path(sys.argv[2]), Coding())\n"
    )
    return subprocess.Popen([sys.executable, "-c", script, str(table), str(folder)])


@pytest.mark.usefixtures("small_parts")
def test_killed_in_the_middle_it_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    table, folder = saved(tmp_path / "table.npy"), tmp_path / "coded"
    process = run_slowly(table, folder)
    until = time.monotonic() + 60
    while not list((folder / "parts").glob("*.codes")) and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = {file.name: file.stat().st_mtime_ns for file in (folder / "parts").glob("*.codes")}
    assert 0 < len(before) < 5
    with pytest.raises(InputError, match="holds no coded table"):
        read_coded_file(folder)
    coded: list[str] = []
    code_part = module._code_part
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_code_part", lambda *given: (coded.append(given[4]), code_part(*given))[1])
        found = encode_file(open_table(table), folder, Coding())
    assert len(coded) == 5 - len(before)
    whole = encode_file(open_table(table), tmp_path / "whole", Coding())
    assert fingerprint(found.folder) == fingerprint(whole.folder)


@pytest.mark.usefixtures("small_parts")
def test_a_folder_of_something_else_is_not_written_into(tmp_path: Path) -> None:
    table = open_table(saved(tmp_path / "table.npy"))
    encode_file(table, tmp_path / "coded", Coding())
    assert encode_file(table, tmp_path / "coded", Coding()).rows == 5_000  # done already
    with pytest.raises(InputError, match="the codes of another table, coding or seed"):
        encode_file(table, tmp_path / "coded", Coding(bits=2))
    for name in ("letter.txt", ".hidden"):
        (tmp_path / name[:3]).mkdir()
        (tmp_path / name[:3] / name).touch()
        with pytest.raises(InputError, match="is not empty"):
            encode_file(table, tmp_path / name[:3], Coding())
        assert [file.name for file in (tmp_path / name[:3]).iterdir()] == [name]


@pytest.mark.parametrize("coding", [Coding(bits=9), Coding(groups=0), Coding(groups=3), Coding(rounded=True)], ids=str)
def test_codings_that_no_file_can_hold_are_refused(tmp_path: Path, coding: Coding) -> None:
    with pytest.raises(InputError, match="Codes have 1 to 8 bits, in pieces that divide 8 columns"):
        encode_file(open_table(saved(tmp_path / "table.npy", rows=20)), tmp_path / "coded", coding)


def test_wrong_files_are_refused_with_the_reason(tmp_path: Path) -> None:
    path = saved(tmp_path / "table.npy")
    whole = path.read_bytes()
    (tmp_path / "short.npy").write_bytes(whole[:-4])
    (tmp_path / "noise.bin").write_bytes(os.urandom(100))
    (tmp_path / "empty.npy").touch()
    np.save(tmp_path / "column.npy", np.asfortranarray(values(9).numpy()))
    np.save(tmp_path / "flat.npy", np.zeros(9, np.float32))
    np.save(tmp_path / "whole.npy", np.zeros((9, 2), np.int64))
    said = {
        "short.npy": "is cut short: its header says",
        "noise.bin": "neither a NumPy nor a safetensors file",
        "empty.npy": "neither a NumPy nor a safetensors file",
        "column.npy": "lies column by column",
        "flat.npy": "an array of shape",
        "whole.npy": "is of int64; a table is float32 or float16",
        "nowhere.npy": "cannot be read: No such file",
    }
    for name, words in said.items():
        with pytest.raises(InputError, match=words):
            open_table(tmp_path / name)


@pytest.mark.usefixtures("small_parts")
def test_a_table_that_changes_or_holds_nan_is_refused_and_nothing_half_is_left(tmp_path: Path) -> None:
    table = open_table(saved(tmp_path / "table.npy"))
    saved(tmp_path / "table.npy", rows=6_000, seed=1)
    with pytest.raises(InputError, match="changed while it was read"):
        encode_file(table, tmp_path / "changed", Coding())
    rows = values(5_000)
    rows[4_321, 3] = float("nan")
    np.save(tmp_path / "nan.npy", rows.numpy())
    with pytest.raises(InputError, match=r"Row 4,321 of .* holds NaN or infinity"):
        encode_file(open_table(tmp_path / "nan.npy"), tmp_path / "nan", Coding())
    assert not list((tmp_path / "nan" / "parts").glob(".*"))


@pytest.mark.usefixtures("small_parts")
def test_a_full_disk_is_told_and_what_was_coded_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = open_table(saved(tmp_path / "table.npy"))
    real, left = module.pack, [3]

    def fills(codes: Tensor, bits: int) -> Tensor:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        return real(codes, bits)

    monkeypatch.setattr(module, "pack", fills)
    with pytest.raises(InputError, match=r"The disk is full.*run the same again to go on"):
        encode_file(table, tmp_path / "coded", Coding())
    assert len(list((tmp_path / "coded" / "parts").iterdir())) == 1
    monkeypatch.setattr(module, "pack", real)
    assert encode_file(table, tmp_path / "coded", Coding()).rows == 5_000
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10}))
    with pytest.raises(InputError, match=r"The codes take .* bytes more and .* has 10 free"):
        encode_file(table, tmp_path / "other", Coding())


def test_memory_is_that_of_a_block(tmp_path: Path) -> None:
    """A table of 256 MB, in a process whose peak is read from the kernel."""
    rows = 4_000_000
    table = np.lib.format.open_memmap(tmp_path / "table.npy", "w+", np.float32, (rows, 16))
    generator = np.random.default_rng(0)
    for start in range(0, rows, 500_000):
        table[start : start + 500_000] = generator.standard_normal((500_000, 16), dtype=np.float32)
    del table
    script = (
        "import resource, sys\nfrom pathlib import Path\nimport torch\ntorch.set_num_threads(1)\n"
        "from flyweight.tables.coding import Coding, encode\nfrom flyweight.tables.encode_file import encode_file\n"
        "from flyweight.tables.table_file import open_table\n"
        "encode(torch.randn(40_000, 16), torch.ones(40_000), Coding(), torch.Generator())\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\nbefore = peak()\n"
        "encode_file(open_table(Path(sys.argv[1])), Path(sys.argv[2]), Coding())\nprint(peak() - before)\n"
    )
    words = [sys.executable, "-c", script, str(tmp_path / "table.npy"), str(tmp_path / "coded")]
    grown = int(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    assert grown < 64 * 1024  # KiB; the table has 250,000


def test_codes_pick_the_nearest_codeword_stage_by_stage() -> None:
    codebook = torch.tensor([[[[0.0], [10.0]]], [[[0.0], [1.0]]]])  # (2 stages, 1 group, 2 codewords, 1)
    assert code_rows(torch.tensor([[0.9], [10.2], [11.3]]), codebook).tolist() == [[0, 1], [1, 0], [1, 1]]


def test_one_part_that_fails_stops_those_that_have_not_begun(tmp_path: Path) -> None:
    parts = 12
    rows = torch.zeros(parts * module.PART_ROWS, 1)
    rows[5] = float("nan")
    np.save(tmp_path / "table.npy", rows.numpy())
    with pytest.raises(InputError, match="Row 5 of"):
        encode_file(open_table(tmp_path / "table.npy"), tmp_path / "coded", Coding(bits=1), workers=2, seed=3)
    assert len(list((tmp_path / "coded" / "parts").glob("*.codes"))) < parts - 1


HOSTILE = {
    "place.safetensors": ({"dtype": "F32", "shape": [25, 4], "data_offsets": [0, 100]}, "takes 400 bytes by its shape"),
    "early.safetensors": ({"dtype": "F32", "shape": [5, 4], "data_offsets": [-8, 72]}, "neither"),
    "words.safetensors": ({"dtype": "F32", "shape": ["5", 4], "data_offsets": [0, 80]}, "neither"),
    "kinds.safetensors": ({"dtype": ["F32"], "shape": [5, 4], "data_offsets": [0, 80]}, "a table is float32"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_header_that_lies_is_refused(tmp_path: Path, name: str) -> None:
    header, said = HOSTILE[name]
    text = json.dumps({"a": header}).encode()
    (tmp_path / name).write_bytes(len(text).to_bytes(8, "little") + text + bytes(400))
    with pytest.raises(InputError, match=said):
        open_table(tmp_path / name)


@pytest.mark.parametrize("header", ["((((", "'''", "{'descr': '<f4', 'shape': (5, 4), "])
def test_a_numpy_header_that_is_no_literal_is_refused(tmp_path: Path, header: str) -> None:
    path = tmp_path / "cut.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + bytes(400))
    with pytest.raises(InputError, match="is no NumPy file"):
        open_table(path)


def test_a_weight_below_zero_names_its_row(tmp_path: Path) -> None:
    table = open_table(saved(tmp_path / "table.npy", 50))
    weights = np.ones((50, 1), np.float32)
    weights[7] = -1.0
    np.save(tmp_path / "weights.npy", weights)
    with pytest.raises(InputError, match=r"Row 7 of .*weights\.npy weighs less than 0"):
        encode_file(table, tmp_path / "codes", Coding(bits=2), weights=open_table(tmp_path / "weights.npy"))

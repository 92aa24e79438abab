"""Codes that are unpacked when a file is loaded give the rows of packed ones, and cost nothing at a call."""

import random
from collections.abc import Sequence
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_stacked_tables import DIM, ONE_GROUP, Fields, ids_for, table, wanted
from torch import Tensor, nn

from flyweight.engines.export import export_onnx
from flyweight.engines.registry import find_engine
from flyweight.rewrite import unpacked_entries
from flyweight.rewrite.packed_entries import PackedEntries
from flyweight.rewrite.stacked_tables import Asked, StackedTables
from flyweight.rewrite.unpacked_entries import UnpackedEntries
from flyweight.tables.coding import Coding


def packed(tables: Sequence[nn.Module]) -> StackedTables:
    """Tables stacked where not a byte of memory is given for unpacking."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unpacked_entries, "UNPACKED_BYTES", 0)
        stacked = StackedTables([Asked(one) for one in tables])
    assert isinstance(stacked.reader, PackedEntries)
    return stacked


@given(
    codings=st.lists(st.lists(st.sampled_from(ONE_GROUP), min_size=1, max_size=4), min_size=1, max_size=5),
    last=st.integers(1, 64),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_both_readers_find_every_row(codings: list[list[Coding]], last: int, seed: int) -> None:
    tables = [table(own, seed + place, last) for place, own in enumerate(codings)]
    most = max(one.rows for one in tables)
    ids = [torch.arange(most) % one.rows for one in tables]
    assert torch.equal(packed(tables)(*ids), wanted(tables, ids))
    assert torch.equal(StackedTables([Asked(one) for one in tables])(*ids), wanted(tables, ids))


def mixed(count: int) -> list[nn.Module]:
    """Tables with bands of every width, 64 rows a band."""
    own = random.Random(1)
    return [table(own.sample(ONE_GROUP[:12], 4), place) for place in range(count)]


def exported(stacked: StackedTables, ids: Sequence[Tensor], folder: Path) -> Path:
    return export_onnx(Fields(stacked), {f"field_{at}": its for at, its in enumerate(ids)}, folder).path


def operators_run(path: Path, folder: Path) -> int:
    """How many operators are left for each call once ONNX Runtime has loaded a file."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "loaded.onnx")
    onnxruntime.InferenceSession(str(path), options)
    return len(onnx.load(options.optimized_model_filepath, load_external_data=False).graph.node)


def test_the_unpacking_is_done_when_the_file_is_loaded_and_the_file_stays_packed(tmp_path: Path) -> None:
    tables = mixed(14)
    ids = ids_for(tables, 50)
    small = exported(packed(tables), ids, tmp_path / "packed")
    quick = exported(StackedTables([Asked(one) for one in tables]), ids, tmp_path / "unpacked")
    assert operators_run(quick, tmp_path) <= 14
    assert operators_run(small, tmp_path) > 40
    sizes = [sum(one.stat().st_size for one in path.parent.iterdir()) for path in (quick, small)]
    assert sizes[0] < sizes[1] + 2_500 * 11  # the operators that unpack codes of 11 widths


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino", "torch"])
def test_every_engine_reads_the_same_rows(engine: str, tmp_path: Path) -> None:
    found = find_engine(engine)
    if found.available() is not None:
        pytest.skip(str(found.available()))
    tables = mixed(9)
    ids = ids_for(tables, 60)
    path = exported(StackedTables([Asked(one) for one in tables]), ids, tmp_path)
    got = found.prepare(path, 1).run({f"field_{at}": its.numpy() for at, its in enumerate(ids)})
    assert torch.equal(torch.from_numpy(got), wanted(tables, ids).flatten(-2))


def test_tables_beyond_the_limit_stay_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    tables = [table([Coding(bits=4)], place) for place in range(2)]  # 40 rows each, two bytes a row
    monkeypatch.setattr(unpacked_entries, "UNPACKED_BYTES", 159)
    assert isinstance(StackedTables([Asked(one) for one in tables]).reader, PackedEntries)
    monkeypatch.setattr(unpacked_entries, "UNPACKED_BYTES", 160)
    assert isinstance(StackedTables([Asked(one) for one in tables]).reader, UnpackedEntries)


def test_stored_bytes_are_those_of_the_codes() -> None:
    tables = [table([Coding(bits=3), Coding(bits=1)], place, last=64) for place in range(3)]
    reader = StackedTables([Asked(one) for one in tables]).reader
    assert isinstance(reader, UnpackedEntries)
    stored = [value.numel() for name, value in reader.named_buffers() if name.startswith("codes_")]
    assert sum(stored) == 3 * (64 * 3 + 64 * 1) // 8
    assert DIM == 8

"""Tables in mapped files: coded like the same tensor in memory, and never copied whole to memory."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from flyweight.engines import graph_file
from flyweight.engines.export import export_onnx
from flyweight.errors import ExportError
from flyweight.planning.widen import widen_weights
from flyweight.tables.coded_table import CodedTable
from flyweight.tables.encode_tables import EncodeTables
from flyweight.tables.mapped import WideEmbedding, is_mapped
from flyweight.task.field import Field
from flyweight.task.finite import BLOCK, count_not_finite
from flyweight.task.task import Task

ROWS, DIM = 6_000, 8


class Dot(nn.Module):
    """A user's vector times an item's, the item's table given."""

    def __init__(self, item: Tensor) -> None:
        super().__init__()
        self.item = nn.Embedding.from_pretrained(item, padding_idx=3)
        self.user = nn.Embedding(50, item.shape[1]).to(item.dtype)

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        return (self.user(user) * self.item(item)).sum(-1).float()


class Tied(nn.Module):
    """Scores of all items, made with the table that the item itself is looked up in."""

    def __init__(self, item: Tensor) -> None:
        super().__init__()
        self.item = nn.Embedding.from_pretrained(item)
        self.scores = nn.Linear(item.shape[1], len(item), bias=False)
        self.scores.weight = self.item.weight

    def forward(self, item: Tensor) -> Tensor:
        return self.scores(self.item(item))


def task_of(item: Tensor) -> Task:
    torch.manual_seed(0)
    model, rows = Dot(item), len(item)

    def split(seed: int) -> list[tuple[dict[str, Tensor], Tensor]]:
        drawn = torch.Generator().manual_seed(seed)
        user, target = torch.randint(50, (600,), generator=drawn), (torch.rand(600, generator=drawn) < 0.4).float()
        item = (rows * torch.rand(600, generator=drawn) ** 3).long()
        return [({"user": user[at : at + 200], "item": item[at : at + 200]}, target[at : at + 200]) for at in (0, 200)]

    inputs = {"user": Field(role="request", rows=50), "item": Field(rows=rows)}
    return Task(model, inputs, split(1), split(2), split(3), metric="auc")


def rows_of(dtype: str) -> "np.ndarray[Any, Any]":
    return np.random.default_rng(0).standard_normal((ROWS, DIM), dtype=np.float32).astype(dtype)


def mapped_as(kind: str, folder: Path, dtype: str) -> Tensor:
    rows = rows_of(dtype)
    if kind == "npy":
        np.save(folder / "table.npy", rows)
        return torch.from_numpy(np.load(folder / "table.npy", mmap_mode="c"))
    save_file({"table": torch.from_numpy(rows)}, folder / "table.safetensors")
    return load_file(folder / "table.safetensors")["table"]


@pytest.mark.parametrize("kind", ["npy", "safetensors"])
def test_what_lies_in_a_mapped_file_is_known(tmp_path: Path, kind: str) -> None:
    assert is_mapped(mapped_as(kind, tmp_path, "float32"))
    assert not is_mapped(torch.from_numpy(rows_of("float32")))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("kind", ["npy", "safetensors"])
def test_a_mapped_table_has_the_codes_of_the_same_tensor_in_memory(tmp_path: Path, kind: str, dtype: str) -> None:
    coded = []
    for item in (mapped_as(kind, tmp_path, dtype), torch.from_numpy(rows_of(dtype))):
        task, _ = widen_weights(task_of(item))
        model = EncodeTables(bits_per_row=3).apply(task).model
        (table,) = (one for one in model.modules() if isinstance(one, CodedTable) and one.rows == ROWS)
        coded.append((table, task.scores("validation", model).outputs))
    (one, scores), (other, wanted) = coded
    assert torch.equal(one.codes, other.codes)
    assert torch.equal(one.codebook, other.codebook)
    assert one.dtype == other.dtype == torch.float32
    assert np.array_equal(scores, wanted)


def test_a_mapped_table_of_halves_stays_where_it_is_and_rows_are_widened(tmp_path: Path) -> None:
    item = mapped_as("npy", tmp_path, "float16")
    task, changes = widen_weights(task_of(item))
    module = task.model.get_submodule("item")
    assert isinstance(module, WideEmbedding)
    assert module.weight.data_ptr() == item.data_ptr()
    ids = torch.tensor([[0, 3], [ROWS - 1, 7]])
    assert torch.equal(module(ids), item.float()[ids])
    assert changes[0].done[0]["looked_up"] == ["item"]
    assert task_of(item).model.get_submodule("item").weight.dtype == torch.float16  # the user's own is left alone


def test_a_mapped_table_of_halves_that_a_layer_shares_is_widened_whole(tmp_path: Path) -> None:
    model = Tied(mapped_as("npy", tmp_path, "float16"))
    inputs = {"item": Field(rows=ROWS)}
    split = [({"item": torch.arange(8)}, torch.arange(8))]
    task, _ = widen_weights(Task(model, inputs, split, split, split, metric="accuracy"))
    assert task.model.get_submodule("item").weight.dtype == torch.float32


def test_an_export_that_the_disk_has_no_room_for_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = task_of(torch.from_numpy(rows_of("float32")))
    inputs = next(task.batches("validation"))[0]
    monkeypatch.setattr(graph_file.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10}))
    with pytest.raises(ExportError, match=r"take 193,600 bytes as a file, and .* has 10 free.*set TMPDIR"):
        export_onnx(task.model, inputs, tmp_path)


@pytest.mark.parametrize("shape", [(), (3,), (BLOCK // 4 + 1, 8), (2, BLOCK + 1)])
def test_numbers_that_are_not_finite_are_counted_whatever_the_shape(shape: tuple[int, ...]) -> None:
    weight = torch.full(shape, 3e38)  # sums overflow; the numbers are finite
    assert count_not_finite(weight) == 0
    weight.view(-1)[-1] = float("nan")
    assert count_not_finite(weight) == 1
    assert count_not_finite(torch.ones(shape, dtype=torch.int64)) == 0


#: Codes a mapped table, exports the model before and after, runs both files; prints the table's bytes.
SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
import numpy as np, torch
torch.set_num_threads(1)
from flyweight.engines.onnx_runtime import OnnxRuntime
from flyweight.engines.export import export_onnx
from flyweight.planning.requests import as_arrays
from flyweight.planning.widen import widen_weights
from flyweight.tables.encode_tables import EncodeTables
from test_mapped_tables import task_of
item = torch.from_numpy(np.load(sys.argv[1], mmap_mode="c"))
task, _ = widen_weights(task_of(item))
inputs = next(task.batches("validation"))[0]
for name, model in (("before", task.model), ("after", EncodeTables(bits_per_row=2).apply(task).model)):
    path = export_onnx(model, inputs, Path(sys.argv[2]), name=name).path
    engine = OnnxRuntime().prepare(path, 1)
    engine.run(as_arrays(inputs))
    engine.close()
print(item.numel() * item.element_size())
"""


def written(path: Path, rows: int, dim: int, dtype: str) -> Path:
    table = np.lib.format.open_memmap(path, "w+", dtype, (rows, dim))
    drawn = np.random.default_rng(0)
    for start in range(0, rows, 100_000):
        table[start : start + 100_000] = drawn.standard_normal((min(100_000, rows - start), dim), dtype=np.float32)
    return path


def anonymous_peak(words: list[str]) -> int:
    """Return the most bytes of its own that a process ever had; pages of mapped files, which can be dropped, aside."""
    process, most = subprocess.Popen(words, stdout=subprocess.PIPE), 0
    while process.poll() is None:
        told = Path(f"/proc/{process.pid}/status").read_text()
        lines = [line.split() for line in told.splitlines() if line.startswith("RssAnon")]
        most = max(most, 1024 * int(lines[0][1]) if lines else 0)
        time.sleep(0.002)
    assert process.returncode == 0
    return most


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
@pytest.mark.parametrize("dtype", ["float32", pytest.param("float16", marks=pytest.mark.slow)])
def test_a_mapped_table_is_never_copied_whole_to_memory(tmp_path: Path, dtype: str) -> None:
    """Against a table of one band: the growth is far from the table's bytes, in which each copy would come."""
    peaks = []
    rows, dim = (4 * 262_144, 32) if dtype == "float32" else (12 * 262_144, 64)
    for many in (262_144, rows):
        (tmp_path / str(many)).mkdir()
        table = written(tmp_path / f"{many}.npy", many, dim, dtype)
        words = [sys.executable, "-c", SCRIPT, str(table), str(tmp_path / str(many)), str(Path(__file__).parent)]
        peaks.append(anonymous_peak(words))
    size = rows * 128  # 134 MB, 403 MB
    assert peaks[1] - peaks[0] < 0.5 * size, [f"{peak / 1e6:,.0f} MB" for peak in peaks]


#: The whole of it: weighed, coded, exported, raced in every engine, certified and saved.
WHOLE = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
import numpy as np, torch
torch.set_num_threads(1)
import flyweight as fw
from test_mapped_tables import task_of
task = task_of(torch.from_numpy(np.load(sys.argv[1], mmap_mode="c")))
fw.compress(task, steps=[fw.EncodeTables(bits_per_row=2)]).save(Path(sys.argv[2], "bundle.fly"))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_a_mapped_table_is_compressed_measured_and_saved_without_a_copy(tmp_path: Path) -> None:
    peaks = []
    for many in (262_144, 8 * 262_144):
        (tmp_path / str(many)).mkdir()
        table = written(tmp_path / f"{many}.npy", many, 50, "float32")
        words = [sys.executable, "-c", WHOLE, str(table), str(tmp_path / str(many)), str(Path(__file__).parent)]
        peaks.append(anonymous_peak(words))
    size = 8 * 262_144 * 200  # 419 MB
    assert peaks[1] - peaks[0] < 0.25 * size, [f"{peak / 1e6:,.0f} MB" for peak in peaks]

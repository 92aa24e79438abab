"""Time by operator, from the engines' own profilers: every operator that runs is there, the file is left as it was."""

import hashlib
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from flyweight.engines.executed import executed_operators
from flyweight.engines.export import export_onnx
from flyweight.engines.node_owners import node_owners
from flyweight.engines.operator_times import time_operators, with_modules
from flyweight.engines.registry import ENGINES
from flyweight.errors import EngineError, InputError

EACH = pytest.mark.parametrize("engine", list(ENGINES))
ROWS, WIDE = 64, 256


class Towers(nn.Module):
    """A table, a large layer and a small one."""

    def __init__(self) -> None:
        super().__init__()
        self.items = nn.Embedding(1_000, 16)
        self.layers = nn.ModuleList([nn.Linear(16, WIDE), nn.Linear(WIDE, WIDE), nn.Linear(WIDE, 1)])

    def forward(self, item: torch.Tensor) -> torch.Tensor:
        x = self.items(item)
        for layer in self.layers[:-1]:
            x = torch.relu(layer(x))
        return self.layers[-1](x).squeeze(1)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return Towers().eval()


@pytest.fixture(scope="module")
def path(model: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_onnx(model, {"item": torch.arange(ROWS)}, tmp_path_factory.mktemp("towers")).path


@pytest.fixture(scope="module")
def request_of_rows() -> dict[str, np.ndarray]:
    return {"item": np.arange(ROWS) * 7 % 1_000}


@EACH
def test_what_runs_is_what_is_timed(path: Path, request_of_rows, engine: str) -> None:
    times = time_operators(path, request_of_rows, engine, threads=1, seconds=0.1)
    runs = {row.operator: row.count for row in executed_operators(path, engine)}
    for kind, (count, ms) in times.by_kind().items():
        assert count <= runs[kind], kind  # those below a microsecond may not be seen
        assert ms >= 0
    assert times.ms == pytest.approx(sum(times.by_purpose().values()))
    assert times.calls >= 5


@EACH
def test_the_large_layer_takes_the_most(model: nn.Module, path: Path, request_of_rows, engine: str) -> None:
    owners = node_owners(path, dict(model.named_modules()))
    times = with_modules(time_operators(path, request_of_rows, engine, threads=1, seconds=0.2), owners)
    by_module = times.by_module()
    assert max(by_module, key=lambda name: by_module[name]) == "layers.1"
    assert times.by_purpose()["products"] > times.by_purpose()["lookups"]


@EACH
def test_the_file_stays_and_the_profilers_files_go(
    path: Path, request_of_rows, engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    before = {file: hashlib.sha256(file.read_bytes()).hexdigest() for file in path.parent.iterdir()}
    time_operators(path, request_of_rows, engine, threads=1, seconds=0.05)
    assert {file: hashlib.sha256(file.read_bytes()).hexdigest() for file in path.parent.iterdir()} == before
    assert list(tmp_path.iterdir()) == []


def test_a_call_that_fails_leaves_no_file(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(EngineError, match="onnxruntime failed"):
        time_operators(path, {"item": np.array([5_000])}, "onnxruntime")  # the table has 1,000 rows
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_timed_is_refused_in_words(path: Path, request_of_rows) -> None:
    with pytest.raises(EngineError, match="torch has no profiler of operators here"):
        time_operators(path, request_of_rows, "torch")
    with pytest.raises(InputError, match="seen 1 and 0"):
        time_operators(path, request_of_rows, "onnxruntime", seconds=0)
    with pytest.raises(InputError, match="lacks input 'item'"):
        time_operators(path, {}, "onnxruntime")

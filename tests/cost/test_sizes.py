"""Bytes of modules and of files."""

from pathlib import Path

import pytest
import torch
from torch import nn

from flyweight.cost.sizes import ModuleSize, bytes_on_disk, model_bytes, module_sizes
from flyweight.errors import InputError


class Tied(nn.Module):
    """An input and an output embedding that share one matrix, and one that shares its transpose."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Embedding(10, 4)
        self.leave = nn.Linear(4, 10, bias=False)
        self.leave.weight = self.enter.weight
        self.register_buffer("turned", self.enter.weight.detach().t())


def test_linear_holds_weights_and_bias() -> None:
    assert module_sizes(nn.Linear(3, 2)) == (ModuleSize("", "Linear", "float32", (3 * 2 + 2) * 4, 2),)


def test_tied_weights_count_once() -> None:
    assert model_bytes(Tied()) == 10 * 4 * 4


def test_dtypes_of_one_module_stand_apart() -> None:
    norm = nn.BatchNorm1d(5)  # 4 float32 vectors of 5 and one int64 counter
    assert [(row.dtype, row.bytes, row.tensors) for row in module_sizes(norm)] == [("float32", 80, 4), ("int64", 8, 1)]


def test_modules_are_named_in_their_order() -> None:
    model = nn.Sequential(nn.Embedding(7, 2), nn.ReLU(), nn.Linear(2, 1, bias=False, dtype=torch.float16))
    assert [(row.module, row.dtype, row.bytes) for row in module_sizes(model)] == [
        ("0", "float32", 56),
        ("2", "float16", 4),
    ]


def test_module_without_memory_counts_its_shape() -> None:
    assert model_bytes(nn.Sequential(nn.Linear(3, 2, device="meta"), nn.Linear(3, 2, device="meta"))) == 64


def test_files_and_folders_add_up(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "a.bin").write_bytes(bytes(100))
    (tmp_path / "b.bin").write_bytes(bytes(7))
    (tmp_path / "model" / "link").symlink_to(tmp_path / "b.bin")
    assert bytes_on_disk(tmp_path / "model", tmp_path / "b.bin") == 107


def test_missing_path_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.onnx does not exist"):
        bytes_on_disk(tmp_path / "absent.onnx")

"""Places in tables that are worked out in floats are not for engines that round every float."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from flyweight.engines.export import export_onnx
from flyweight.engines.openvino import OpenVino
from flyweight.engines.rounded_indices import rounded_index


class Buckets(nn.Module):
    """A price's bucket, found from the price itself or from a table of constants."""

    def __init__(self, *, of_input: bool) -> None:
        super().__init__()
        self.of_input = of_input
        self.table = nn.Embedding(1000, 4)
        self.register_buffer("edges", torch.linspace(0, 999, 1000))

    def forward(self, price: Tensor, item: Tensor) -> Tensor:
        bucket = (price * 9.99).long() if self.of_input else (self.edges * 0.5).long()[item]
        return self.table(bucket).sum(-1) * price


def exported(folder: Path, *, of_input: bool) -> Path:
    batch = {"price": torch.rand(6) * 100, "item": torch.arange(6)}
    return export_onnx(Buckets(of_input=of_input).eval(), batch, folder).path


def test_index_computed_from_an_input_is_found_and_refused_in_bfloat16(tmp_path: Path) -> None:
    path = exported(tmp_path, of_input=True)
    assert rounded_index(path) is not None
    pytest.importorskip("openvino")
    assert "would round the floats that" in (OpenVino("bf16").cannot_run(path) or "")
    assert OpenVino().cannot_run(path) is None


def test_index_made_of_constants_is_no_reason(tmp_path: Path) -> None:
    assert rounded_index(exported(tmp_path, of_input=False)) is None

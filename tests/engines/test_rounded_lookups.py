"""Rows that a layer in integers alone reads are looked up rounded: the same scores, and no rounding in a call."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

import flyweight.engines.export as export
from flyweight.engines.export import export_onnx
from flyweight.engines.registry import find_engine
from flyweight.graph.trace import trace
from flyweight.quantization.build import Mending, build
from flyweight.quantization.insert import Rounding
from flyweight.quantization.sites import find_sites
from small_tasks import seeded

ROWS, DIM = 300, 16


class Looked(nn.Module):
    """One table, a layer on its rows, and maybe something else that reads them."""

    def __init__(self, *, shared: bool = False) -> None:
        super().__init__()
        self.table, self.layer = nn.Embedding(ROWS, DIM), nn.Linear(3 * DIM, 4)
        self.shared = shared

    def forward(self, items: Tensor) -> Tensor:
        rows = self.table(items).flatten(1)
        out = self.layer(rows)
        return out.sum(1) + rows.sum(1) if self.shared else out.sum(1)


@pytest.fixture
def items() -> dict[str, Tensor]:
    return {"items": torch.randint(0, ROWS, (50, 3), generator=torch.Generator().manual_seed(1))}


def exported(items: dict[str, Tensor], folder: Path, *, shared: bool = False) -> Path:
    with torch.no_grad():
        traced = trace(seeded(lambda: Looked(shared=shared)).eval(), items)
        layers = {site.name: "int8" for site in find_sites(traced)[0]}
        model = build(traced, layers, Rounding(), Mending(), [items]).model  # type: ignore[arg-type]
        return export_onnx(model, items, folder).path


def roundings_of_rows(path: Path) -> list[str]:
    """Return what feeds the roundings of a file that begin with what a lookup gives."""
    graph = onnx.load(path).graph
    made = {name: node for node in graph.node for name in node.output}
    return [
        node.name
        for node in graph.node
        if node.op_type == "QuantizeLinear" and made.get(node.input[0]) is not None
        and made[node.input[0]].op_type in ("Gather", "Reshape")
    ]


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_rows_are_rounded_before_they_are_looked_up(
    items: dict[str, Tensor], tmp_path: Path, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = exported(items, tmp_path / "early")
    monkeypatch.setattr(export, "look_up_rounded", lambda graph: None)
    late = exported(items, tmp_path / "late")
    assert roundings_of_rows(late)
    assert not roundings_of_rows(path)
    given = {"items": items["items"].numpy()}
    one, other = (find_engine(engine).prepare(file, 1).run(given) for file in (path, late))
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
    onnx.checker.check_model(str(path), full_check=True)


def test_rows_that_others_read_too_stay_as_they_are(items: dict[str, Tensor], tmp_path: Path) -> None:
    assert roundings_of_rows(exported(items, tmp_path, shared=True))

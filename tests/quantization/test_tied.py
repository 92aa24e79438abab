"""A tied table is held once, in integers, and looked up by the row."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import flyweight as fw
from flyweight.engines.export import export_onnx
from flyweight.engines.registry import ENGINES, find_engine
from flyweight.tables.sizes import table_bytes
from flyweight.task.scores import evaluating

ITEMS, DIM = 400, 16


class Next(nn.Module):
    """The next item by the mean of the last five, scored with the table that they were looked up in."""

    def __init__(self) -> None:
        super().__init__()
        self.items = nn.Embedding(ITEMS, DIM)
        self.mix = nn.Linear(DIM, DIM)

    def forward(self, history: Tensor) -> Tensor:
        return F.linear(self.mix(self.items(history).mean(1)), self.items.weight)


@pytest.fixture(scope="module")
def change() -> tuple[fw.Task, fw.Change]:
    torch.manual_seed(0)
    rows = [({"history": torch.randint(0, ITEMS, (256, 5))}, torch.randint(0, ITEMS, (256,))) for _ in range(2)]
    task = fw.Task(Next(), {"history": fw.Field(rows=ITEMS)}, rows, rows, rows, metric="recall@10")
    return task, fw.Quantize(mixed=False, force=True).apply(task)


def test_the_file_holds_the_table_once_in_integers(change: tuple[fw.Task, fw.Change], tmp_path: Path) -> None:
    exported = export_onnx(change[1].model, {"history": torch.randint(0, ITEMS, (7, 5))}, tmp_path)
    graph = onnx.load(exported.path).graph
    sizes = Counter({tensor.data_type: int(np.prod(tensor.dims)) for tensor in graph.initializer})
    tables = [tensor for tensor in graph.initializer if sorted(tensor.dims) == [DIM, ITEMS]]
    assert all(tensor.data_type == onnx.TensorProto.INT8 for tensor in tables)
    assert len(tables) == 1
    assert table_bytes(change[1].model) == ITEMS * DIM + 4 * ITEMS
    assert table_bytes(change[0].model) == 4 * ITEMS * DIM
    assert sizes[onnx.TensorProto.FLOAT] < ITEMS * DIM


@pytest.mark.parametrize("engine", list(ENGINES))
def test_engines_give_the_scores_of_the_rounded_model(
    change: tuple[fw.Task, fw.Change], engine: str, tmp_path: Path
) -> None:
    model, history = change[1].model, torch.randint(0, ITEMS, (64, 5))
    exported = export_onnx(model, {"history": history}, tmp_path)
    with evaluating(model), torch.no_grad():
        wanted = model(history=history).numpy()
    scores = find_engine(engine).prepare(exported.path, 1).run({"history": history.numpy()})
    step = np.abs(wanted).max() / 127
    assert np.abs(scores - wanted).max() < 2 * step


def test_lookups_read_integers_by_the_row(change: tuple[fw.Task, fw.Change], tmp_path: Path) -> None:
    exported = export_onnx(change[1].model, {"history": torch.randint(0, ITEMS, (7, 5))}, tmp_path)
    graph = onnx.load(exported.path).graph
    made = {name: node for node in graph.node for name in node.output}
    lookups = [node for node in graph.node if node.op_type == "Gather"]
    assert len(lookups) == 2
    assert all(node.input[0] not in made for node in lookups)

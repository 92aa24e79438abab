"""Layers before and after, read off the models themselves."""

import torch
from torch import Tensor, nn

from flyweight.graph.trace import trace
from flyweight.planning.layers import layer_rows
from flyweight.task.change import Change


class Net(nn.Module):
    def __init__(self, hidden: int, *, gate: bool = True) -> None:
        super().__init__()
        self.items = nn.Embedding(9, 4)
        self.first = nn.Linear(4, hidden)
        self.gate = nn.Linear(hidden, hidden) if gate else None
        self.last = nn.Linear(hidden, 2)

    def forward(self, item: Tensor) -> Tensor:
        x = self.first(self.items(item))
        return self.last(x if self.gate is None else x * self.gate(x))


def test_a_layer_that_was_cut_says_both_shapes_whatever_wraps_it() -> None:
    traced = trace(Net(8), {"item": torch.arange(5)})
    rows = layer_rows(Net(16), traced, ())
    assert [(row.name, row.before, row.after) for row in rows] == [
        ("first.weight", "16 x 4 float32", "8 x 4 float32"),
        ("gate.weight", "16 x 16 float32", "8 x 8 float32"),
        ("last.weight", "2 x 16 float32", "2 x 8 float32"),
    ]
    assert [(row.bytes_before, row.bytes_after) for row in rows] == [(256, 128), (1024, 256), (128, 64)]


def test_a_layer_that_is_gone_is_said_to_be_taken_out() -> None:
    rows = layer_rows(Net(16), Net(16, gate=False), ())
    assert [(row.name, row.after, row.bytes_after) for row in rows] == [("gate.weight", "taken out", 0)]


def test_a_rounded_layer_says_what_the_file_holds() -> None:
    done = {"what": "layer", "name": "gate", "from": "float32", "to": "int8", "bytes_before": 1024, "bytes_after": 320}
    rows = layer_rows(Net(16), Net(16), (Change("quantize", nn.Identity(), done=(done,)),))
    assert [(row.name, row.after, row.bytes_after) for row in rows] == [("gate.weight", "16 x 16 int8", 320)]


def test_what_is_as_it_was_is_not_listed() -> None:
    assert layer_rows(Net(16), Net(16), ()) == ()

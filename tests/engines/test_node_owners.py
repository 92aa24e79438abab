"""Which module each node of an exported file works for."""

from pathlib import Path

import torch
from torch import nn

from flyweight.engines.export import export_onnx
from flyweight.engines.node_owners import node_owners
from flyweight.graph.trace import trace


def owners_of(model: nn.Module, inputs: dict[str, torch.Tensor], folder: Path) -> dict[str, str]:
    torch.manual_seed(0)
    path = export_onnx(model.eval(), inputs, folder).path
    return node_owners(path, dict(model.named_modules()))


class Ranker(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tables = nn.ModuleDict({name: nn.Embedding(50, 4) for name in ("user", "item")})
        self.mlp = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1))

    def forward(self, user: torch.Tensor, item: torch.Tensor) -> torch.Tensor:
        rows = torch.cat([self.tables["user"](user), self.tables["item"](item)], 1)
        return (self.mlp(rows) * rows).sum(1)


BATCH = {"user": torch.arange(6), "item": torch.arange(6)}


def test_layers_tables_and_what_stands_around_several(tmp_path) -> None:
    owners = owners_of(Ranker(), BATCH, tmp_path)
    assert owners["node_embedding"] == "tables.user"
    assert owners["node_embedding_1"] == "tables.item"
    assert owners["node_cat"] == "tables"
    assert owners["node_linear"] == owners["node_relu"] == "mlp.0"
    assert owners["node_linear_1"] == "mlp.2"
    assert not [name for name in owners if "mul" in name or "sum" in name]  # they join a table and a layer


def test_a_traced_models_modules_keep_their_names(tmp_path) -> None:
    torch.manual_seed(0)
    traced = trace(Ranker().eval(), BATCH)
    path = export_onnx(traced, BATCH, tmp_path).path
    assert {"tables.user", "tables.item", "mlp.0", "mlp.2"} <= set(node_owners(path, ["mlp.0"]).values())


def test_attention_is_the_attentions(tmp_path) -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query, self.key = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.softmax(self.query(x) @ self.key(x).transpose(1, 2), -1)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.items, self.attention = nn.Embedding(30, 8), Block()
            self.head = nn.Linear(5, 1)

        def forward(self, history: torch.Tensor) -> torch.Tensor:
            return self.head(self.attention(self.items(history))).mean((1, 2))

    owners = owners_of(Model(), {"history": torch.arange(10).view(2, 5)}, tmp_path)
    assert {"attention.query", "attention.key", "attention", "head", "items"} <= set(owners.values())
    assert next(owner for name, owner in owners.items() if "oftmax" in name) == "attention"


def test_weights_of_the_model_itself_are_its_own(tmp_path) -> None:
    assert set(owners_of(nn.Linear(3, 1), {"input": torch.rand(4, 3)}, tmp_path).values()) == {""}

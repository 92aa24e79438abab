"""Multiply-accumulates against formulas worked out by hand."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flyweight.cost.macs import count_macs


class Attention(nn.Module):
    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(query, key, key)


class Ranker(nn.Module):
    """Called by the names of its inputs, as a task calls it."""

    def __init__(self) -> None:
        super().__init__()
        self.user = nn.Embedding(10, 8)
        self.item = nn.Embedding(20, 8)
        self.tower = nn.Sequential(nn.Linear(17, 32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 1))

    def forward(self, user_id: Tensor, item_id: Tensor, price: Tensor) -> Tensor:
        joined = torch.cat([self.user(user_id), self.item(item_id), price[:, None]], dim=1)
        return self.tower(joined)


def ranker_inputs(rows: int) -> dict[str, Tensor]:
    ids = torch.zeros(rows, dtype=torch.long)
    return {"user_id": ids, "item_id": ids, "price": torch.ones(rows)}


CASES = [
    ("linear", nn.Linear(100, 10), {"input": torch.ones(1, 100)}, 100 * 10),
    ("linear on a sequence", nn.Linear(8, 4), {"input": torch.ones(1, 6, 8)}, 6 * 8 * 4),
    ("conv2d", nn.Conv2d(3, 16, 3, padding=1), {"input": torch.ones(1, 3, 8, 8)}, 8 * 8 * 16 * 3 * 3 * 3),
    ("grouped conv1d", nn.Conv1d(8, 8, 5, groups=8), {"input": torch.ones(1, 8, 20)}, 16 * 8 * 5),
    (
        "attention, 2 heads of 8, 5 queries, 7 keys",
        Attention(),
        {"query": torch.ones(1, 2, 5, 8), "key": torch.ones(1, 2, 7, 8)},
        2 * 2 * 5 * 7 * 8,
    ),
    ("lstm, 6 steps", nn.LSTM(8, 4, batch_first=True), {"input": torch.ones(1, 6, 8)}, 6 * 4 * 4 * (8 + 4)),
    (
        "transformer layer, 5 tokens: q k v, scores, values, output, feed-forward",
        nn.TransformerEncoderLayer(8, 2, dim_feedforward=32, batch_first=True),
        {"src": torch.ones(1, 5, 8)},
        5 * 3 * 8 * 8 + 2 * 5 * 5 * 8 + 5 * 8 * 8 + 2 * 5 * 8 * 32,
    ),
    ("ranker called by kwargs", Ranker(), ranker_inputs(1), 17 * 32 + 32),
]


@pytest.mark.parametrize(("model", "inputs", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_macs_equal_the_formula(model: nn.Module, inputs: dict[str, Tensor], expected: int) -> None:
    assert count_macs(model, inputs).total == expected


def test_batch_is_shared_out_over_its_rows() -> None:
    assert count_macs(Ranker(), ranker_inputs(64), rows=64).total == 17 * 32 + 32


def test_what_was_not_counted_is_listed_with_its_reason() -> None:
    left = {skipped.what: skipped.why for skipped in count_macs(Ranker(), ranker_inputs(1)).skipped}
    assert "gather" in left["embedding (2 times)"]
    assert "elementwise" in left["relu"]
    assert not {"addmm", "view", "t", "unsqueeze"} & set(left)


def test_counting_leaves_the_model_as_it_was() -> None:
    model = Ranker().train()
    count_macs(model, ranker_inputs(1))
    assert model.training
    assert torch.backends.mha.get_fastpath_enabled()


def test_operators_add_up_to_the_total() -> None:
    model = nn.Sequential(nn.Conv1d(4, 4, 3), nn.Flatten(), nn.Linear(16, 2))
    counted = count_macs(model, {"input": torch.ones(1, 4, 6)})
    assert counted.by_operator == {"convolution": 4 * 4 * 4 * 3, "addmm": 32}
    assert counted.total == 4 * 4 * 4 * 3 + 32

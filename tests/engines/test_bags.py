"""Embedding bags written out: torch's own `embedding_bag` is the reference."""

import pytest
import torch
import torch.nn.functional as F

from flyweight.engines.bags import WrittenOutBags, embedding_bag

WEIGHT = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
SQUARE = torch.tensor([[1, 3, 3], [3, 3, 3], [0, 19, 3], [5, 6, 7]])
FLAT = torch.tensor([4, 3, 3, 1, 19, 0, 2])
OFFSETS = torch.tensor([0, 1, 1, 3, 7])  # the second and the last bag are empty, the third holds the padding row alone


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("padding_idx", [None, 3, -17])
def test_rectangular_bags_equal_torch(mode: str, padding_idx: int | None) -> None:
    expected = F.embedding_bag(SQUARE, WEIGHT, mode=mode, padding_idx=padding_idx)
    torch.testing.assert_close(embedding_bag(SQUARE, WEIGHT, mode=mode, padding_idx=padding_idx), expected)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("padding_idx", [None, 3])
@pytest.mark.parametrize("last", [False, True])
def test_bags_with_offsets_equal_torch(mode: str, padding_idx: int | None, last: bool) -> None:
    options = {"mode": mode, "padding_idx": padding_idx, "include_last_offset": last}
    expected = F.embedding_bag(FLAT, WEIGHT, OFFSETS, **options)
    torch.testing.assert_close(embedding_bag(FLAT, WEIGHT, OFFSETS, **options), expected)


@pytest.mark.parametrize(("ids", "offsets"), [(SQUARE, None), (FLAT, OFFSETS)])
def test_weighted_bags_equal_torch(ids: torch.Tensor, offsets: torch.Tensor | None) -> None:
    weights = torch.rand(ids.shape, generator=torch.Generator().manual_seed(1))
    options = {"mode": "sum", "per_sample_weights": weights, "padding_idx": 3}
    expected = F.embedding_bag(ids, WEIGHT, offsets, **options)
    torch.testing.assert_close(embedding_bag(ids, WEIGHT, offsets, **options), expected)


def test_context_reaches_modules_and_ends() -> None:
    bag = torch.nn.EmbeddingBag.from_pretrained(WEIGHT, mode="mean", max_norm=None)
    with WrittenOutBags():
        inside = torch.fx.experimental.proxy_tensor.make_fx(bag)(SQUARE)
    outside = torch.fx.experimental.proxy_tensor.make_fx(bag)(SQUARE)
    assert "embedding_bag" not in inside.code
    assert "embedding_bag" in outside.code
    torch.testing.assert_close(inside(SQUARE), bag(SQUARE))


def test_max_norm_is_refused() -> None:
    with pytest.raises(NotImplementedError, match="max_norm changes its weights"):
        embedding_bag(SQUARE, WEIGHT, max_norm=1.0)

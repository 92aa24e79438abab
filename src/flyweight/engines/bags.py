"""Embedding bags written out, so that they export to a gather and a sum.

PyTorch exports `embedding_bag` as a loop over the bags that grows a sequence: slow in every engine, refused by some.
While a model is captured, each call of it is answered with plain operators of the same result.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


class WrittenOutBags(TorchFunctionMode):
    """Within this context `F.embedding_bag`, and so `nn.EmbeddingBag`, is computed with plain operators."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Answer `F.embedding_bag`; let everything else through."""
        if func is F.embedding_bag:
            return embedding_bag(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def embedding_bag(
    input: Tensor,
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Tensor:
    """Return what `torch.nn.functional.embedding_bag` does, for inference; the arguments are its own.

    Returns:
        (bags, dim): for ids (bags, length), or flat ids (t,) with the first place of each bag in `offsets`.
    """
    if max_norm is not None:
        raise NotImplementedError("embedding_bag with max_norm changes its weights on every call")
    if padding_idx is not None and padding_idx < 0:
        padding_idx += weight.shape[0]
    rows = F.embedding(input, weight)  # (bags, length, dim) or (t, dim)
    counted = None if padding_idx is None else input != padding_idx
    if mode == "max" and counted is not None:
        # Not -inf, which OpenVINO turns into a finite number.
        rows = torch.where(counted.unsqueeze(-1), rows, torch.full_like(rows, torch.finfo(rows.dtype).min))
    elif per_sample_weights is not None:
        weights = per_sample_weights if counted is None else per_sample_weights * counted
        rows = rows * weights.unsqueeze(-1)
    elif counted is not None:
        rows = rows * counted.unsqueeze(-1).to(rows.dtype)
    if offsets is None:
        return _rectangular(rows, counted, mode)
    starts = offsets[:-1] if include_last_offset else offsets
    return _ragged(rows, counted, starts, mode)


def _rectangular(rows: Tensor, counted: Tensor | None, mode: str) -> Tensor:
    """Reduce (bags, length, dim) over the length."""
    if counted is None:
        return rows.amax(1) if mode == "max" else rows.sum(1) if mode == "sum" else rows.sum(1) / rows.shape[1]
    if mode == "sum":
        return rows.sum(1)
    members = counted.to(rows.dtype).sum(1, keepdim=True)  # (bags, 1)
    return rows.amax(1) * members.clamp_max(1) if mode == "max" else rows.sum(1) / members.clamp_min(1)


def _ragged(rows: Tensor, counted: Tensor | None, starts: Tensor, mode: str) -> Tensor:
    """Reduce (t, dim) over the bags that begin at `starts`; a bag without ids gives zeros."""
    length, dim = rows.shape
    bags = starts.shape[0]
    # The bag of a place is the number of bags begun so far, less one: bags that begin at the end fall off.
    begun = starts.new_zeros(length + 1).index_add(0, starts, torch.ones_like(starts))
    bag = begun[:length].cumsum(0) - 1  # (t,)
    if mode == "sum":
        return rows.new_zeros(bags, dim).index_add(0, bag, rows)
    ones = torch.ones_like(bag, dtype=rows.dtype) if counted is None else counted.to(rows.dtype)
    members = rows.new_zeros(bags).index_add(0, bag, ones).unsqueeze(1)  # (bags, 1)
    if mode == "mean":
        return rows.new_zeros(bags, dim).index_add(0, bag, rows) / members.clamp_min(1)
    lowest = rows.new_full((bags, dim), torch.finfo(rows.dtype).min)
    return lowest.scatter_reduce(0, bag.unsqueeze(1).expand(length, dim), rows, "amax") * members.clamp_max(1)

"""Embedding tables of a ranker's id fields: rows that start near zero, the unknown's at zero."""

from collections.abc import Mapping

import torch
from torch import nn


def embedding(rows: int, dim: int, init_std: float = 1e-4, *, sparse: bool = True) -> nn.Embedding:
    """Return a table whose row 0, the unknown that training never sees, is zero.

    Args:
        init_std: standard deviation of the start. A small one: a row seen seldom then stays near zero instead of
            adding its random start.
        sparse: whether an update costs what the rows of the batch cost.

    Example:
        >>> embedding(3, 2).weight[0].tolist()
        [0.0, 0.0]
    """
    weight = torch.randn(rows, dim) * init_std
    weight[0] = 0.0
    return nn.Embedding(rows, dim, sparse=sparse, _weight=weight)


def embeddings(rows: Mapping[str, int], dim: int, init_std: float = 1e-4) -> nn.ModuleDict:
    """Return a table for each field, by name."""
    return nn.ModuleDict({name: embedding(count, dim, init_std) for name, count in rows.items()})


def perceptron(width: int, hidden: tuple[int, ...]) -> nn.Sequential:
    """Return linear layers with ReLU after each, of the widths `hidden`."""
    widths = (width, *hidden)
    layers = [
        layer for wide, narrow in zip(widths, hidden, strict=False) for layer in (nn.Linear(wide, narrow), nn.ReLU())
    ]
    return nn.Sequential(*layers)

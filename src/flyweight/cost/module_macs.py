"""Multiply-accumulates by module: which layers a row's work is in."""

from collections.abc import Container, Mapping

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from flyweight.cost.macs import EXTRA, plain_kernels
from flyweight.task.scores import evaluating


def module_macs(model: nn.Module, inputs: Mapping[str, Tensor], rows: int = 1) -> dict[str, int]:
    """Return the multiply-accumulates of one row that each module does itself, without those inside it, largest first.

    Args:
        model: run once, in evaluation mode.
        inputs: a batch of `rows` rows.

    Example: of `nn.Sequential(nn.Linear(100, 10), nn.Linear(10, 1))` it is {"0": 1000, "1": 10}.
    """
    counter = FlopCounterMode(display=False, custom_mapping=EXTRA)
    with plain_kernels(), evaluating(model), torch.no_grad(), counter:
        model(**inputs)
    kind = type(model).__name__
    totals = {
        name.removeprefix(kind).removeprefix("."): sum(counts.values())
        for name, counts in counter.get_flop_counts().items()
        if name != "Global"
    }
    inside = dict.fromkeys(totals, 0)
    for name, total in totals.items():
        holder = _holder(name, totals)
        if holder is not None:
            inside[holder] += total
    found = {name: (total - inside[name]) // (2 * rows) for name, total in totals.items() if total > inside[name]}
    return dict(sorted(found.items(), key=lambda one: -one[1]))


def _holder(name: str, known: Container[str]) -> str | None:
    """Return the nearest module around one that was called: a list of modules is not, it only holds them."""
    while name:
        name = name.rpartition(".")[0]
        if name in known:
            return name
    return None

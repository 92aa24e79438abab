"""Which rows of which table a batch touched, and how the outputs feel each of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from flyweight.tables.sites import Table


@dataclass(frozen=True, eq=False)
class Touch:
    """One call of a module that looks up a table.

    Args:
        table: name of the table.
        ids: (t,) rows looked up.
        place: (t,) which vector of the flattened output each id adds to.
        factor: (t,) what its row is multiplied by there, or None for 1.
        output: (..., dim), what the module returned, with gradients wanted.
    """

    table: str
    ids: Tensor
    place: Tensor
    factor: Tensor | None
    output: Tensor

    def samples(self, rows: int) -> Tensor:
        """Return the batch row each id counts for, (t,).

        The axis of the output that is as long as the batch tells them apart; where there is none, lookups are shared
        evenly out over the rows in order, which for whole vectors a row (a flattened history) is exact.
        """
        shape = self.output.shape[:-1]
        vectors = self.output.numel() // self.output.shape[-1]
        if rows in shape:
            axis = shape.index(rows)
            inner = shape[axis + 1 :].numel()
            return self.place // inner % rows
        return self.place * rows // max(vectors, 1)

    def pull(self, gradient: Tensor | None) -> Tensor:
        """Return the gradient at each looked-up row, (t, dim), from the gradient at the module's output."""
        if gradient is None:
            return torch.zeros(len(self.ids), self.output.shape[-1])
        rows = gradient.reshape(-1, gradient.shape[-1])[self.place].float()
        return rows if self.factor is None else rows * self.factor[:, None]


@dataclass
class Watch:
    """The touches of the calls made so far."""

    touches: list[Touch] = field(default_factory=list)


@contextmanager
def watching(model: nn.Module, tables: tuple[Table, ...], *, gradients: bool = False) -> Iterator[Watch]:
    """Record every lookup of the tables while the model runs; with `gradients` their outputs become leaves."""
    watch = Watch()
    handles = []
    seen: set[int] = set()
    for table in tables:
        for path in table.modules:
            module = model.get_submodule(path)
            if id(module) in seen:  # one module under two names
                continue
            seen.add(id(module))
            hook = _recorder(watch, table.name, gradients)
            handles.append(module.register_forward_hook(hook, with_kwargs=True))
    try:
        yield watch
    finally:
        for handle in handles:
            handle.remove()


def _recorder(watch: Watch, table: str, gradients: bool) -> Any:
    def record(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> Tensor:
        named = dict(zip(("input", "offsets", "per_sample_weights"), args, strict=False)) | kwargs
        leaf = output.detach().requires_grad_(True) if gradients else output
        ids = named["input"].detach()
        if hasattr(module, "mode"):
            watch.touches.append(_bag_touch(module, table, named, leaf))
        else:
            flat = ids.reshape(-1)
            watch.touches.append(Touch(table, flat.long(), torch.arange(len(flat)), None, leaf))
        return leaf

    return record


def _bag_touch(module: Any, table: str, named: dict[str, Any], output: Tensor) -> Touch:
    ids, bag = bag_places(named["input"], named.get("offsets"), bags=len(output))
    weights = named.get("per_sample_weights")
    factor = torch.ones(len(ids)) if weights is None else weights.detach().reshape(-1).float()
    if module.padding_idx is not None:
        factor = factor * (ids != module.padding_idx)
    if module.mode == "mean":
        members = torch.zeros(len(output)).index_add_(0, bag, (factor != 0).float())
        factor = factor / members.clamp_min(1)[bag]
    return Touch(table, ids.long(), bag, factor, output)


def bag_places(ids: Tensor, offsets: Tensor | None, *, bags: int) -> tuple[Tensor, Tensor]:
    """Return ids as (t,) and the bag of each, for (bags, length) ids or flat ids with offsets."""
    if offsets is None:
        return ids.reshape(-1), torch.arange(bags).repeat_interleave(ids.shape[1])
    places = torch.arange(len(ids))
    return ids, torch.searchsorted(offsets[:bags].long().contiguous(), places, right=True) - 1

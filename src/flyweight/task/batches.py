"""Reading a split batch by batch: each batch is checked on its way, and an error names split, batch and field."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from flyweight.errors import InputError
from flyweight.task.field import Field

Batch = tuple[dict[str, Tensor], Tensor, Tensor | None]


def read_batches(
    split: str, data: Iterable[Any], fields: Mapping[str, Field], group: str | None = None
) -> Iterator[Batch]:
    """Yield `(inputs, target, group ids or None)` for each batch of a split, checked; batches of no rows are left out.

    Ids must be whole numbers within [0, rows), dense values and targets finite. A DataLoader that shuffles gives the
    same order on every pass, because scores of two passes are compared row by row.

    Raises:
        InputError: naming the split, the batch's number, the field and the value seen.
    """
    for number, batch in enumerate(_in_one_order(data)):
        where = f"{split} batch {number}"
        if not (isinstance(batch, (tuple, list)) and len(batch) == 2 and isinstance(batch[0], Mapping)):
            raise InputError(
                f"{where}: expected (dict of inputs, target), seen {type(batch).__name__}; "
                "make the loader yield a dict of tensors by input name and a target tensor."
            )
        named, target = batch
        inputs = {name: _field_values(where, name, field, named) for name, field in fields.items()}
        target = torch.as_tensor(target)
        if target.ndim == 0:
            raise InputError(f"{where}: the target is a single number; it needs a batch dimension, as in (rows,).")
        _check_finite(f"{where}: target", target)
        groups = _group_values(where, group, named, inputs)
        unknown = sorted(set(named) - set(inputs) - ({group} if group else set()))
        if unknown:
            raise InputError(
                f"{where} holds {unknown[0]!r}, which Task(inputs=...) does not name; add a Field for it or drop it."
            )
        if len(target):
            yield inputs, target, groups


def _in_one_order(data: Iterable[Any]) -> Iterator[Any]:
    """Iterate with the random numbers that a shuffling DataLoader draws its order from starting at the same place.

    The order of a DataLoader without a generator of its own is drawn by the time its first batch is out; then the state
    of the caller's random numbers is put back.
    """
    owners = (data, getattr(data, "sampler", None), getattr(getattr(data, "batch_sampler", None), "sampler", None))
    found = {id(one): one for owner in owners if isinstance(one := getattr(owner, "generator", None), torch.Generator)}
    own = [(generator, generator.get_state()) for generator in found.values()]
    state = torch.get_rng_state()
    torch.manual_seed(0)
    for generator, _ in own:
        generator.manual_seed(0)
    try:
        try:
            batches = iter(data)
            first = next(batches, None)
        finally:
            torch.set_rng_state(state)
        if first is not None:
            yield first
            yield from batches
    finally:
        for generator, before in own:
            generator.set_state(before)


def _field_values(where: str, name: str, field: Field, named: Mapping[str, Any]) -> Tensor:
    if name not in named:
        raise InputError(f"{where} lacks input {name!r}; it holds {sorted(named)}.")
    values = torch.as_tensor(named[name])
    if values.ndim == 0:
        raise InputError(f"{where}: input {name!r} is a single number; it needs a batch dimension, as in (rows,).")
    if field.rows is None:
        _check_finite(f"{where}: input {name!r}", values)
        return values
    if values.is_floating_point() or values.is_complex() or values.dtype == torch.bool:
        raise InputError(
            f"{where}: id input {name!r} has dtype {values.dtype}; ids must be whole numbers (int64 or int32)."
        )
    if values.numel():
        low, high = int(values.min()), int(values.max())
        if low < 0:
            raise InputError(
                f"{where}: input {name!r} holds the negative id {low}; ids run from 0 to rows - 1 = {field.rows - 1}. "
                "Map unknown values to a row of their own."
            )
        if high >= field.rows:
            raise InputError(
                f"{where}: input {name!r} holds id {high}, but rows={field.rows} allows 0 to {field.rows - 1}. "
                "Raise rows to the size of the vocabulary, or map unknown values to a row of their own."
            )
    return values


def _group_values(where: str, group: str | None, named: Mapping[str, Any], inputs: dict[str, Tensor]) -> Tensor | None:
    if group is None:
        return None
    if group not in named:
        raise InputError(f"{where} lacks the group {group!r} that Task(group=...) names; it holds {sorted(named)}.")
    values = inputs[group] if group in inputs else torch.as_tensor(named[group])
    if values.ndim != 1 or values.is_floating_point():
        raise InputError(
            f"{where}: group {group!r} must be whole numbers of shape (rows,); "
            f"seen {values.dtype} of shape {tuple(values.shape)}."
        )
    return values


def _check_finite(what: str, values: Tensor) -> None:
    if values.is_floating_point() and not bool(torch.isfinite(values).all()):
        bad = int((~torch.isfinite(values)).sum())
        raise InputError(f"{what} holds {bad} NaN or infinite values; clean the data or fill them before training.")

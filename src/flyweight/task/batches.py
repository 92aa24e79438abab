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
    """Yield `(inputs, target, group ids or None)` for each batch of a split, checked.

    Ids must be whole numbers within [0, rows), dense values and targets finite, and all of one batch equally long.

    Raises:
        InputError: naming the split, the batch's number, the field and the value seen.
    """
    for number, batch in enumerate(data):
        where = f"{split} batch {number}"
        if not (isinstance(batch, (tuple, list)) and len(batch) == 2 and isinstance(batch[0], Mapping)):
            raise InputError(
                f"{where}: expected (dict of inputs, target), seen {type(batch).__name__}; "
                "make the loader yield a dict of tensors by input name and a target tensor."
            )
        named, target = batch
        inputs = {name: _field_values(where, name, field, named) for name, field in fields.items()}
        target = torch.as_tensor(target)
        _check_finite(f"{where}: target", target)
        groups = _group_values(where, group, named, inputs)
        unknown = sorted(set(named) - set(inputs) - ({group} if group else set()))
        if unknown:
            raise InputError(
                f"{where} holds {unknown[0]!r}, which Task(inputs=...) does not name; add a Field for it or drop it."
            )
        yield inputs, target, groups


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

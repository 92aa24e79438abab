"""A copy of a model in which tables are replaced; the user's model is never written to, its tables never copied."""

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from flyweight.errors import InputError
from flyweight.tables.coded_embedding import CodedEmbedding, CodedEmbeddingBag
from flyweight.tables.coded_table import CodedTable
from flyweight.tables.coding import CodedBand
from flyweight.tables.rounded_table import RoundedTable
from flyweight.tables.sites import Table

AnyTable = CodedTable | RoundedTable


def build_table(bands: tuple[CodedBand, ...], dtype: torch.dtype) -> AnyTable:
    """Return the module that looks up a table's bands and returns `dtype`."""
    if len(bands) == 1 and bands[0].coding.rounded:
        return RoundedTable(bands[0].codebook[0, 0].half(), dtype)
    return CodedTable(bands, dtype)


def with_tables(
    model: nn.Module, tables: tuple[Table, ...], coded: Mapping[str, AnyTable], *, share: bool = False
) -> nn.Module:
    """Return a copy of a model that looks tables up in `coded`, by table name.

    Args:
        model: left untouched.
        tables: the tables of the model; those without an entry in `coded` are shared with it, not copied.
        coded: new tables by name.
        share: whether the other weights may be shared with the model too, for a copy that is only evaluated.

    Raises:
        InputError: the model holds something that cannot be copied.
    """
    kept = [*model.parameters(), *model.buffers()] if share else []
    replaced = [model.get_submodule(path) for table in tables for path in table.modules]
    kept += [parameter for module in replaced for parameter in module.parameters()]
    copied = copy_model(model, {id(tensor): tensor for tensor in kept})
    stand_ins: dict[int, nn.Module] = {}  # a module under two paths stays one module
    for table in tables:
        if table.name not in coded:
            continue
        for path in table.modules:
            module = copied.get_submodule(path)
            stand_in = stand_ins.get(id(module)) or _stand_in(model.get_submodule(path), coded[table.name])
            stand_ins[id(module)] = stand_in
            if path == "":
                return stand_in
            copied.set_submodule(path, stand_in)
            stand_ins[id(stand_in)] = stand_in
    return copied


def copy_model(model: nn.Module, instead: Mapping[int, Tensor]) -> nn.Module:
    """Return a copy of a model in which some tensors, by `id`, are others.

    Outputs of earlier calls that a module has kept are cut off their graphs, without which they cannot be copied.

    Raises:
        InputError: the model holds something that cannot be copied.
    """
    memo: dict[int, Any] = dict(instead)
    for module in model.modules():
        memo |= {id(tensor): tensor.detach() for tensor in _computed(vars(module))}
    try:
        return copy.deepcopy(model, memo)
    except (RuntimeError, TypeError) as error:
        raise InputError(
            f"The model cannot be copied ({error}); the copy is what tables are replaced in. "
            "Keep files, locks and generators out of the module's attributes."
        ) from error


def _computed(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in a module's attributes that were computed with gradients, which Python cannot copy."""
    if isinstance(value, Tensor) and not value.is_leaf:
        yield value
    elif isinstance(value, (list, tuple)):
        for entry in value:
            yield from _computed(entry)
    elif isinstance(value, dict):
        for name, entry in value.items():
            if name not in ("_modules", "_parameters"):
                yield from _computed(entry)


def _stand_in(module: nn.Module, table: AnyTable) -> nn.Module:
    if isinstance(module, nn.EmbeddingBag):
        return CodedEmbeddingBag(
            table, module.mode, module.padding_idx, include_last_offset=module.include_last_offset
        )
    assert isinstance(module, nn.Embedding)
    padding = module.padding_idx
    row = None if padding is None else module.weight.detach()[padding].to(table.dtype, copy=True)
    return CodedEmbedding(table, padding, row)

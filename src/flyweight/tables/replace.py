"""A copy of a model in which tables are replaced; the user's model is never written to, its tables never copied."""

import copy
from collections.abc import Mapping

from torch import Tensor, nn

from flyweight.tables.coded_embedding import CodedEmbedding, CodedEmbeddingBag
from flyweight.tables.coded_table import CodedTable
from flyweight.tables.coding import CodedBand
from flyweight.tables.rounded_table import RoundedTable
from flyweight.tables.sites import Table

AnyTable = CodedTable | RoundedTable


def build_table(bands: tuple[CodedBand, ...], weight: Tensor) -> AnyTable:
    """Return the module that looks up a table's bands."""
    if len(bands) == 1 and bands[0].coding.rounded:
        return RoundedTable(bands[0].codebook[0, 0].half(), weight.dtype)
    return CodedTable(bands, weight.dtype)


def with_tables(
    model: nn.Module, tables: tuple[Table, ...], coded: Mapping[str, AnyTable], *, share: bool = False
) -> nn.Module:
    """Return a copy of a model that looks tables up in `coded`, by table name.

    Args:
        model: left untouched.
        tables: the tables of the model; those without an entry in `coded` are shared with it, not copied.
        coded: new tables by name.
        share: whether the other weights may be shared with the model too, for a copy that is only evaluated.
    """
    kept = [*model.parameters(), *model.buffers()] if share else []
    replaced = [model.get_submodule(path) for table in tables for path in table.modules]
    kept += [parameter for module in replaced for parameter in module.parameters()]
    copied = copy.deepcopy(model, {id(tensor): tensor for tensor in kept})
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


def _stand_in(module: nn.Module, table: AnyTable) -> nn.Module:
    if isinstance(module, nn.EmbeddingBag):
        return CodedEmbeddingBag(
            table, module.mode, module.padding_idx, include_last_offset=module.include_last_offset
        )
    assert isinstance(module, nn.Embedding)
    padding = module.padding_idx
    row = None if padding is None else module.weight.detach()[padding].clone()
    return CodedEmbedding(table, padding, row)

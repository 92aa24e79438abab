"""Bytes of a model's embedding tables, coded or not."""

from torch import nn

from flyweight.tables.coded_table import CodedTable
from flyweight.tables.rounded_table import RoundedTable


def table_bytes(model: nn.Module) -> int:
    """Return the bytes of all tables, each counted once: float rows, or codes, codebooks and how to read them.

    A table that another step stores in fewer bits says so itself, by an attribute `stored_bytes`.
    """
    coded = {id(module): module for module in model.modules() if isinstance(module, (CodedTable, RoundedTable))}
    floats = {
        id(module.weight): int(getattr(module, "stored_bytes", module.weight.numel() * module.weight.element_size()))
        for module in model.modules()
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag))
    }
    return sum(table.bytes() for table in coded.values()) + sum(floats.values())

"""Bytes of a model's embedding tables, coded or not."""

from torch import nn

from flyweight.tables.coded_table import CodedTable
from flyweight.tables.rounded_table import RoundedTable


def table_bytes(model: nn.Module) -> int:
    """Return the bytes of all tables, each counted once: float rows, or codes, codebooks and how to read them."""
    coded = {id(module): module for module in model.modules() if isinstance(module, (CodedTable, RoundedTable))}
    floats = {
        id(module.weight): module.weight
        for module in model.modules()
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag))
    }
    left = sum(weight.numel() * weight.element_size() for weight in floats.values())
    return sum(table.bytes() for table in coded.values()) + left

"""A made-up allocation: the tables and layers of the example result, and more tables than can be shown; seeded."""

import numpy as np
from example_result import LAYERS, TABLES

from flyweight.report.allocation_data import AllocationPart, AllocationRow

CODINGS = (
    ("float16 rows", 16.0), ("3 4-bit codes", 0.75), ("2 4-bit codes", 0.5), ("one 4-bit code", 0.25),
    ("one 2-bit code", 0.125), ("one 1-bit code", 0.0625), ("one shared vector", 0.0),
)  # fmt: skip


def make_allocation(tables: int = len(TABLES), layers: int = 6, seed: int = 4) -> tuple[AllocationRow, ...]:
    generator = np.random.default_rng(seed)
    found = []
    for place in range(tables):
        name, rows, _ = TABLES[place % len(TABLES)]
        name = name if place < len(TABLES) else f"{name}_{place}"
        size = 64 * rows // (1 + place // len(TABLES))
        found.append(AllocationRow(name, "table", size, _parts(rows, generator)))
    for place in range(layers):
        layer = LAYERS[place % len(LAYERS)]
        bits = 32.0 * layer.bytes_after / layer.bytes_before
        name = layer.name if place < len(LAYERS) else f"head.{place}.weight"
        found.append(AllocationRow(name, "layer", layer.bytes_before, (AllocationPart(1.0, layer.after, bits),)))
    return tuple(found)


def _parts(rows: int, generator: np.random.Generator) -> tuple[AllocationPart, ...]:
    """Frequent rows take more bits; a small table is one band."""
    bands = 1 if rows < 3_000 else int(generator.integers(2, 6))
    cuts = np.sort(generator.uniform(0.01, 0.7, bands - 1))
    shares = np.diff([0.0, *cuts, 1.0])
    first = 0 if rows < 100 else int(generator.integers(0, 3))
    codings = [CODINGS[min(first + place + (rows > 100_000), len(CODINGS) - 1)] for place in range(bands)]
    return tuple(AllocationPart(float(share), *coding) for share, coding in zip(shares, codings, strict=True))

"""What there is to say of an embedding table before anything is done to it: its size, and how it is used."""

from dataclasses import dataclass

from torch import Tensor

from flyweight.tables.sites import Table


@dataclass(frozen=True)
class TableUse:
    """An embedding table and how the training split uses it.

    Args:
        name: of the module that holds it.
        rows, dim, bytes: its shape and size.
        lookups: in the training split, all rows together.
        never: the share of rows that training never looks up: they are as they were drawn at the start.
        once: the share that it looks up once.
    """

    name: str
    rows: int
    dim: int
    bytes: int
    lookups: int
    never: float
    once: float


def table_use(table: Table, counts: Tensor) -> TableUse:
    """Return the use of a table.

    Args:
        counts: (rows,), lookups in the training split, as `usage.count_lookups` gives them.
    """
    return TableUse(
        name=table.name,
        rows=table.rows,
        dim=table.dim,
        bytes=table.bytes,
        lookups=int(counts.double().sum()),
        never=float((counts == 0).double().mean()),
        once=float((counts == 1).double().mean()),
    )

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

    The last three are None where ids are made inside the model, so that the split cannot be counted without running it.
    """

    name: str
    rows: int
    dim: int
    bytes: int
    lookups: int | None
    never: float | None
    once: float | None


def table_use(table: Table, counts: Tensor | None) -> TableUse:
    """Return the use of a table.

    Args:
        counts: (rows,), lookups in the training split, as `usage.count_lookups` gives them; None where they are not
            all of them.
    """
    if counts is None:
        return TableUse(table.name, table.rows, table.dim, table.bytes, None, None, None)
    return TableUse(
        name=table.name,
        rows=table.rows,
        dim=table.dim,
        bytes=table.bytes,
        lookups=int(counts.double().sum()),
        never=float((counts == 0).double().mean()),
        once=float((counts == 1).double().mean()),
    )

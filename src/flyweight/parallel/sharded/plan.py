"""Which process holds which rows of which embedding table: by rows, by table, or either by size."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

from flyweight.errors import InputError
from flyweight.task.change import Skipped

By = Literal["auto", "row", "table"]


@dataclass(frozen=True)
class RowShard:
    """Rows `start` to `start + rows` of a table, held by a rank."""

    rank: int
    start: int
    rows: int


@dataclass(frozen=True)
class PlacedTable:
    """A table and where its rows are.

    Args:
        name: dotted path of the first module that holds it.
        rows, dim: its shape; values are float32.
        by_rows: whether it is cut; else one rank holds all of it.
        shards: each rank's part, in the order of rows; ranks without any are left out.
    """

    name: str
    rows: int
    dim: int
    by_rows: bool
    shards: tuple[RowShard, ...]

    @property
    def bytes(self) -> int:
        """Bytes of the whole table."""
        return 4 * self.rows * self.dim

    def bytes_of(self, rank: int) -> int:
        """Bytes of a rank's part."""
        return sum(4 * self.dim * shard.rows for shard in self.shards if shard.rank == rank)


@dataclass(frozen=True)
class TablePlan:
    """Where all tables of a model are.

    Args:
        ranks: how many processes.
        tables: those that are shared out.
        whole: those that each process holds all of, and why.
    """

    ranks: int
    tables: tuple[PlacedTable, ...]
    whole: tuple[Skipped, ...] = ()

    def bytes_of(self, rank: int) -> int:
        """Bytes of tables that a rank holds; those that every rank holds are not counted."""
        return sum(table.bytes_of(rank) for table in self.tables)

    def __str__(self) -> str:
        total = sum(table.bytes for table in self.tables)
        ranks = ", ".join(f"rank {rank} {size_words(self.bytes_of(rank))}" for rank in range(self.ranks))
        lines = [f"{len(self.tables)} tables of {size_words(total)} over {self.ranks} processes: {ranks}"]
        width = max((len(table.name) for table in self.tables), default=0)
        for table in self.tables:
            head = f"  {table.name:{width}}  {table.rows:>12,} x {table.dim:<4} {size_words(table.bytes):>9}  "
            lines.append(head + _places(table))
        lines += [f"  {one.what}: whole on every rank, {one.why}" for one in self.whole]
        return "\n".join(lines)


def size_words(count: int) -> str:
    """Return bytes in words.

    Example:
        >>> size_words(187_040_000), size_words(7_360)
        ('187.0 MB', '7.4 kB')
    """
    unit, name = (1e9, "GB") if count >= 1e9 else (1e6, "MB") if count >= 1e6 else (1e3, "kB")
    return f"{count / unit:,.1f} {name}"


def _places(table: PlacedTable) -> str:
    if not table.by_rows:
        return f"all rows on rank {table.shards[0].rank}"
    ends = [f"rank {one.rank} {one.start:,} to {one.start + one.rows - 1:,}" for one in table.shards]
    return "rows of " + ", ".join(ends)


def place_tables(
    tables: Sequence[tuple[str, int, int]], ranks: int, by: By = "auto", whole: tuple[Skipped, ...] = ()
) -> TablePlan:
    """Return which rank holds which rows.

    By rows, each rank holds one block of equal length (the last what is left), as TorchRec cuts. By table, the largest
    first, each goes to the rank that holds least so far (Graham 1969: at most 4/3 of the best). "auto" cuts what is
    larger than one rank's share of all bytes, and places the rest by table.

    Args:
        tables: name, rows and dimension of each.

    Raises:
        InputError: `ranks` or `by` make no sense.

    Example:
        >>> plan = place_tables([("item", 1_000, 16), ("user", 100, 16)], ranks=2)
        >>> [(table.name, table.by_rows) for table in plan.tables]
        [('item', True), ('user', False)]
    """
    if isinstance(ranks, bool) or not isinstance(ranks, int) or ranks < 1:
        raise InputError(f"ranks must be a whole number of at least 1; seen {ranks!r}.")
    if by not in get_args(By):
        raise InputError(f"Tables are placed by one of {', '.join(get_args(By))}; seen {by!r}.")
    share = sum(4 * rows * dim for _, rows, dim in tables) / ranks
    held = [0] * ranks
    placed: dict[str, PlacedTable] = {}
    for name, rows, dim in sorted(tables, key=lambda one: -one[1] * one[2]):
        cut = ranks > 1 and rows >= ranks and (by == "row" or (by == "auto" and 4 * rows * dim > share))
        shards = _blocks(rows, ranks) if cut else (RowShard(held.index(min(held)), 0, rows),)
        placed[name] = PlacedTable(name, rows, dim, cut, shards)
        for shard in shards:
            held[shard.rank] += 4 * dim * shard.rows
    return TablePlan(ranks, tuple(placed[name] for name, _, _ in tables), whole)


def _blocks(rows: int, ranks: int) -> tuple[RowShard, ...]:
    block = -(-rows // ranks)
    starts = [min(rank * block, rows) for rank in range(ranks + 1)]
    return tuple(
        RowShard(rank, start, end - start)
        for rank, (start, end) in enumerate(pairwise(starts))
        if end > start
    )

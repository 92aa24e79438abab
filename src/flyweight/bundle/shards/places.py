"""Where a row lies: the shard that holds it, and its place among that shard's rows of the table."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyweight.bundle.shards.plan import Piece, ShardedTable

Ints = NDArray[np.int64]
#: Up to so many shards, looking for each one's rows in turn is quicker than sorting by shard.
FEW = 8


@dataclass(frozen=True)
class Run:
    """The rows of one piece that lie in one shard: `start`, `start + step`, ... below `stop`, in that order."""

    start: int
    stop: int
    step: int

    def __len__(self) -> int:
        return len(range(self.start, self.stop, self.step))


def runs_of(table: ShardedTable, shard: int) -> list[Run]:
    """Return which rows of a table lie in a shard, in the order in which they lie there.

    Example:
        >>> table = ShardedTable.model_construct(pieces=[Piece(start=0, stop=5, shards=[0, 1])])
        >>> runs_of(table, 1)
        [Run(start=1, stop=5, step=2)]
    """
    return [
        Run(piece.start + piece.shards.index(shard), piece.stop, len(piece.shards))
        for piece in table.pieces
        if shard in piece.shards and piece.start + piece.shards.index(shard) < piece.stop
    ]


def rows_in(table: ShardedTable, shard: int) -> int:
    """Return how many rows of a table lie in a shard."""
    return sum(map(len, runs_of(table, shard)))


class Places:
    """Finds the shard and the place of rows of one table.

    Args:
        table: of the plan.
        shards: how many there are.
    """

    def __init__(self, table: ShardedTable, shards: int) -> None:
        self.shards = shards
        self._simple = len(table.pieces) == 1 and table.pieces[0].shards == list(range(shards))
        power = self._simple and self.shards & (self.shards - 1) == 0  # then whole bits tell the shard
        self._shift = shards.bit_length() - 1 if power else None
        self._starts = np.array([piece.start for piece in table.pieces], np.int64)
        self._ways = np.array([len(piece.shards) for piece in table.pieces], np.int64)
        widest = int(self._ways.max())
        self._owner = np.array([_padded(piece.shards, widest) for piece in table.pieces], np.int64)
        self._base = np.array([_padded(base, widest) for base in _bases(table.pieces, shards)], np.int64)

    def by_shard(self, rows: Ints) -> list[tuple[int, Ints, Ints]]:
        """Return, for each shard that holds any of `rows` (n,): the shard, which of the n, and their places there."""
        if self._shift is not None:
            owner, place = rows & (self.shards - 1), rows >> self._shift
        elif self._simple:
            owner, place = np.divmod(rows, self.shards)[::-1]
        else:
            piece = np.searchsorted(self._starts, rows, side="right") - 1
            turn, way = np.divmod(rows - self._starts[piece], self._ways[piece])
            owner, place = self._owner[piece, way], self._base[piece, way] + turn
        return [(shard, own, place[own]) for shard, own in _grouped(owner, self.shards)]


def _bases(pieces: list[Piece], shards: int) -> list[list[int]]:
    """Return, for each piece and each of its shards, how many rows that shard holds of the pieces before."""
    held, bases = [0] * shards, []
    for piece in pieces:
        bases.append([held[shard] for shard in piece.shards])
        for way, shard in enumerate(piece.shards):
            held[shard] += len(range(piece.start + way, piece.stop, len(piece.shards)))
    return bases


def _padded(values: list[int], length: int) -> list[int]:
    return values + [0] * (length - len(values))


def _grouped(owner: Ints, shards: int) -> list[tuple[int, NDArray[Any]]]:
    if shards <= FEW:
        found = [(shard, np.flatnonzero(owner == shard)) for shard in range(shards)]
        return [(shard, own) for shard, own in found if own.size]
    order = np.argsort(owner, kind="stable")
    present, first = np.unique(owner[order], return_index=True)
    return list(zip(present.tolist(), np.split(order, first[1:]), strict=True))

"""The tables of a plan: over which shards each is dealt, and what stands in for its rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyweight.bundle.samples import array_to_json
from flyweight.bundle.shards.plan import By, Piece, ShardedTable
from flyweight.bundle.shards.stand_ins import stand_ins_of
from flyweight.bundle.shards.tables import Found


@dataclass(frozen=True)
class Leaving:
    """A table on its way out of a graph.

    Args:
        found: what the graph tells of it.
        rows: its numbers.
        codewords: what its codes stand for, where a row is one code.
    """

    found: Found
    rows: NDArray[Any]
    codewords: NDArray[Any] | None


def planned_tables(
    leaving: Sequence[Leaving], counts: Sequence[NDArray[np.int64] | None], shards: int, by: By
) -> list[ShardedTable]:
    """Return the plan of each table.

    Args:
        counts: how often each row of each table is asked for; None counts each once.
    """
    found = [one.found for one in leaving]
    pieces = _by_tables(found, shards) if by == "tables" else [_by_rows(table, shards) for table in found]
    return [_planned(one, own, cut) for one, own, cut in zip(leaving, counts, pieces, strict=True)]


def _planned(leaving: Leaving, counts: NDArray[np.int64] | None, pieces: list[Piece]) -> ShardedTable:
    table = leaving.found
    stand_ins = stand_ins_of(
        leaving.rows, table.edges, counts, numbers=table.numbers, codewords=leaving.codewords
    )
    return ShardedTable(
        name=table.name,
        rows=table.shape[0],
        row=list(table.shape[1:]),
        dtype=table.dtype,  # type: ignore[arg-type]
        pieces=pieces,
        edges=list(table.edges),
        stand_ins=array_to_json(stand_ins),  # type: ignore[arg-type]
        stand_in=_words(table, counts),
    )


def _words(table: Found, counts: NDArray[np.int64] | None) -> str:
    codes = "the commonest codes" if table.codebook is None else "the codeword nearest to the mean row"
    what = "the mean row" if table.numbers else codes
    of = "of each part of the table" if len(table.edges) > 1 else "of the table"
    if counts is None:
        return f"{what} {of}, each row counted once"
    return f"{what} {of}, each row counted as often as {int(counts.sum()):,} lookups asked for it"


def _by_rows(table: Found, shards: int) -> list[Piece]:
    return [Piece(start=0, stop=table.shape[0], shards=list(range(shards)))]


def _by_tables(found: Sequence[Found], shards: int) -> list[list[Piece]]:
    """Give each part of a table to one shard, the largest first to the one with the fewest bytes."""
    parts = [
        (table.bytes // table.shape[0] * (stop - start), number, start, stop)
        for number, table in enumerate(found)
        for start, stop in pairwise([*table.edges, table.shape[0]])
    ]
    held = [0] * shards
    pieces: list[list[Piece]] = [[] for _ in found]
    for size, number, start, stop in sorted(parts, key=lambda one: (-one[0], one[1:])):
        lightest = held.index(min(held))
        held[lightest] += size
        pieces[number].append(Piece(start=start, stop=stop, shards=[lightest]))
    return [sorted(own, key=lambda piece: piece.start) for own in pieces]

"""Rows of sharded tables for the places that a call asks for: all shards are asked at once, then heard in turn."""

import socket
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyweight.bundle.samples import array_from_entry
from flyweight.bundle.shards.client import Client
from flyweight.bundle.shards.messages import (
    WANTED,
    Kind,
    MessageError,
    place_dtype,
    read_exactly,
    read_header,
    read_words,
    rows_of_bytes,
    send,
)
from flyweight.bundle.shards.places import Places, rows_in
from flyweight.bundle.shards.plan import Plan, ShardedTable
from flyweight.errors import EngineError, ShardError

#: Rows of so many bytes are asked for once, however often a call needs them. Of 7,000 places of 14 fields a third comes
#: twice; to find them takes 200 us, and 10 Gb/s send what they save in 120 us at 64 bytes a row, in 490 us at 256.
ONCE_FROM = 256
Array = NDArray[Any]


@dataclass(frozen=True)
class _Table:
    """What is needed of a table of the plan to look rows up."""

    rows: int
    row: tuple[int, ...]
    dtype: np.dtype[Any]
    places: Places
    sent_as: tuple[np.dtype[Any], ...]  # the dtype of places, for each shard
    edges: NDArray[np.int64]
    stand_ins: Array
    name: str
    bytes: int


@dataclass(frozen=True)
class _Wanted:
    """Rows of a table that one shard holds: those of `own`, among all that a lookup asks for."""

    lookup: int
    table: int
    own: NDArray[np.int64]
    places: Array


@dataclass
class Gathered:
    """Rows for each lookup, and how many stand-ins are among them, by table."""

    rows: list[Array]
    degraded: Counter[str] = field(default_factory=Counter)


class Gather:
    """Looks rows up in the servers of all shards; threads may do so at the same time.

    Args:
        plan: of the bundle.
        clients: the server of each shard.
        degrade: whether rows of a shard that is away are stood in for; else they are an error.
        timeout: seconds that a call may wait for all servers together.
    """

    def __init__(self, plan: Plan, clients: Sequence[Client], timeout: float, *, degrade: bool) -> None:
        self.clients = tuple(clients)
        self._tables = [_known(table, plan.shards) for table in plan.tables]
        self._table_of = [one.table for one in plan.lookups]
        self._timeout = timeout
        self._degrade = degrade

    def rows(self, places: Sequence[Array]) -> Gathered:
        """Return the rows of each lookup, of the shape of its places followed by that of a row.

        Raises:
            ShardError: a shard is away and there are to be no stand-ins; it names the shard and what failed.
            EngineError: a place lies outside of its table.
        """
        tables = [self._tables[number] for number in self._table_of]
        flat = [_within(table, one) for table, one in zip(tables, places, strict=True)]
        once = [table.bytes >= ONCE_FROM and one.size > 1 for table, one in zip(tables, flat, strict=True)]
        pairs = [
            np.unique(one, return_inverse=True) if few else (one, None) for one, few in zip(flat, once, strict=True)
        ]
        ids = [own for own, _ in pairs]
        found = Gathered([np.empty((len(own), *one.row), one.dtype) for own, one in zip(ids, tables, strict=True)])
        self._ask_all(ids, found)
        for number, (_, back) in enumerate(pairs):
            rows = found.rows[number] if back is None else found.rows[number][back.reshape(-1)]
            found.rows[number] = rows.reshape(*places[number].shape, *tables[number].row)
        return found

    def _ask_all(self, ids: Sequence[Array], found: Gathered) -> None:
        until = time.monotonic() + self._timeout
        wanted = self._by_shard(ids)
        links: dict[int, socket.socket] = {}
        failed: dict[int, ShardError] = {}
        for shard, wants in wanted.items():
            try:
                links[shard] = self._ask(shard, wants, until)
            except ShardError as error:
                failed[shard] = error
        for shard, link in links.items():
            try:
                self._hear(shard, link, wanted[shard], until, found)
            except ShardError as error:
                failed[shard] = error
        for shard, lost in failed.items():
            if not self._degrade:
                raise lost
            for want in wanted[shard]:
                self._stand_in(ids[want.lookup][want.own], want, found)

    def _by_shard(self, ids: Sequence[Array]) -> dict[int, list[_Wanted]]:
        wanted: dict[int, list[_Wanted]] = {}
        for lookup, (number, rows) in enumerate(zip(self._table_of, ids, strict=True)):
            table = self._tables[number]
            for shard, own, places in table.places.by_shard(rows):
                sent = places.astype(table.sent_as[shard])
                wanted.setdefault(shard, []).append(_Wanted(lookup, number, own, sent))
        return wanted

    def _ask(self, shard: int, wants: Sequence[_Wanted], until: float) -> socket.socket:
        client = self.clients[shard]
        link = client.take(until)
        heads = b"".join(WANTED.pack(want.table, len(want.places)) for want in wants)
        try:
            link.settimeout(max(until - time.monotonic(), 1e-3))
            send(link, Kind.ASK, [heads, *(want.places for want in wants)], tables=len(wants))
        except OSError as error:
            client.lost(link, error)
            raise client.error(client.said(error)) from error
        return link

    def _hear(
        self, shard: int, link: socket.socket, wants: Sequence[_Wanted], until: float, found: Gathered
    ) -> None:
        client = self.clients[shard]
        try:
            data = _answer(link, sum(len(want.places) * self._tables[want.table].bytes for want in wants), until)
        except (OSError, MessageError) as error:
            client.lost(link, error)
            raise client.error(client.said(error)) from error
        client.give(link)
        offset = 0
        for want in wants:
            table = self._tables[want.table]
            count = len(want.places)
            found.rows[want.lookup][want.own] = rows_of_bytes(data, table.dtype, table.row, offset, count)
            offset += count * table.bytes

    def _stand_in(self, rows: Array, want: _Wanted, found: Gathered) -> None:
        table = self._tables[want.table]
        part = np.searchsorted(table.edges, rows, side="right") - 1
        found.rows[want.lookup][want.own] = table.stand_ins[part]
        found.degraded[table.name] += len(rows)

    def close(self) -> None:
        """End all connections."""
        for client in self.clients:
            client.close()


def _answer(link: socket.socket, size: int, until: float) -> bytearray:
    header = read_header(link, size, until)
    if header is None:
        raise ConnectionResetError("the server ended the connection instead of answering")
    if header.kind == Kind.REFUSED:
        raise MessageError(f"the server refused: {read_words(link, header, until)}")
    if header.kind != Kind.ROWS or header.bytes != size:
        raise MessageError(f"rows of {size:,} bytes are due; seen {header.kind.name} of {header.bytes:,}")
    return read_exactly(link, size, until)


def _within(table: _Table, places: Array) -> NDArray[np.int64]:
    """Return places as a vector from 0 on; -1 is the last row, as in any graph."""
    flat = places.reshape(-1).astype(np.int64, copy=False)
    if flat.size and np.maximum.reduce(flat.view(np.uint64)) >= table.rows:
        flat = np.where(flat < 0, flat + table.rows, flat)
        if flat.min() < 0 or flat.max() >= table.rows:
            raise EngineError(f"Row {flat.min()} to {flat.max()} of {table.name!r} asked for; it has {table.rows:,}.")
    return flat


def _known(table: ShardedTable, shards: int) -> _Table:
    dtype = np.dtype(table.dtype)
    return _Table(
        table.rows,
        tuple(table.row),
        dtype,
        Places(table, shards),
        tuple(place_dtype(rows_in(table, shard)) for shard in range(shards)),
        np.array(table.edges, np.int64),
        array_from_entry(table.stand_ins, f"stand-ins of {table.name}"),
        table.name,
        int(np.prod(table.row, dtype=np.int64)) * dtype.itemsize,
    )

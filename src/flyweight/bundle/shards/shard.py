"""Splitting a bundle: its large tables over N shards, one for each server, and a front that asks them for rows."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto

from flyweight.bundle.manifest import MANIFEST, SkippedEntry
from flyweight.bundle.read import Bundle, read_bundle
from flyweight.bundle.shards.constants import constant_rows
from flyweight.bundle.shards.counting import count_rows
from flyweight.bundle.shards.cut import Cut, cut_graph
from flyweight.bundle.shards.plan import LOOKUPS, MAX_SHARDS, By, Plan, plan_hash
from flyweight.bundle.shards.planned import Leaving, planned_tables
from flyweight.bundle.shards.read import read_front
from flyweight.bundle.shards.reader import Reader
from flyweight.bundle.shards.shard_folder import deal_rows, write_record
from flyweight.bundle.shards.tables import Found, find_tables, lookups_of
from flyweight.bundle.shards.write_front import write_front, write_lookups
from flyweight.bundle.whole_folder import disk_errors_in_words, flush_folder, part_beside
from flyweight.bundle.write import check_target
from flyweight.errors import InputError
from flyweight.task.change import Skipped

#: Tables of fewer bytes are quicker looked up where the model runs, and cost no memory to speak of.
OVER = 2**20
Batches = Iterable[Mapping[str, Any]]


@dataclass(frozen=True)
class Sharded:
    """A bundle that was split.

    Args:
        path: the folder with the front, and the shards in folders `shard-0`, `shard-1`, ...
        plan: which rows lie where.
        front_bytes: what the front takes on disk.
    """

    path: Path
    plan: Plan
    front_bytes: int

    def __str__(self) -> str:
        head = f"{self.path}: {self.plan.shards} shards by {self.plan.by}; the front takes {self.front_bytes:,} bytes"
        shards = [f"  shard-{number}: {file.bytes:,} bytes" for number, file in enumerate(self.plan.files)]
        tables = [
            f"  {one.name}: {one.rows:,} rows of {one.dtype} {one.row or ''}".rstrip() for one in self.plan.tables
        ]
        kept = [f"  not split: {one.what}: {one.why}" for one in self.plan.kept]
        return "\n".join([head, *shards, *tables, *kept])


def shard(
    path: str | Path,
    out: str | Path,
    *,
    shards: int,
    by: By = "rows",
    over: int = OVER,
    traffic: Batches | None = None,
) -> Sharded:
    """Split a bundle's large tables over N shards; scores stay what they were.

    Args:
        path: the bundle.
        out: the folder to write: the front, and in it a folder for each shard, to be copied to its host.
        by: "rows" deals the rows of every table in turns, so that all shards are asked alike; "tables" gives each
            table, or part of a stack of tables, to one shard, the largest first to the emptiest.
        over: tables of fewer bytes stay in the front.
        traffic: flat batches of inputs, as `predict` takes them; what stands in for rows of a shard that is away is
            then weighted by how often a row is asked for. None counts each row once.

    Raises:
        BundleError: the bundle is damaged, altered, incomplete, newer or not to be trusted.
        InputError: no table is large enough, or has as many rows as there are shards; the target exists; the disk is
            full.

    Example:
        >>> print(shard("ranker.fly", "sharded.fly", shards=2))  # doctest: +SKIP
    """
    _check_wanted(shards, by, over)
    target = Path(out)
    if target.exists() or target.is_symlink():
        raise InputError(f"{target} exists and is never overwritten; choose another path.")
    check_target(target, overwrite=False)
    bundle = read_bundle(path)
    model = onnx.load(bundle.model, load_external_data=False)
    reader = Reader(model.graph, next(one.version for one in model.opset_import if one.domain in ("", "ai.onnx")))
    found, kept = find_tables(reader, over)
    _check_found(reader, found, kept, shards, over, by, bundle.path)
    leaving = tuple(_leaving(model, reader, bundle, found))
    source = _Source(bundle, cut_graph(model, reader, found), leaving, tuple(kept))
    needed = sum(one.rows.nbytes for one in source.leaving) + sum(bundle.sizes.values())
    with disk_errors_in_words(target, needed, "sharded bundle"):
        target.parent.mkdir(parents=True, exist_ok=True)
        with part_beside(target) as part:
            plan = _write(part, source, shards, by, over, traffic)
            front = read_front(part)
            flush_folder(part)
            part.rename(target)
            flush_folder(target.parent)
    return Sharded(target, plan, sum(front.bundle.sizes.values()))


@dataclass(frozen=True)
class _Source:
    """What is split: the bundle, its graph in two, and the tables between them."""

    bundle: Bundle
    cut: Cut
    leaving: tuple[Leaving, ...]
    kept: tuple[Skipped, ...]


def _leaving(model: ModelProto, reader: Reader, bundle: Bundle, found: Sequence[Found]) -> Iterator[Leaving]:
    for table in found:
        rows = constant_rows(model, reader, table.name, bundle.path)
        words = None if table.codebook is None else constant_rows(model, reader, table.codebook, bundle.path)
        yield Leaving(table, rows, words)


def _write(part: Path, source: _Source, shards: int, by: By, over: int, traffic: Batches | None) -> Plan:
    """Write the front and the shards into a folder and return the plan."""
    bundle, cut, leaving = source.bundle, source.cut, source.leaving
    write_lookups(part, cut, bundle)
    counts: list[NDArray[np.int64] | None] = [None] * len(leaving)
    if traffic is not None:
        counts = [*count_rows(bundle, part / LOOKUPS, cut.plan, [one.rows.shape[0] for one in leaving], traffic)]
    tables = planned_tables(leaving, counts, shards, by)
    dealt = deal_rows(part, shards, [(table, one.rows) for table, one in zip(tables, leaving, strict=True)])
    plan = Plan(
        shards=shards,
        by=by,
        over=over,
        tables=tables,
        lookups=list(cut.plan),
        files=list(dealt.files),
        source=hashlib.sha256((bundle.path / MANIFEST).read_bytes()).hexdigest(),
        kept=[SkippedEntry.model_validate(one) for one in source.kept],
    )
    for number in range(shards):
        write_record(part, bundle.manifest.name, plan_hash(plan), number, tables, dealt)
    write_front(part, cut, bundle, plan)
    return plan


def _check_wanted(shards: int, by: str, over: int) -> None:
    if isinstance(shards, bool) or not isinstance(shards, int) or not 1 <= shards <= MAX_SHARDS:
        raise InputError(f"shards must be a whole number from 1 to {MAX_SHARDS:,}; seen {shards!r}.")
    if by not in ("rows", "tables"):
        raise InputError(f"by must be 'rows' or 'tables'; seen {by!r}.")
    if over < 0:
        raise InputError(f"over is a number of bytes, 0 or more; seen {over!r}.")


def _check_found(
    reader: Reader, found: Sequence[Found], kept: Sequence[Skipped], shards: int, over: int, by: str, path: Path
) -> None:
    if not found:
        sizes = {name: reader.bytes(name) for name in lookups_of(reader)}
        largest = max(sizes, key=lambda name: sizes[name], default=None)
        seen = "it has none" if largest is None else f"the largest, {largest!r}, has {sizes[largest]:,}"
        why = f" ({kept[0]})" if kept else ""
        raise InputError(
            f"{path} has no table of {over:,} bytes or more that can be split; {seen}{why}. Serve it whole, or lower "
            "the bound (over=, --over)."
        )
    short = min(found, key=lambda one: one.shape[0])
    if by == "rows" and short.shape[0] < shards:
        raise InputError(
            f"{shards:,} shards are more than the {short.shape[0]:,} rows of table {short.name!r} ({short.bytes:,} "
            "bytes). Ask for fewer, or keep that table in the front (over=, --over)."
        )
    parts = sum(len(one.edges) for one in found)
    if by == "tables" and parts < shards:
        raise InputError(
            f"{shards:,} shards are more than the {parts:,} tables of {path} that can be split: "
            f"{', '.join(repr(one.name) for one in found[:4])}. Ask for fewer, or split by rows."
        )

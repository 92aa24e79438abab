"""The plan of a sharded bundle: which rows of which table lie in which shard, and how the graph asks for them."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from flyweight.bundle.entry import Count, Entry, File, Name, Sha256, Text
from flyweight.bundle.manifest import FORMAT, Dtype, Manifest, Size, SkippedEntry
from flyweight.bundle.samples import ArrayEntry
from flyweight.bundle.strict_json import checksum

#: Of a sharded bundle without vocabularies; with them it is that of any bundle with them.
SHARDED_FORMAT = 3
#: The graph that works out which rows a request asks for.
LOOKUPS = "lookups.onnx"
MAX_SHARDS = 1024
By = Literal["rows", "tables"]
Shard = Annotated[int, Field(ge=0, lt=MAX_SHARDS)]


class Piece(Entry):
    """Rows `start` to `stop` of a table, dealt in turns: row start + i lies in shard `shards[i % len(shards)]`."""

    start: Count
    stop: Count
    shards: Annotated[list[Shard], Field(min_length=1, max_length=MAX_SHARDS)]


class ShardedTable(Entry):
    """A table that lies in the shards.

    Args:
        name: of the value that the graph looked rows up in.
        rows: how many there are; for packed codes these are bytes of codes.
        row: the dimensions of one.
        dtype: of its numbers.
        pieces: every row in one of them, in order.
        edges: rows at which a part with a stand-in of its own begins; the first is 0.
        stand_ins: (edges, *row) what stands in for a row whose shard is away.
        stand_in: how that was made, in words.
    """

    name: Name
    rows: Annotated[int, Field(ge=1, le=2**48)]
    row: Annotated[list[Size], Field(max_length=8)]
    dtype: Dtype
    pieces: Annotated[list[Piece], Field(min_length=1, max_length=65_536)]
    edges: Annotated[list[Count], Field(min_length=1, max_length=65_536)]
    stand_ins: ArrayEntry
    stand_in: Text

    @model_validator(mode="after")
    def _covers(self) -> "ShardedTable":
        ends = [0, *(piece.stop for piece in self.pieces)]
        starts = [*(piece.start for piece in self.pieces), self.rows]
        rising = all(piece.start < piece.stop for piece in self.pieces)
        if ends != starts or not rising or any(len(set(one.shards)) != len(one.shards) for one in self.pieces):
            raise ValueError(f"pieces do not cover the {self.rows:,} rows of {self.name!r} once")
        edges = self.edges
        if edges[0] != 0 or edges != sorted(set(edges)) or edges[-1] >= self.rows:
            raise ValueError(f"edges of {self.name!r} do not rise from 0 within its rows")
        if self.stand_ins.dtype != self.dtype or self.stand_ins.shape != [len(edges), *self.row]:
            raise ValueError(f"stand-ins of {self.name!r} are not rows of it, one for each edge")
        return self


class Lookup(Entry):
    """One lookup of the graph.

    Args:
        table: its place among the plan's tables.
        places: the output of `lookups.onnx` that says which rows.
        rows: the input of `model.onnx` that takes them, of the shape of `places` followed by that of a row.
    """

    table: Count
    places: Name
    rows: Name


class Plan(Entry):
    """How a bundle was split.

    Args:
        shards: how many there are.
        by: "rows": every table is dealt over all shards; "tables": each part of one lies in one shard.
        over: tables of fewer bytes stay in the front.
        tables, lookups: what was taken out of the graph.
        files: size and hash of each shard's rows.
        source: the hash of the manifest of the bundle that was split.
        kept: tables that are large and stay in the front all the same, and why.
    """

    shards: Annotated[int, Field(ge=1, le=MAX_SHARDS)]
    by: By
    over: Count
    tables: Annotated[list[ShardedTable], Field(min_length=1, max_length=4096)]
    lookups: Annotated[list[Lookup], Field(min_length=1, max_length=4096)]
    files: Annotated[list[File], Field(min_length=1, max_length=MAX_SHARDS)]
    source: Sha256
    kept: list[SkippedEntry] = Field(default_factory=list)

    @model_validator(mode="after")
    def _fits(self) -> "Plan":
        if len(self.files) != self.shards:
            raise ValueError(f"{len(self.files)} files for {self.shards} shards")
        if any(shard >= self.shards for table in self.tables for piece in table.pieces for shard in piece.shards):
            raise ValueError(f"a row lies in a shard that is not among the {self.shards}")
        if any(one.table >= len(self.tables) for one in self.lookups):
            raise ValueError(f"a lookup reads a table that is not among the {len(self.tables)}")
        if len({one.rows for one in self.lookups}) < len(self.lookups):
            raise ValueError("two lookups give one input")
        return self


class ShardedManifest(Manifest):
    """`manifest.json` of a sharded bundle: that of the bundle it was made of, and the plan."""

    format: Annotated[int, Field(ge=SHARDED_FORMAT, le=FORMAT)]
    files: dict[  # type: ignore[assignment]
        Literal["model.onnx", "model.onnx.data", "samples.json", "vocabularies.safetensors", "lookups.onnx"], File
    ]
    shards: Plan


def plan_hash(plan: Plan) -> str:
    """Return the SHA-256 by which a front and its shards know each other."""
    return checksum(plan.model_dump())

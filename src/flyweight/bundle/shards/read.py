"""Reading the front of a sharded bundle: checked as any bundle is, and its plan against its graphs."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import GraphProto, ModelProto, ValueInfoProto, helper

from flyweight.bundle.files import LIMITS, OPTIONAL, check_file, check_folder, list_sizes, read_bytes
from flyweight.bundle.graph import Graph, check_graph
from flyweight.bundle.manifest import DATA, MANIFEST, MODEL, REPORT, SAMPLES, TIMING, InputEntry
from flyweight.bundle.read import Bundle, check_hash, check_records, checked_vocabularies, read_samples, read_timing
from flyweight.bundle.shards.plan import LOOKUPS, Plan, ShardedManifest, plan_hash
from flyweight.bundle.shards.shard_folder import FOLDER
from flyweight.bundle.strict_json import parse, validate
from flyweight.errors import BundleError
from flyweight.task.field import REQUEST_INDEX, REQUESTS

FILES = {**LIMITS, LOOKUPS: 2**26}


@dataclass(frozen=True)
class Front:
    """The front of a sharded bundle.

    Args:
        bundle: as a ranker takes it; its model needs the rows of the plan's lookups beside its own inputs.
        plan: what lies in which shard.
        hash: of the plan.
        taken: the bundle's own inputs that its model takes, `request_index` among them.
    """

    bundle: Bundle
    plan: Plan
    hash: str
    taken: frozenset[str]

    @property
    def lookups(self) -> Path:
        """Path of the graph that says which rows a call asks for."""
        return self.bundle.path / LOOKUPS


def is_sharded(path: str | Path) -> bool:
    """Return whether a folder is the front of a sharded bundle."""
    return os.path.isfile(Path(path) / LOOKUPS)  # pathlib's raises where a name is too long


def read_front(path: str | Path) -> Front:
    """Read and check the front of a sharded bundle; the shards beside it, if they lie there, are not looked at.

    Raises:
        BundleError: it is damaged, altered, incomplete, newer, or asks for what no bundle may.
    """
    path = Path(path)
    try:
        return _read(path)
    except OSError as error:
        raise BundleError(f"{path} cannot be read ({error.strerror}); check the path.") from None


def _read(path: Path) -> Front:
    check_folder(path)
    sizes = list_sizes(path, FILES, OPTIONAL, beside=FOLDER)
    data = read_bytes(path / MANIFEST)
    manifest = validate(ShardedManifest, parse(data, str(path / MANIFEST)), str(path / MANIFEST))
    check_records(manifest, path / MANIFEST)
    timing = read_timing(path)
    for name in sorted({MANIFEST, REPORT} - timing.files.keys()):
        raise BundleError(f"{path / TIMING} lacks the hash of {name}; the bundle was altered: get it again.")
    check_hash(path / MANIFEST, timing.files["manifest.json"], data)
    check_file(path / REPORT, timing.files["report.html"])
    odd = sorted(set(manifest.files) ^ (set(sizes) - {MANIFEST, TIMING, REPORT}))
    odd += sorted({MODEL, SAMPLES, LOOKUPS} - set(manifest.files))
    if odd:
        raise BundleError(f"{path / odd[0]} is on disk or in the manifest, not in both; get the bundle again.")
    if DATA in sizes:
        check_file(path / DATA, manifest.files["model.onnx.data"])
    graph, taken = _check_graphs(path, manifest, sizes.get(DATA))
    samples = read_samples(path, manifest, graph)
    bundle = Bundle(path, manifest, timing, samples, graph, sizes, checked_vocabularies(path, manifest))
    return Front(bundle, manifest.shards, plan_hash(manifest.shards), taken)


def _check_graphs(path: Path, manifest: ShardedManifest, data_bytes: int | None) -> tuple[Graph, frozenset[str]]:
    """Check both graphs; return what the bundle's own graph was, and which of its inputs the front takes."""
    contents = {name: read_bytes(path / name, FILES[name]) for name in (LOOKUPS, MODEL)}
    for name, content in contents.items():
        check_hash(path / name, manifest.files[name], content)  # type: ignore[index]
    lookups = check_graph(contents[LOOKUPS], None, manifest.inputs, str(path / LOOKUPS), "lookups")
    graphs = {name: ModelProto.FromString(content).graph for name, content in contents.items()}
    rows = {one.rows for one in manifest.shards.lookups}
    taken = {value.name: _entry(value) for value in graphs[MODEL].input if value.name in rows}
    given = {**manifest.inputs, **taken}
    if len(given) < len(manifest.inputs) + len(taken) or taken.keys() != rows:
        raise BundleError(f"{path / MODEL} does not take the rows that the plan looks up; get the bundle again.")
    front = check_graph(contents[MODEL], data_bytes, given, str(path / MODEL), "front")
    _check_plan(manifest.shards, graphs, str(path))
    firsts = {
        value.name: value.type.tensor_type.shape.dim[0].dim_param
        for graph in graphs.values()
        for value in graph.input
        if value.name not in rows
    }
    hoisted = REQUEST_INDEX in firsts
    names = tuple(name for name in manifest.inputs if name in firsts)
    out = graphs[MODEL].output[0].type.tensor_type.shape.dim[0].dim_param
    requests = frozenset(name for name in names if hoisted and firsts[name] == REQUESTS)
    known = {out, REQUESTS} if hoisted else {out}
    flat = frozenset(name for name in names if out in firsts.values() and firsts[name] not in known)
    own = frozenset(value.name for value in graphs[MODEL].input if value.name not in rows)
    return Graph(names, flat, front.output, front.nodes + lookups.nodes, requests), own


def _entry(value: ValueInfoProto) -> InputEntry:
    """Return what the graph takes of a lookup's rows, as an input of a manifest says it."""
    tensor = value.type.tensor_type
    dims = [dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim]
    first = tensor.shape.dim[0].dim_param if dims else ""
    dtype = str(helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    role = "request" if first == REQUESTS else "candidate"
    return InputEntry.model_construct(role=role, rows=None, dtype=dtype, shape=dims[1:], unknown=None)


def _check_plan(plan: Plan, graphs: dict[str, GraphProto], where: str) -> None:
    """Check that rows come in the type and the shape that the graph takes them in."""
    outputs = {value.name: value for value in graphs[LOOKUPS].output}
    inputs = {value.name: value for value in graphs[MODEL].input}
    for one in plan.lookups:
        table = plan.tables[one.table]
        if one.places not in outputs:
            raise BundleError(f"{where}: {LOOKUPS} does not make {one.places!r} of the plan; get the bundle again.")
        places, rows = (v.type.tensor_type for v in (outputs[one.places], inputs[one.rows]))
        due = helper.np_dtype_to_tensor_dtype(np.dtype(table.dtype))
        row = [dim.dim_value for dim in rows.shape.dim][len(places.shape.dim) :]
        if rows.elem_type != due or row != table.row or len(rows.shape.dim) != len(places.shape.dim) + len(row):
            raise BundleError(
                f"{where}: the graph takes rows {one.rows[:80]!r} of another shape or type than the plan's table "
                f"{table.name[:80]!r}, {table.dtype} of {table.row}; get the bundle again."
            )


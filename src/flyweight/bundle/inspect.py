"""What a bundle says of itself, as one plain JSON value."""

from pathlib import Path
from typing import Any

from flyweight.bundle.manifest import EstimateEntry, Manifest, MeasurementEntry
from flyweight.bundle.read import read_bundle
from flyweight.bundle.shards.plan import ShardedManifest
from flyweight.bundle.shards.read import is_sharded, read_front
from flyweight.bundle.timing import LatencyEntry


def inspect(path: str | Path) -> dict[str, Any]:
    """Return size, work, quality, drop and latency before and after, the engine and what was skipped; in bytes and ms.

    `bytes` is what the model takes on disk; for "before" that of the float32 ONNX export. Vocabularies, the shop's own
    data, are told apart and count in no other number. Numbers that could not be had are None.

    Raises:
        BundleError: the bundle is damaged, altered, incomplete, newer or not to be trusted.

    Example:
        >>> inspect("ranker.fly")["drop"]["certified"]  # doctest: +SKIP
        True
    """
    bundle = read_front(path).bundle if is_sharded(path) else read_bundle(path)
    manifest, timing = bundle.manifest, bundle.timing
    latency = timing.latency
    return {
        "name": manifest.name,
        "format": manifest.format,
        "flyweight": manifest.flyweight,
        "inputs": {name: spec.model_dump() for name, spec in manifest.inputs.items()},
        "output": manifest.output,
        "before": _measured(manifest.before),
        "after": _measured(manifest.after),
        "drop": _dropped(manifest),
        "certificate": manifest.certificate.model_dump(exclude={"guards"}),
        "guards": {name: guard.model_dump() for name, guard in manifest.certificate.guards.items()},
        "tables": [table.model_dump() for table in manifest.tables],
        "curve": [point.model_dump() for point in manifest.curve],
        "recipe": [step.model_dump() for step in manifest.recipe],
        "skipped": [one.model_dump() for one in manifest.skipped],
        "latency_ms": {
            "before": _timed(latency.before),
            "before_exported": _timed(latency.before_exported),
            "after": _timed(latency.after),
        },
        "engine": timing.engine,
        "threads": timing.threads,
        "engines": [tried.model_dump() for tried in timing.engines],
        "hardware": timing.hardware.model_dump(),
        "versions": dict(timing.versions),
        "resident_bytes": dict(timing.resident_bytes),
        "wall_seconds": timing.wall_seconds,
        "samples": len(bundle.samples),
        "files": dict(bundle.sizes),
        "vocabularies": {
            name: {"values": len(one), "bytes": one.nbytes} for name, one in bundle.vocabularies.items()
        },
        **_split(manifest),
    }


def _split(manifest: Manifest) -> dict[str, Any]:
    """Return, of a sharded bundle, how it was split."""
    if not isinstance(manifest, ShardedManifest):
        return {}
    plan = manifest.shards
    tables = {one.name: {"rows": one.rows, "row": one.row, "dtype": one.dtype} for one in plan.tables}
    kept = [one.model_dump() for one in plan.kept]
    bytes_of = [one.bytes for one in plan.files]
    return {"shards": {"count": plan.shards, "by": plan.by, "bytes": bytes_of, "tables": tables, "kept": kept}}


def _measured(measured: MeasurementEntry) -> dict[str, Any]:
    return {
        "bytes": measured.bytes,
        "table_bytes": measured.table_bytes,
        "macs": measured.macs,
        "quality": _estimated(measured.quality),
        "guards": {name: _estimated(guard) for name, guard in measured.guards.items()},
        "split": measured.split,
    }


def _estimated(estimate: EstimateEntry) -> dict[str, Any]:
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high, "n": estimate.n}


def _dropped(manifest: Manifest) -> dict[str, Any]:
    certified = manifest.certificate.certified
    return {**_estimated(manifest.drop), "confidence": manifest.drop.confidence, "certified": certified}


def _timed(latency: LatencyEntry | None) -> dict[str, Any] | None:
    return None if latency is None else latency.model_dump()

"""What all workers counted, in the text format that Prometheus reads; the library writes it.

prometheus_client's own multiprocess mode is not used: it keeps a file for each process and needs an environment
variable before it is imported, and its counters cost several times as much a request. So workers count in plain
numbers, and these are made metrics when someone asks.
"""

import math
import re
from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import Any

import flyweight
from flyweight.serving.gathering import Snapshot
from flyweight.serving.latency_sketch import quantile_of
from flyweight.serving.recent import Recent, recent_of
from flyweight.serving.score_reference import noise_of, stability_index
from flyweight.serving.series import HISTOGRAMS
from flyweight.serving.shard_watch import DEGRADED, SHARDS

_ODD_VERSION = re.compile(r"version=(?!\d{1,4}\.\d{1,4}\.\d{1,4} *(?:[;,]|$))")
References = Mapping[str, Mapping[str, tuple[list[int], float]]]
QUANTILES = (0.5, 0.95, 0.99)
#: Moments that the quantiles are of: a minute.
QUANTILE_MOMENTS = 12
LABELS = ["model", "version"]
#: Metric and its words for each histogram.
_HISTOGRAMS = {
    "seconds": ("flyweight_request_seconds", "Seconds from a request's tensors to its scores"),
    "queue": ("flyweight_queue_seconds", "Seconds that a request waited for the engine"),
    "engine": ("flyweight_engine_seconds", "Seconds in the engine, with the requests that it was joined to"),
    "batch": ("flyweight_batch_requests", "Requests that were scored together, as each of them saw it"),
    "candidates": ("flyweight_request_candidates", "Candidates of a request"),
}


def write_metrics(snapshot: Snapshot, references: References, accept: str) -> tuple[bytes, str]:
    """Return the metrics' text and its content type, the newest form that the caller accepts."""
    from prometheus_client import CollectorRegistry
    from prometheus_client.exposition import choose_encoder

    class Collected:
        def collect(self) -> Iterator[Any]:
            yield from _counts(snapshot)
            yield from _gauges(snapshot)
            yield from _quantiles(snapshot)
            yield from _drift(snapshot, references)

    registry = CollectorRegistry()
    registry.register(Collected())
    # Of a version that is none the library makes a fault of the service; who names one gets the oldest form.
    encode, content_type = choose_encoder("" if _ODD_VERSION.search(accept) else accept)
    return encode(registry), content_type


def _series(snapshot: Snapshot) -> Iterator[tuple[list[str], dict[str, Any]]]:
    for model, versions in sorted(snapshot["lasting"].items()):
        for version, series in sorted(versions.items()):
            yield [model, version], series


def _counts(snapshot: Snapshot) -> Iterator[Any]:
    from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily

    families = {
        "requests": CounterMetricFamily(
            "flyweight_requests", "Requests, refused ones too", labels=[*LABELS, "protocol"]
        ),
        "errors": CounterMetricFamily("flyweight_errors", "Requests that got no scores", labels=[*LABELS, "kind"]),
        "unknown": CounterMetricFamily(
            "flyweight_unknown_ids", "Ids that the vocabulary does not hold", labels=[*LABELS, "field"]
        ),
    }
    degraded = CounterMetricFamily(
        "flyweight_degraded", "Answers with stand-ins for rows of a shard that was away", labels=LABELS
    )
    candidates = CounterMetricFamily("flyweight_candidates", "Candidates that were scored", labels=LABELS)
    histograms = {
        name: HistogramMetricFamily(metric, words, labels=LABELS) for name, (metric, words) in _HISTOGRAMS.items()
    }
    for labels, series in _series(snapshot):
        for name, family in families.items():
            for label, count in sorted(series[name].items()):
                family.add_metric([*labels, label], count)
        if DEGRADED in series:
            degraded.add_metric(labels, series[DEGRADED])
        candidates.add_metric(labels, series["histograms"]["candidates"][-1])
        for name, histogram in histograms.items():
            *counts, total = series["histograms"][name]
            ends = [*(f"{bound:g}" for bound in HISTOGRAMS[name]), "+Inf"]
            histogram.add_metric(labels, list(zip(ends, accumulate(counts), strict=True)), total)
    yield from (*families.values(), degraded, candidates, *histograms.values())


def _gauges(snapshot: Snapshot) -> Iterator[Any]:
    from prometheus_client.metrics_core import GaugeMetricFamily

    now = snapshot["now"]
    waiting = GaugeMetricFamily("flyweight_waiting_requests", "Requests in queues", labels=LABELS)
    for model, versions in sorted(now["waiting"].items()):
        for version, count in sorted(versions.items()):
            waiting.add_metric([model, version], count)
    memory = GaugeMetricFamily(
        "flyweight_memory_bytes", "All workers' memory; pss counts what they share once, rss for each", labels=["kind"]
    )
    for kind, count in sorted(now["memory"].items()):
        memory.add_metric([kind], count)
    away = GaugeMetricFamily(
        "flyweight_shard_away", "Workers that cannot reach a shard's server", labels=[*LABELS, "shard"]
    )
    for model, versions in sorted(now.get(SHARDS, {}).items()):
        for version, shards in sorted(versions.items()):
            for shard, count in sorted(shards.items()):
                away.add_metric([model, version, shard], count)
    info = GaugeMetricFamily("flyweight_info", "Flyweight's version", labels=["version"])
    info.add_metric([flyweight.__version__], 1)
    nodes = GaugeMetricFamily("flyweight_replicas", "On Ray, replicas that serve, by node", labels=["node"])
    for node, count in sorted(now.get("nodes", {}).items()):
        nodes.add_metric([node], count)
    workers = GaugeMetricFamily("flyweight_workers", "Workers that serve", now["workers"])
    yield from (waiting, memory, away, info, nodes, workers)


def _quantiles(snapshot: Snapshot) -> Iterator[Any]:
    from prometheus_client.metrics_core import GaugeMetricFamily

    latency = GaugeMetricFamily(
        "flyweight_latency_seconds",
        "Quantiles of flyweight_request_seconds in the last minute, within 2 %",
        labels=[*LABELS, "quantile"],
    )
    for labels, recent in _recents(snapshot, QUANTILE_MOMENTS):
        for share in QUANTILES if recent.latency else ():
            latency.add_metric([*labels, f"{share:g}"], quantile_of(recent.latency, share))
    yield latency


def _recents(snapshot: Snapshot, moments: int | None = None) -> Iterator[tuple[list[str], Recent]]:
    for model, versions in sorted(snapshot["now"]["recent"].items()):
        for version, found in sorted(versions.items()):
            yield [model, version], recent_of(found, moments)


def _drift(snapshot: Snapshot, references: References) -> Iterator[Any]:
    from prometheus_client.metrics_core import GaugeMetricFamily

    words = {
        "psi": "Population stability index of five minutes' scores against those of the bundle's stored requests",
        "psi_noise": "What flyweight_score_drift_psi is where nothing has shifted, as so few scores are compared",
    }
    drift = {
        name: GaugeMetricFamily(f"flyweight_score_drift_{name}", one, labels=LABELS) for name, one in words.items()
    }
    mean = GaugeMetricFamily(
        "flyweight_score_mean", "Mean score of five minutes, and of the stored requests", labels=[*LABELS, "of"]
    )
    for labels, recent in _recents(snapshot):
        reference = references.get(labels[0], {}).get(labels[1])
        if reference is None or len(reference[0]) != len(recent.bins) or not sum(recent.bins):
            continue
        drift["psi"].add_metric(labels, stability_index(reference[0], recent.bins))
        drift["psi_noise"].add_metric(labels, noise_of(reference[0], recent.bins))
        mean.add_metric([*labels, "served"], recent.score_sum / sum(recent.bins))
        if math.isfinite(reference[1]):
            mean.add_metric([*labels, "stored"], reference[1])
    yield from (*drift.values(), mean)

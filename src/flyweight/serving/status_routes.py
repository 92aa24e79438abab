"""`/metrics` for Prometheus, `/v1/status` for people and the page, and the stored requests that one may send."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import flyweight
from flyweight.bundle.samples import Sample
from flyweight.serving.exposition import write_metrics
from flyweight.serving.gathering import Snapshot
from flyweight.serving.metering import Metering
from flyweight.serving.openapi import infer_example, rank_example
from flyweight.serving.recent import history_of, recent_of
from flyweight.serving.repository import Model, Repository
from flyweight.serving.routes import answer_json
from flyweight.serving.score_reference import noise_of, stability_index
from flyweight.serving.served import Served

#: Stored requests that the page offers, the candidates of each, and its rows where a model takes none.
SAMPLES, CANDIDATES, ROWS = 5, 20, 3


class StatusRoutes:
    """The handlers.

    Args:
        repository: the models of this worker; all workers have the same.
        metering: of this worker.
        collect: gives what all workers counted.
    """

    def __init__(
        self, repository: Repository, metering: Metering, collect: Callable[[], Awaitable[Snapshot]]
    ) -> None:
        self._repository = repository
        self._metering = metering
        self._collect = collect

    def routes(self) -> list[Route]:
        """Return all of them."""
        return [
            Route("/metrics", self._metrics),
            Route("/v1/status", self._status),
            Route("/v1/status/models/{model}/samples", self._samples),
        ]

    async def _metrics(self, request: Request) -> Response:
        snapshot = await self._collect()
        references, accept = self._metering.references(), request.headers.get("accept", "")
        # Milliseconds of work, which no request in the loop should wait for.
        text, kind = await asyncio.to_thread(write_metrics, snapshot, references, accept)
        return Response(text, headers={"content-type": kind})

    async def _status(self, request: Request) -> Response:
        snapshot = await self._collect()
        recent = snapshot["now"]["recent"]
        histories = await asyncio.to_thread(
            lambda: {name: history_of(found.values()) for name, found in recent.items()}
        )
        entries = sorted(self._repository.models.items())
        models = [
            {**self._model(name, entry, snapshot), "history": histories.get(name) or history_of([])}
            for name, entry in entries
        ]
        now = snapshot["now"]
        head = {"flyweight": flyweight.__version__, "draining": self._repository.draining}
        return answer_json({**head, "workers": now["workers"], "memory": now["memory"], "models": models})

    async def _samples(self, request: Request) -> Response:
        served = self._repository.answerer(request.path_params["model"], None, {})
        stored = served.opened.ranker.bundle.samples[:SAMPLES]
        if _is_ranked(served):
            route, samples = "v1/rank", [_rank_request(served, sample) for sample in stored]
        else:
            route = f"v2/models/{served.model}/infer"
            samples = [_infer_request(served, sample) for sample in stored]
        return answer_json({"route": route, "samples": samples})

    def _model(self, name: str, entry: Model, snapshot: Snapshot) -> dict[str, Any]:
        lasting = snapshot["lasting"].get(name, {})
        recent = snapshot["now"]["recent"].get(name, {})
        references = self._metering.references().get(name, {})
        versions = []
        for version, served in entry.versions.items():
            counts = lasting.get(version, {"requests": {}, "errors": {}})
            errors, requests = (sum(counts[key].values()) for key in ("errors", "requests"))
            drift = _drift(references.get(version), recent.get(version, {}))
            counted = {"answered": requests - errors, "errors": errors, "drift": drift}
            versions.append({**describe_version(served), **counted})
        return {
            "name": name,
            "ready": entry.answering is not None,
            "answering": entry.answering,
            "reason": entry.reason,
            **traffic_of(entry),
            "versions": versions,
            "refused": sum(sum(counts["errors"].values()) for counts in lasting.values()),
        }


def traffic_of(entry: Model) -> dict[str, Any]:
    """Return which versions have a part beside the one that answers."""
    rollout = entry.rollout
    return {
        "before": list(rollout.before),
        "canary": None if rollout.canary is None else asdict(rollout.canary),
        "shadow": None if rollout.shadow is None else asdict(rollout.shadow),
    }


def describe_version(served: Served) -> dict[str, Any]:
    """Return what a version is and what its certificate says; sizes in bytes, times in ms."""
    ranker = served.opened.ranker
    manifest, certificate = ranker.manifest, ranker.manifest.certificate
    tried = next((one for one in ranker.bundle.timing.engines if one.name == ranker.engine), None)
    latency = None if tried is None or tried.latency is None else tried.latency
    drop = manifest.drop
    return {
        "version": served.version,
        "name": manifest.name,
        "engine": ranker.engine,
        "size": {"before": manifest.before.bytes, "after": manifest.after.bytes},
        "drop": {"value": drop.value, "low": drop.low, "high": drop.high},
        "certificate": {
            "metric": certificate.metric,
            "margin": certificate.margin,
            "confidence": certificate.confidence,
            "certified": certificate.certified,
            "n": certificate.n,
        },
        "latency": None if latency is None else {"p50": latency.p50, "candidates": latency.candidates},
    }


def _drift(reference: tuple[list[int], float] | None, moments: dict[str, Any]) -> dict[str, Any] | None:
    bins = recent_of(moments).bins
    if reference is None or len(reference[0]) != len(bins) or not sum(bins):
        return None
    return {
        "psi": stability_index(reference[0], bins),
        "noise": noise_of(reference[0], bins),
        "scores": sum(bins),
    }


def _is_ranked(served: Served) -> bool:
    """Return whether `/v1/rank` answers with this model."""
    takes = served.opened.takes
    return bool(takes.offered) and not takes.flat and served.opened.ranker.manifest.output != "columns"


def _rank_request(served: Served, sample: Sample) -> dict[str, Any]:
    """Return a stored request as `/v1/rank` takes it."""
    takes = served.opened.takes
    asked = {name: np.asarray(sample.inputs[name])[:1] for name in takes.asked}
    offered = {name: np.asarray(sample.inputs[name])[:CANDIDATES] for name in takes.offered}
    return rank_example(served.model, asked, offered)


def _infer_request(served: Served, sample: Sample) -> dict[str, Any]:
    """Return a few rows of a stored batch as the protocol v2 takes them; all where inputs differ in length."""
    rows = None if served.opened.takes.flat else ROWS
    return infer_example({name: np.asarray(array)[:rows] for name, array in sample.inputs.items()})

"""Metrics: what is counted, how workers' counts are added, and that a worker that dies lowers none of them."""

import asyncio
import os
import re
import signal
import time
from pathlib import Path

import numpy as np
import orjson
import pytest
import tiny_models
from prometheus_client.parser import text_string_to_metric_families
from running_service import Service, body_of, request, started

from flyweight.bundle.samples import Sample
from flyweight.bundle.write import write_bundle
from flyweight.serving.exposition import write_metrics
from flyweight.serving.gathering import EMPTY, Gathering, added
from flyweight.serving.latency_sketch import ACCURACY, bucket_of, quantile_of
from flyweight.serving.refusal import Refusal
from flyweight.serving.score_reference import count_scores, noise_of, reference_of, stability_index


def scrape(service: Service) -> dict[tuple[str, ...], float]:
    """All samples of a scrape by name and the values of their labels, in the labels' order."""
    status, text, headers = service.ask("GET", "/metrics")
    assert status == 200
    assert headers["content-type"].startswith("text/plain; version=")
    return {
        (one.name, *(one.labels[label] for label in sorted(one.labels))): one.value
        for family in text_string_to_metric_families(text.decode())
        for one in family.samples
    }


@pytest.mark.parametrize("share", [0.5, 0.95, 0.99])
def test_quantile_of_buckets_is_within_its_accuracy(share: float) -> None:
    times = np.random.default_rng(0).lognormal(-6, 1.5, 5000)
    counts: dict[int, int] = {}
    for seconds in times:
        counts[bucket_of(seconds)] = counts.get(bucket_of(seconds), 0) + 1
    true = np.quantile(times, share, method="inverted_cdf")
    assert abs(quantile_of(counts, share) / true - 1) <= ACCURACY * 1.0001


def test_drift_of_the_same_scores_is_at_its_noise_and_of_shifted_ones_is_its_formula() -> None:
    rng = np.random.default_rng(1)
    reference = reference_of([Sample({}, rng.normal(size=500).astype(np.float32)) for _ in range(4)])
    assert reference is not None
    stored = reference.counts.tolist()
    assert stored == [200] * 10
    same = [
        stability_index(stored, count_scores(reference.edges, rng.normal(size=2000)).tolist()) for _ in range(200)
    ]
    assert np.mean(same) < 2 * noise_of(stored, [200] * 10)
    assert stability_index([1000, 1000], [1500, 500]) == pytest.approx(0.25 * np.log(3), rel=5e-3)
    assert reference_of([Sample({}, np.zeros((200, 3)))]) is None
    assert reference_of([Sample({}, np.zeros(20))]) is None


class Wire:
    """A worker's end that tells what it was given, or is gone."""

    def __init__(self, *counts: int) -> None:
        self.counts = list(counts)

    async def ask(self, verb: str) -> dict[str, object]:
        if not self.counts:
            raise Refusal("gone", "draining")
        now = {"workers": 1, "memory": {}, "waiting": {}, "recent": {}}
        return {"lasting": {"m": {"1": {"requests": {"http": self.counts.pop(0)}}}}, "now": now}


def test_sum_keeps_what_a_dead_worker_told() -> None:
    wires = {1: Wire(3, 5), 2: Wire(10, 11, 12)}
    gathering = Gathering(lambda: wires)  # type: ignore[arg-type, return-value]

    def total() -> tuple[int, int]:
        found = asyncio.run(gathering.collect())
        return found["lasting"]["m"]["1"]["requests"]["http"], found["now"]["workers"]

    assert total() == (13, 2)
    assert total() == (16, 2)
    del wires[1]
    assert total() == (17, 1)
    assert total() == (17, 1)  # the other has hung: its last counts stand for it
    assert added(EMPTY, EMPTY) == EMPTY


def test_sums_of_two_who_ask_at_once_never_fall() -> None:
    class Slow(Wire):
        pauses = iter([0.05, 0.0, 0.0])

        async def ask(self, verb: str) -> dict[str, object]:
            await asyncio.sleep(next(self.pauses))  # the first who asks waits the longest
            return await super().ask(verb)

    async def story() -> None:
        wires = {1: Wire(3, 5, 6), 2: Slow(10, 11, 12)}
        gathering = Gathering(lambda: wires)  # type: ignore[arg-type, return-value]
        first = asyncio.create_task(gathering.collect())
        await asyncio.sleep(0)
        totals = [await gathering.collect(), await first, await gathering.collect()]
        sums = [one["lasting"]["m"]["1"]["requests"]["http"] for one in totals]
        assert sums == sorted(sums)

    asyncio.run(story())


def test_scrape_counts_each_request_of_all_workers(hoisted: Path) -> None:
    with started(hoisted, "--workers", "2", "--drain", "0") as service:
        assert scrape(service)["flyweight_workers",] == 2
        seen: dict[str, int] = {}
        for number in range(40):  # each connection may reach another worker
            arrays = request(10, seed=number)
            arrays["item_id"][0] = 10**6 if number < 4 else 0  # refused: there is no such item
            status = service.post("/v2/models/ranker/infer", body_of(arrays))[0]
            seen[str(status)] = seen.get(str(status), 0) + 1
        service.ask("POST", "/v2/models/ranker/infer", b"{")
        service.ask("POST", "/v2/models/made-up-by-a-caller/infer", orjson.dumps(body_of(request(1))))
        found = scrape(service)
        assert found["flyweight_requests_total", "ranker", "http", "1"] == 40
        answered = seen["200"]
        assert answered == 36
        assert found["flyweight_candidates_total", "ranker", "1"] == 10 * answered
        assert found["flyweight_request_seconds_count", "ranker", "1"] == answered
        assert found["flyweight_request_seconds_bucket", "+Inf", "ranker", "1"] == answered
        assert found["flyweight_request_candidates_bucket", "10", "ranker", "1"] == answered
        assert found["flyweight_request_candidates_bucket", "1", "ranker", "1"] == 0
        assert found["flyweight_errors_total", "invalid", "ranker", ""] == 1
        assert found["flyweight_errors_total", "not_found", "", ""] == 1
        assert not any("made-up" in part for name in found for part in name)
        assert 0 < found["flyweight_latency_seconds", "ranker", "0.5", "1"] < 1
        assert 0 < found["flyweight_memory_bytes", "pss"] <= found["flyweight_memory_bytes", "rss"]
        engine, whole = (found[f"flyweight_{part}_seconds_sum", "ranker", "1"] for part in ("engine", "request"))
        assert 0 < engine < whole
        os.kill(service.workers()[0], signal.SIGKILL)
        service.wait_for("was killed")
        end = time.monotonic() + 20
        while (after := scrape(service))["flyweight_workers",] < 2:
            assert time.monotonic() < end
            time.sleep(0.1)
        fallen = {name for name, value in found.items() if re.search("_(total|count|bucket)$", name[0])
                  and after[name] < value}  # fmt: skip
        assert not fallen


def test_unknown_ids_are_counted_by_field(tmp_path: Path) -> None:
    inputs = {**tiny_models.INPUTS, "item_id": tiny_models.INPUTS["item_id"].model_copy(update={"unknown": 0})}
    made = tiny_models.contents(tmp_path / "export", proto=tiny_models.hoisted_ranker(), inputs=inputs)
    with started(write_bundle(tmp_path / "ranker.fly", made), "--drain", "0") as service:
        for unseen in (3, 2):
            arrays = request(10)
            arrays["item_id"][:unseen] = -1
            assert service.post("/v2/models/ranker/infer", body_of(arrays))[0] == 200
        assert scrape(service)["flyweight_unknown_ids_total", "item_id", "ranker", "1"] == 5
        status = service.ask("GET", "/v1/status")[1]["models"][0]
        assert (status["versions"][0]["answered"], len(status["history"])) == (2, 59)


@pytest.mark.parametrize("version", ["x", "1..0", "", "1.0.0x", "9" * 5000])
def test_version_that_is_none_gets_the_oldest_form(version: str) -> None:
    """prometheus_client compares it with numbers, which failed."""
    text, kind = write_metrics(EMPTY, {}, f"application/openmetrics-text; version={version}")
    assert kind.startswith("text/plain; version=0.0.4")
    assert b"flyweight_workers 0.0" in text
    newest = "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert write_metrics(EMPTY, {}, newest)[1].startswith("application/openmetrics-text; version=1.0.0")

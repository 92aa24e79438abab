"""Retrieval: how good the lists are, how many of the truly best faiss finds, and what a request takes.

    python benchmarks/retrieval.py                         # all three, about 20 minutes on one core the first time
    python benchmarks/retrieval.py --parts quality         # or search, latency: only these are measured anew
    python benchmarks/retrieval.py --items 1000 1000000    # generated items to search among

Writes results/models_retrieval.json and the tables of docs/retrieval.md.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import retrieval_cases
from flyweight.cost.hardware import PACKAGES, describe_hardware, package_versions
from flyweight.cost.latency import time_rounds
from flyweight.quality.intervals import estimate
from flyweight.task.metric import Metric
from flyweight.task.scores import evaluating
from flyweight.zoo.exact_search import ExactIndex, Vectors
from flyweight.zoo.faiss_search import FaissIndex, default_factory, recall_of, tune
from flyweight.zoo.retrieval import Retriever, request_vectors
from flyweight.zoo.retrieval_quality import judge
from retrieval_cases import Case, Fields, Ranker
from retrieval_tables import write_docs

RESULTS = Path(__file__).parent / "results" / "models_retrieval.json"
PARTS = ("quality", "search", "latency")
GENERATED = (10_000, 100_000, 1_000_000)
DIM = 64
#: Items asked for when a search is timed: what a ranker is then given.
K = 100
#: A graph of more items than this takes longer to build than the rest of the benchmark together.
GRAPH_UP_TO = 100_000
RECALLS = (0.95, 0.99)
#: Seconds of timing of one row.
SECONDS = 6.0
THREADS = 1
Json = dict[str, Any]


def measure_quality(case: Case) -> Json:
    """Return recall and NDCG of each ranker of a case, and how the last model differs from each reference."""
    judged = {ranker.name: judge(ranker.find(case.k), case.relevant) for ranker in case.rankers}
    model = judged[case.rankers[-1].name]
    rows = [
        {
            "name": ranker.name,
            "kind": ranker.kind,
            "recall": mean_of(judged[ranker.name].recall, case.groups),
            "ndcg": mean_of(judged[ranker.name].ndcg, case.groups),
            "gain": mean_of(model.recall - judged[ranker.name].recall, case.groups),
        }
        for ranker in case.rankers
    ]
    about = {"name": case.name, "what": case.what, "k": case.k, "items": case.items, "requests": len(case.relevant)}
    return {**about, "groups": len(np.unique(case.groups)), "rankers": rows}


def mean_of(values: NDArray[np.float64], groups: NDArray[np.int64]) -> Json:
    """Return the mean over requests with its interval by groups."""
    metric = Metric("mean", function=lambda outputs, _: float(np.mean(outputs)))
    one = estimate(metric, values, np.zeros(len(values)), groups)
    return {"value": one.value, "low": one.low, "high": one.high}


def clustered(items: int, requests: int, dim: int = DIM, seed: int = 0) -> tuple[Vectors, Vectors]:
    """Return generated items and requests: a thousand clusters of uneven size and items of uneven length.

    Towers give no even cloud: items of a kind lie together, few kinds hold most items, popular ones are longer.
    Requests lie near clusters as items do, drawn separately.
    """
    random = np.random.default_rng(seed)
    centres = random.standard_normal((1_000, dim), dtype=np.float32)
    share = 1 / np.arange(1, 1_001)

    def draw(count: int) -> Vectors:
        cluster = random.choice(1_000, size=count, p=share / share.sum())
        points = centres[cluster] + 0.7 * random.standard_normal((count, dim), dtype=np.float32)
        points *= random.lognormal(0.0, 0.2, size=(count, 1)).astype(np.float32) / np.sqrt(dim)
        return points

    return draw(items), draw(requests)


def measure_search(name: str, vectors: Vectors, asked: Vectors) -> list[Json]:
    """Return a row for the exact search and for each index of faiss: recall and milliseconds of one request.

    The first half of the requests tunes the effort, the other half is what the recall is reported on.
    """
    tuning, held = asked[: len(asked) // 2], asked[len(asked) // 2 :]
    exact = ExactIndex(vectors)
    rows = [{"index": "exact", "recall": 1.0, "effort": None, "build_seconds": 0.0}]
    calls: dict[str, Callable[[], Any]] = {"exact 0": _one_by_one(exact.search, held)}
    for factory in factories(len(vectors)):
        started = time.perf_counter()
        index = FaissIndex(vectors, factory)
        built = time.perf_counter() - started
        for goal in RECALLS if index.most_effort > 1 else (1.0,):
            if goal < 1:
                tune(index, exact, tuning, K, goal)
            row = {"index": factory, "recall": recall_of(index, exact, held, K), "effort": index.effort}
            rows.append({**row, "build_seconds": built})
            calls[f"{factory} {len(rows) - 1}"] = _one_by_one(_with_effort(index), held)
    rounds = time_rounds(calls, candidates=len(vectors), threads=THREADS, repeats=2_000, seconds=SECONDS * len(calls))
    for row, call in zip(rows, calls, strict=True):
        latency = rounds.latency(call)
        row |= {"set": name, "items": len(vectors), "dim": vectors.shape[1], "p50_ms": latency.p50}
        row |= {"p95_ms": latency.p95, "rounds": latency.repeats}
    return rows


def factories(items: int) -> list[str]:
    """Return what faiss builds for so many items: exact, inverted lists, and a graph where that is quick enough."""
    lists = default_factory(items) if items > GRAPH_UP_TO else f"IVF{1 << round(np.log2(4 * items**0.5))},Flat"
    return ["Flat", lists, *(["HNSW32"] if items <= GRAPH_UP_TO else [])]


def _with_effort(index: FaissIndex) -> Callable[[Vectors, int], Any]:
    """Return the index's search at the effort it has now: later tuning of the same index must not change it."""
    effort = index.effort

    def search(request: Vectors, k: int) -> Any:
        if effort is not None:
            index.set_effort(effort)
        return index.search(request, k)

    return search


def _one_by_one(search: Callable[[Vectors, int], Any], asked: Vectors) -> Callable[[], Any]:
    """Return a call that searches for the next request alone each time."""
    turn = iter(range(1 << 62))

    def call() -> Any:
        at = next(turn) % len(asked)
        return search(asked[at : at + 1], K)

    return call


def measure_latency(case: Case, ranker: Ranker) -> Json:
    """Return milliseconds of one request: tower, search, both, and the score of every item by the model as it is."""
    retriever, fields = ranker.retriever, ranker.fields
    assert retriever is not None
    assert fields is not None
    turn = iter(range(1 << 62))
    count = len(next(iter(fields.values())))

    def request() -> Fields:
        at = next(turn) % count
        return {name: values[at : at + 1] for name, values in fields.items()}

    vectors = request_vectors(retriever.model, request())
    calls: dict[str, Callable[[], Any]] = {
        "tower": lambda: request_vectors(retriever.model, request()),
        "search": lambda: retriever.index.search(vectors, K),
        "both": lambda: retriever.retrieve(request(), K),
        "every item": partial(_score_all, retriever, request, case.items),
    }
    rounds = time_rounds(calls, candidates=case.items, threads=THREADS, repeats=2_000, seconds=SECONDS * len(calls))
    times = {name: rounds.latency(name) for name in calls}
    return {
        "name": case.name,
        "model": type(retriever.model).__name__,
        "items": case.items,
        **{name: {"p50_ms": one.p50, "p95_ms": one.p95} for name, one in times.items()},
        "rounds": times["both"].repeats,
    }


def _score_all(retriever: Retriever, request: Callable[[], Fields], items: int) -> Any:
    """Score every item by the model's `forward`, as without retrieval, and take the best."""
    fields = request()
    if type(retriever.model).__name__ == "TwoTower":
        fields = {name: values.expand(items, *values.shape[1:]) for name, values in fields.items()}
        fields["item_id"] = torch.arange(1, items + 1)
    with evaluating(retriever.model), torch.no_grad():
        return torch.topk(retriever.model(**fields).reshape(-1), K)


def item_vectors(ranker: Ranker, items: int) -> tuple[Vectors, Vectors]:
    """Return a model's item vectors and the vectors of up to 1,000 of its requests."""
    assert ranker.retriever is not None
    assert ranker.fields is not None
    model = ranker.retriever.model
    with evaluating(model), torch.no_grad():
        vectors = model.candidates(item_id=torch.arange(1, items + 1)).numpy()
    some = np.random.default_rng(0).permutation(len(next(iter(ranker.fields.values()))))[:1_000]
    return vectors, request_vectors(model, {name: values[some] for name, values in ranker.fields.items()})


def measure(parts: list[str], generated: list[int]) -> Json:
    """Return what was measured, by part."""
    found: Json = {part: [] for part in parts}
    timed = set()
    for case in retrieval_cases.cases():
        say(f"{case.name}: {case.what}")
        model = case.rankers[-1]
        if "quality" in parts:
            found["quality"].append(measure_quality(case))
        if case.name in timed:
            continue
        timed.add(case.name)
        if "latency" in parts:
            found["latency"].append(measure_latency(case, model))
        if "search" in parts:
            found["search"] += measure_search(case.name, *item_vectors(model, case.items))
    for items in generated if "search" in parts else ():
        say(f"{items:,} generated items")
        found["search"] += measure_search("generated", *clustered(items, 1_000))
    return found


def say(words: str) -> None:
    """Tell whoever waits."""
    print(words, file=sys.stderr, flush=True)


def main() -> None:
    """Measure, write the JSON and the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--items", nargs="+", type=int, default=list(GENERATED))
    parser.add_argument("--docs", action="store_true", help="only write the tables of what was measured before")
    words = parser.parse_args()
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if not words.docs:
        import faiss

        torch.set_num_threads(THREADS)
        faiss.omp_set_num_threads(THREADS)
        started = time.perf_counter()
        kept |= measure(words.parts, words.items)
        hardware = describe_hardware()
        hardware["packages"] = package_versions((*PACKAGES, "faiss-cpu"))
        kept |= {"hardware": hardware, "threads": THREADS, "k": K, "seconds": round(time.perf_counter() - started, 1)}
        RESULTS.write_text(json.dumps(kept, indent=1) + "\n")
    write_docs(kept)


if __name__ == "__main__":
    main()

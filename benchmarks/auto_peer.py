"""What a search over the passes of ONNX Runtime, OpenVINO and NNCF finds in the same minutes: a peer for `compress`.

    python benchmarks/auto_peer.py --task complete-journey --minutes 10 --max-drop 0.001 --json out.json

As Olive's search does it: Optuna's TPE (multivariate, grouped) draws a recipe of passes, the file that they make is
scored on validation data and timed, until the minutes are over; the recipes that users try by hand come first. A recipe
counts where the measured drop is at most `max_drop`: the value itself, as is usual; what its interval says is told
beside. The best is the one whose size ratio times speedup is largest: bytes of the float32 ONNX file by bytes of the
file, eager PyTorch's median by the file's, both timed in turns in the same run.
"""

import argparse
import json
import math
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch

from auto_peer_engines import Running, open_file, probe
from auto_peer_passes import Arrays, Facts, Made, Recipe, facts_of, make
from auto_peer_space import first_recipes, in_words, suggest
from dense_harness import as_json, comparison_json
from dense_peers import quiet
from flyweight.cost.hardware import PACKAGES, describe_hardware, package_versions
from flyweight.cost.latency import in_turn, speedup, time_rounds
from flyweight.planning.artefact import artefact_scores, make_artefact
from flyweight.planning.certificate import Comparison, compare
from flyweight.planning.requests import as_arrays, sample_requests, served_rows, timed_requests
from flyweight.quality.intervals import non_inferior, paired_drop
from flyweight.task.estimate import Estimate
from flyweight.task.scores import Scores, evaluating
from flyweight.task.task import Split, Task
from flyweight.zoo.tasks import ZOO

#: Seconds of timing of one file beside the original, and requests that are timed in turn.
SECONDS, REQUESTS_IN_TURN = 3.0, 16
#: Resamples for intervals during the search, as the product's own search takes.
RESAMPLES = 200
#: What a failure is worth to the search, so that it learns to keep away.
FAILED = -50.0
Json = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Point:
    """A recipe that was tried.

    Args:
        number: in the order of trying; started, seconds: since the search began, and how long it took.
        recipe: its choices, and `words` the same in a line.
        made: the file; gone unless it is the best. None where it failed.
        bytes: of the file; size_ratio: of the float32 ONNX file to it.
        drop: paired drop of the metric on validation rows.
        latency_ms: median of one request; speedup: eager PyTorch's to it, with an interval.
        inside: whether the measured drop is at most the drop allowed; surely: whether its interval's bad end is.
        error: what went wrong; empty where nothing did.
    """

    number: int
    started: float
    seconds: float
    recipe: Recipe
    words: str
    made: Made | None = None
    bytes: int | None = None
    size_ratio: float | None = None
    drop: Estimate | None = None
    latency_ms: float | None = None
    speedup: Estimate | None = None
    inside: bool = False
    surely: bool = False
    error: str = ""

    @property
    def worth(self) -> float:
        """Size ratio times speedup; 0 where it failed."""
        return 0.0 if self.size_ratio is None or self.speedup is None else self.size_ratio * self.speedup.value


@dataclass(eq=False)
class Bench:
    """The original exported, its scores on validation, and how files are measured beside it."""

    task: Task
    folder: Path
    max_drop: float
    threads: int
    rows: int
    before: dict[Split, Scores] = field(default_factory=dict)

    def __post_init__(self) -> None:
        samples = sample_requests(self.task)
        rows = len(next(iter(samples[0].values())))
        made = make_artefact(self.task.model, samples, rows, self.folder / "original")
        self.original = Made(Path(made.exported.path), "onnxruntime", "f32")
        self.facts: Facts = facts_of(self.original.path)
        self.sample = self.folder / "sample.npz"
        np.savez(self.sample, **as_arrays(samples[0]))
        self.requests = timed_requests(self.task, self.rows, REQUESTS_IN_TURN)
        self.running = open_file(self.original.path, "onnxruntime", "f32", self.threads)

    def scores(self, split: Split, running: Running | None = None) -> Scores:
        """Return the scores of a split by a file, or by the original in ONNX Runtime."""
        if running is not None:
            return artefact_scores(self.task, running, split)
        if split not in self.before:
            self.before[split] = artefact_scores(self.task, self.running, split)
        return self.before[split]

    def measure(self, recipe: Recipe, folder: Path) -> Json:
        """Make a file by a recipe; return what `Point` tells of it."""
        with quiet():
            made = make(self.original.path, recipe, self._calibration(), folder)
            if "int8" not in recipe.get("weights", "int8") and recipe["engine"] == "openvino":
                wrong = probe(made.path, made.engine, made.precision, self.sample)
                if wrong is not None:
                    raise RuntimeError(wrong)
            running = open_file(made.path, made.engine, made.precision, self.threads)
        drop = self._drop(self.scores("validation", running))
        timed, faster = self._time(running)
        return {
            "made": made,
            "bytes": made.bytes,
            "size_ratio": self.original.bytes / made.bytes,
            "drop": drop,
            "latency_ms": timed["file"],
            "speedup": faster,
            "inside": drop.value <= self.max_drop,
            "surely": non_inferior(drop, self.max_drop),
        }

    def original_ms(self) -> dict[str, float]:
        """Return medians of the original, eager and in ONNX Runtime."""
        timed, _ = self._time(self.running)
        return {"eager": timed["eager"], "onnxruntime": timed["file"]}

    def certify(self, made: Made) -> Comparison:
        """Return the product's certificate for a file: the test split, once."""
        running = open_file(made.path, made.engine, made.precision, self.threads)
        return compare(self.task, self.scores("test"), self.scores("test", running), self.max_drop, 0.95)

    def _drop(self, after: Scores) -> Estimate:
        before, judged, metric = self.scores("validation"), self.task.judged, self.task.spec
        if not np.isfinite(after.outputs).all():
            raise ValueError("the file gives NaN or infinite scores")
        pair = [judged(metric, scores.outputs) for scores in (before, after)]
        return paired_drop(metric, pair[0], pair[1], before.targets, before.groups, resamples=RESAMPLES)

    def _time(self, running: Running) -> tuple[dict[str, float], Estimate]:
        def eager(request: dict[str, torch.Tensor]) -> Any:
            with torch.inference_mode():
                return self.task.model(**request)

        calls: dict[str, Callable[[], object]] = {
            "eager": in_turn([partial(eager, request) for request in self.requests]),
            "file": in_turn([partial(running.run, as_arrays(request)) for request in self.requests]),
        }
        with evaluating(self.task.model):
            rounds = time_rounds(
                calls, candidates=self.rows, threads=self.threads, repeats=1000, warmup=5, seconds=SECONDS
            )
        return {name: rounds.latency(name).p50 for name in calls}, speedup(rounds, "eager", "file")

    def _calibration(self) -> Iterator[Arrays]:
        for inputs, _, _ in self.task.batches("train"):
            yield as_arrays(inputs)


@dataclass(frozen=True, eq=False)
class Found:
    """A search: all points, the best of those inside, and the best of those whose interval is inside too.

    Args:
        bench: what they were measured on; `bench.certify(point.made)` asks the test split.
        original_ms: medians of the original, eager and in ONNX Runtime.
        seconds: that the search took.
    """

    bench: Bench
    points: tuple[Point, ...]
    best: Point | None
    best_surely: Point | None
    original_ms: dict[str, float]
    seconds: float


def search(
    task: Task, minutes: float, max_drop: float, folder: Path, *, seed: int = 0, rows: int | None = None
) -> Found:
    """Try recipes until the minutes are over, and return what was found; the best files stay in the folder.

    Args:
        minutes: for everything, the export of the original too; the recipe under way is finished.
        max_drop: of the metric, on validation rows.
        folder: for files; made if missing.
        seed: of the search.
        rows: of the timed call; None takes what the product takes (500 candidates of one request, 64 images).
    """
    began = time.monotonic()
    bench = Bench(task, folder, max_drop, torch.get_num_threads(), rows or served_rows(task))
    original_ms = bench.original_ms()
    study = _study(bench.facts, seed)
    points: list[Point] = []
    while not points or time.monotonic() - began < 60 * minutes:
        trial = study.ask()
        recipe = suggest(trial, bench.facts)
        again = next((one for one in points if one.recipe == recipe), None)
        point = again or _try(bench, recipe, (len(points), folder), began)
        study.tell(trial, _objective(point, max_drop))
        if again is not None:
            continue
        points.append(point)
        say(_line(point))
        kept = {id(one) for one in (_best(points, "inside"), _best(points, "surely"))}
        for one in points:
            if one.made is not None and id(one) not in kept and one.made.path != bench.original.path:
                shutil.rmtree(one.made.path.parent, ignore_errors=True)
    best, surely = _best(points, "inside"), _best(points, "surely")
    return Found(bench, tuple(points), best, surely, original_ms, time.monotonic() - began)


def _study(facts: Facts, seed: int) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # grouping is called experimental; Olive has it on
        sampler = optuna.samplers.TPESampler(multivariate=True, group=True, seed=seed)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for recipe in first_recipes(facts):
        study.enqueue_trial(recipe)
    return study


def _try(bench: Bench, recipe: Recipe, place: tuple[int, Path], began: float) -> Point:
    started = time.monotonic()
    number, folder = place[0], place[1] / f"trial-{place[0]}"
    folder.mkdir(parents=True, exist_ok=True)
    measured: Json
    try:
        measured = bench.measure(recipe, folder)
    except Exception as error:  # whatever a tool throws is a point of the search, not its end
        first = str(error).replace(f"{place[1]}/", "").strip().splitlines()
        measured = {"error": f"{type(error).__name__}: {first[0][:200] if first else ''}"}
        shutil.rmtree(folder, ignore_errors=True)
    return Point(
        number=number, started=started - began, seconds=time.monotonic() - started, recipe=recipe,
        words=in_words(recipe), **measured,
    )  # fmt: skip


def _objective(point: Point, max_drop: float) -> float:
    """Return the log of the worth inside the drop; outside, how far: worse than all inside, better than a failure."""
    if point.drop is None:
        return FAILED
    return math.log(point.worth) if point.inside else -10.0 - math.log1p((point.drop.value - max_drop) / max_drop)


def _best(points: list[Point], key: str) -> Point | None:
    return max((one for one in points if getattr(one, key)), key=lambda one: one.worth, default=None)


def _line(point: Point) -> str:
    if point.error:
        return f"{point.number} {point.words}: FAILED {point.error}"
    assert point.speedup is not None
    inside = "inside" if point.inside else "over"
    return (
        f"{point.number} {point.words}: {point.size_ratio:.1f}x smaller, {point.speedup.value:.1f}x faster, "
        f"drop {point.drop} ({inside})"
    )


def point_json(point: Point | None) -> Json | None:
    """Return a point as plain values, without its file."""
    if point is None:
        return None
    told = {key: getattr(point, key) for key in ("number", "words", "bytes", "size_ratio", "latency_ms", "error")}
    told |= {"started": round(point.started, 1), "seconds": round(point.seconds, 1), "recipe": dict(point.recipe)}
    told |= {"inside": point.inside, "surely_inside": point.surely, "worth": point.worth}
    pair = {"drop": point.drop, "speedup": point.speedup}
    return told | {key: None if one is None else as_json(one) for key, one in pair.items()}


def found_json(found: Found) -> Json:
    """Return a search as plain values."""
    hardware = describe_hardware()
    hardware["packages"] |= package_versions((*PACKAGES, "nncf", "optuna"))
    return {
        "seconds": round(found.seconds, 1),
        "original": {"bytes": found.bench.original.bytes, "latency_ms": found.original_ms},
        "rows": found.bench.rows,
        "threads": found.bench.threads,
        "best": point_json(found.best),
        "best_surely": point_json(found.best_surely),
        "points": [point_json(one) for one in found.points],
        "hardware": hardware,
    }


def say(words: str) -> None:
    """Print progress to the terminal."""
    print(f"[{time.strftime('%H:%M:%S')}] {words}", file=sys.stderr, flush=True)


def main() -> None:
    """Search, and write the JSON; with --certify the best is certified on test data, once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=tuple(ZOO), default="complete-journey")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--max-drop", type=float, default=0.001)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--certify", action="store_true", help="ask the test split of the best, once")
    parser.add_argument("--json", type=Path, default=Path("auto_peer.json"))
    words = parser.parse_args()
    task = ZOO[words.task]()
    with tempfile.TemporaryDirectory(prefix="auto-peer-") as folder:
        found = search(task, words.minutes, words.max_drop, Path(folder), seed=words.seed)
        told = {"task": words.task, "minutes": words.minutes, "max_drop": words.max_drop, "seed": words.seed}
        told |= found_json(found)
        if words.certify and found.best is not None and found.best.made is not None:
            told["test"] = comparison_json(found.bench.certify(found.best.made))
            say(f"test: drop {told['test']['drop']['value']:+.5f}, certified {told['test']['certified']}")
    words.json.write_text(json.dumps(told, indent=1) + "\n")
    for name, point in (("best", found.best), ("best whose interval is inside", found.best_surely)):
        say(f"{name}: {'none' if point is None else _line(point)}")


if __name__ == "__main__":
    main()

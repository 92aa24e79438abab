"""A dense case, run: every contender made, scored on test data in its engine, and timed in turns with the original.

A case yields contenders: what Flyweight makes, controls, peers. Each is a file that an engine runs, or a callable. All
of one seed are scored on the same rows (paired differences against the exported original in ONNX Runtime) and at the
end timed in one run, in turns. What was made is kept on disk beside the weights of the bases, and every row is written
as it comes: a killed run goes on where it stopped.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from dense_running import ENGINES, Open, Running, caller, open_onnx, say, scores_of
from flyweight.cost.hardware import PACKAGES, describe_hardware, package_versions
from flyweight.cost.latency import Rounds, in_turn, speedup, time_rounds
from flyweight.cost.sizes import bytes_on_disk
from flyweight.errors import FlyweightError
from flyweight.planning.artefact import make_artefact
from flyweight.planning.budget import Budget
from flyweight.planning.certificate import Comparison, compare
from flyweight.planning.compress import compress
from flyweight.planning.recalibrate import recalibrate
from flyweight.planning.requests import as_arrays, sample_requests, timed_requests
from flyweight.task.change import Change
from flyweight.task.estimate import Estimate
from flyweight.task.scores import Scores
from flyweight.task.step import Step
from flyweight.task.task import Task
from flyweight.zoo.cache import cache_folder

HERE = Path(__file__).parent
RESULTS = HERE / "results"
THREADS = 1
#: Requests that are timed in turn, each with rows of its own: a server's tables are not warm with one request's ids.
REQUESTS_IN_TURN = 16
#: Further packages whose version changes a peer's row.
PEERS = ("nncf", "torchao", "torch-pruning")
Json = dict[str, Any]


@dataclass(frozen=True)
class Contender:
    """One line of a case's table.

    Args:
        name: in words.
        kind: "ours", "control" or "peer".
        make: writes the artefact into a folder and returns what is to be told of it: at least "bytes".
        open: returns it running, by engine, with so many threads.
        key: the settings, in words: other ones make it anew.
    """

    name: str
    kind: str
    make: Callable[[Task, Path], Json]
    open: Open = open_onnx
    key: str = ""


@dataclass(frozen=True)
class Case:
    """A case.

    Args:
        name: of the JSON and on the command line.
        title: in the docs.
        goal: in words.
        task: the base by seed.
        contenders: what is compared, for a task and its seed. Later ones may use what earlier ones made.
        rows: rows of the timed calls.
        margin: the drop that is to be certified.
        seconds: of timing at each number of rows.
        unit: "points" shows drops times 100, "" as they are, "relative" as a share of the original's quality.
    """

    name: str
    title: str
    goal: str
    task: Callable[[int], Task]
    contenders: Callable[[Task, int], Iterator[Contender]]
    rows: tuple[int, ...]
    margin: float
    unit: str = ""
    family: str = "dense"
    engines: tuple[str, ...] = ENGINES
    seconds: float = 24.0


@dataclass(eq=False)
class Bench:
    """All contenders of one case and seed."""

    case: Case
    seed: int
    task: Task
    folder: Path
    rows: dict[str, Json] = field(default_factory=dict)
    running: dict[str, Mapping[str, Running]] = field(default_factory=dict)

    def original(self) -> Scores:
        """Export the original and return its test scores; its row is the first."""
        folder = self.folder / "original"
        samples = sample_requests(self.task)
        made = make_artefact(self.task.model, samples, _rows_of(samples), folder)
        self.running["original"] = open_onnx(folder, THREADS, self.case.engines)
        scores = scores_of(self.task, self.running["original"]["onnxruntime"])
        found = compare(self.task, scores, scores, self.case.margin, 0.95)
        by_engine = self._by_engine("original", scores, "onnxruntime")
        self.rows["original"] = {
            "name": "original",
            "kind": "original",
            "bytes": made.exported.bytes,
            "macs": made.macs.total,
            "quality": as_json(found.before),
            "guards": {name: as_json(one) for name, one in found.guards_before.items()},
            **by_engine,
        }
        return scores

    def _by_engine(self, name: str, before: Scores, known: str) -> Json:
        """Return the drop in each further engine of a case that asks for several: some round more than the file."""
        others = [one for one in self.running[name] if one != known and self.case.engines != ENGINES]
        told: Json = {}
        wrong: dict[str, str] = {}
        for engine in others:
            try:
                scores = scores_of(self.task, self.running[name][engine])
                found = compare(self.task, before, scores, self.case.margin, 0.95)
            except FlyweightError as error:  # as `fw.compress` would: an engine without the right scores is left out
                wrong[engine] = str(error)[:200]
                say(f"{self.case.name}/{self.seed} {name} in {engine} left out: {wrong[engine]}")
                continue
            told[engine] = {"drop": as_json(found.drop), "certified": found.certified}
        self.running[name] = {engine: one for engine, one in self.running[name].items() if engine not in wrong}
        return ({"by_engine": told} if told else {}) | ({"left_out": wrong} if wrong else {})

    def add(self, one: Contender, before: Scores) -> Json:
        """Make a contender, or open what was made of it before, and return its row without times."""
        folder = self.folder / slug(f"{one.name} {one.key}")
        told = self._made(one, folder)
        self.running[one.name] = one.open(folder, THREADS)
        engine = told.get("engine") or next(iter(self.running[one.name]))
        scores = scores_of(self.task, self.running[one.name][engine])
        found = compare(self.task, before, scores, self.case.margin, 0.95)
        say(f"{self.case.name}/{self.seed} {one.name}: drop {found.drop}")
        by_engine = self._by_engine(one.name, before, engine)
        return {"name": one.name, "kind": one.kind, "engine": engine} | told | comparison_json(found) | by_engine

    def _made(self, one: Contender, folder: Path) -> Json:
        kept = folder / "told.json"
        if kept.exists():
            told: Json = json.loads(kept.read_text())
            return told
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        started = time.perf_counter()
        told = one.make(self.task, folder)
        told.setdefault("seconds", round(time.perf_counter() - started, 1))
        kept.write_text(json.dumps(told))
        return told

    def clock(self) -> None:
        """Time everything in turns, at each number of rows, and put medians and speed-ups into the rows."""
        for rows in self.case.rows:
            requests = timed_requests(self.task, rows, REQUESTS_IN_TURN)
            arrays = [as_arrays(request) for request in requests]

            def eager(request: Any) -> Any:
                with torch.inference_mode():
                    return self.task.model(**request)

            calls = {"original in eager": in_turn([partial(eager, request) for request in requests])}
            for name, engines in self.running.items():
                for engine, running in engines.items():
                    calls[f"{name} in {engine}"] = in_turn([caller(running, one) for one in arrays])
            say(f"{self.case.name}/{self.seed} timing {len(calls)} at {rows} rows")
            self.task.model.eval()
            seconds = self.case.seconds
            rounds = time_rounds(calls, candidates=rows, threads=THREADS, repeats=300, warmup=5, seconds=seconds)
            self._note(rounds, rows)

    def _note(self, rounds: Rounds, rows: int) -> None:
        for name, engines in self.running.items():
            times: Json = {}
            for engine in [*engines, *(["eager"] if name == "original" else [])]:
                one = rounds.latency(f"{name} in {engine}")
                times[engine] = {"p50": one.p50, "p95": one.p95, "p99": one.p99, "repeats": one.repeats}
                times[engine] |= {"low": one.p50_low, "high": one.p50_high}
                rival = f"original in {engine}"
                if name != "original" and rival in rounds.samples:
                    gain = speedup(rounds, rival, f"{name} in {engine}")
                    times[engine]["speedup"] = as_json(gain)
            self.rows[name].setdefault("latency_ms", {})[str(rows)] = times


def run_case(case: Case, seeds: list[int], most: int | None = None) -> None:
    """Run a case for each seed, writing each row as it comes; with `most` the first so many contenders only."""
    torch.set_num_threads(THREADS)
    path = RESULTS / f"{case.family}_{case.name}.json"
    for seed in seeds:
        task = case.task(seed)
        folder = cache_folder() / case.family / case.name / str(seed)
        bench = Bench(case, seed, task, folder)
        before = bench.original()
        failed: dict[str, str] = {}
        for one in islice(case.contenders(task, seed), most):
            try:
                bench.rows[one.name] = bench.add(one, before)
            except Exception as error:  # a peer that fails is a line of the table, not the end of the run
                failed[one.name] = f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}"
                say(f"{case.name}/{seed} {one.name} FAILED: {failed[one.name]}")
            write(path, case, seed, bench, failed)
        bench.clock()
        write(path, case, seed, bench, failed)


def write(path: Path, case: Case, seed: int, bench: Bench, failed: dict[str, str]) -> None:
    """Put what is known of a seed into the JSON of its case."""
    kept: Json = json.loads(path.read_text()) if path.exists() else {"seeds": {}}
    hardware = describe_hardware()
    hardware["packages"] |= package_versions((*PACKAGES, *PEERS))
    about = {"case": case.name, "title": case.title, "goal": case.goal, "margin": case.margin, "unit": case.unit}
    kept = {**kept, **about, "metric": bench.task.spec.name, "threads": THREADS, "hardware": hardware}
    kept["seeds"][str(seed)] = {"rows": list(bench.rows.values()), "failed": failed}
    kept["seeds"] = dict(sorted(kept["seeds"].items()))
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(kept, indent=1) + "\n")


def compressed(name: str, steps: tuple[Step, ...], margin: float, rows: int | None = None) -> Contender:
    """Return ours as a user gets it: `fw.compress`, with its own measurements, and saved as a bundle."""

    def make(task: Task, folder: Path) -> Json:
        result = compress(task, Budget(max_drop=margin), steps=steps, rows=rows)
        bundle = result.save(folder / "model.fly")
        size = copy_exported(result.contents.exported, folder)
        return {
            "bytes": size,
            "bundle_bytes": bytes_on_disk(bundle),
            "macs": result.after.macs,
            "engine": result.engine,
            "steps": [repr(step) for step in steps],
            "compress": {"drop": as_json(result.drop), "met": result.met, "missed": list(result.missed)},
            "skipped": skipped_words(result.changes),
        }

    return Contender(name, "ours", make, key=repr(steps))


def stepped(name: str, kind: str, steps: tuple[Step, ...]) -> Contender:
    """Return the model that steps make, exported, with nothing taken back."""

    def make(task: Task, folder: Path) -> Json:
        current, changes = task, []
        for step in steps:
            changes.append(step.apply(current))
            current = current.with_model(changes[-1].model)
        model, _ = recalibrate(task, current.model, tuple(changes))
        told = {"steps": [repr(step) for step in steps], "skipped": skipped_words(tuple(changes))}
        return export(task, model, folder, **told)

    return Contender(name, kind, make, key=repr(steps))


def skipped_words(changes: tuple[Change, ...]) -> list[str]:
    """Return what steps left, but for the tables, which are another step's work."""
    return [str(one) for change in changes for one in change.skipped if "step that codes tables" not in one.why]


def export(task: Task, model: nn.Module, folder: Path, **told: Any) -> Json:
    """Write a model as ONNX into a folder and return its bytes and multiply-accumulates."""
    samples = sample_requests(task)
    made = make_artefact(model, samples, _rows_of(samples), folder)
    return {"bytes": made.exported.bytes, "macs": made.macs.total, **told}


def copy_exported(exported: Path, folder: Path) -> int:
    """Copy an exported model into a folder and return its bytes."""
    for name in ("model.onnx", "model.onnx.data"):
        if (exported / name).exists():
            shutil.copy(exported / name, folder / name)
    return bytes_on_disk(*(folder / name for name in ("model.onnx", "model.onnx.data") if (folder / name).exists()))


def as_json(one: Estimate) -> Json:
    """Return an estimate as plain values; an end at infinity as null."""
    values = {key: getattr(one, key) for key in ("value", "low", "high", "n", "groups", "method")}
    return {key: None if isinstance(v, float) and not np.isfinite(v) else v for key, v in values.items()}


def comparison_json(found: Comparison) -> Json:
    """Return quality and drops as plain values."""
    return {
        "quality": as_json(found.after),
        "drop": as_json(found.drop),
        "guards": {name: as_json(one) for name, one in found.guard_drops.items()},
        "certified": found.certified,
    }


def slug(words: str) -> str:
    """Return words as a folder's name: letters, digits and dashes, and a digest that tells all apart."""
    plain = "".join(letter if letter.isalnum() else "-" for letter in words.lower())[:40].strip("-")
    return f"{plain}-{hashlib.sha256(words.encode()).hexdigest()[:8]}"


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Hold PyTorch's random numbers at a seed, and put them back."""
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=[]))
        torch.manual_seed(seed)
        yield


def _rows_of(samples: list[dict[str, torch.Tensor]]) -> int:
    return len(next(iter(samples[0].values())))

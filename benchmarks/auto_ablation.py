"""What each method adds to a recipe that a search found: bytes, milliseconds and drop, one method more in each line."""

import json
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from flyweight.cost.hardware import describe_hardware
from flyweight.cost.latency import speedup, time_rounds
from flyweight.engines.choose import choose_engine
from flyweight.engines.registry import find_engine
from flyweight.planning.artefact import Artefact, artefact_scores, make_artefact
from flyweight.planning.automatic import test_size
from flyweight.planning.requests import as_arrays
from flyweight.planning.search.candidate import Candidate, steps_of
from flyweight.planning.search.outcome import best_of
from flyweight.planning.search.run_folder import RunFolder
from flyweight.planning.search.study import kept_outcomes
from flyweight.planning.search.workbench import Made, Workbench
from flyweight.planning.setting import prepare
from flyweight.tables.sizes import table_bytes
from flyweight.task.task import Task
from flyweight.zoo.tasks import ZOO

SECONDS, THREADS = 20.0, 1
BASE_ENGINE = "onnxruntime"


def ablate(name: str, run: Path, path: Path) -> None:
    """Build the recipe of a search method by method, and write what each adds."""
    torch.set_num_threads(THREADS)
    task = ZOO[name]()
    setting = prepare(task, None)
    folder = RunFolder(run)
    budget = folder.budget()
    assert budget is not None
    bench = Workbench(
        task,
        setting.before,
        setting.samples,
        setting.rows,
        setting.request,
        THREADS,
        budget.confidence,
        (run, str(folder.facts()["task"])),  # the codings that were tried, not others of the same ratio
        folder,
    )
    best = best_of(kept_outcomes(run), budget, setting.before.exported.bytes, test_size(task))
    assert best is not None
    with tempfile.TemporaryDirectory() as exports:
        lines = list(_lines(bench, best.candidate, setting.before.macs.total, folder, Path(exports)))
        rows = _measured(task, bench, lines)
    found = {"task": name, "candidate": str(best.candidate), "rows": rows, "hardware": describe_hardware()}
    path.write_text(json.dumps(found, indent=1) + "\n")


def _lines(
    bench: Workbench, whole: Candidate, macs: int, folder: RunFolder, exports: Path
) -> Iterator[tuple[str, Artefact, tuple[str, ...]]]:
    """Yield a line's name, its export and the engines it may run in."""
    bare = replace(whole, units=0.0, weights=0.0, macs=1.0, epochs=0.0, bits="float32", fields=0)
    thin = replace(whole, epochs=0.0, bits="float32")
    rounded = replace(whole, epochs=0.0)
    steps = [
        ("the original, exported", Candidate()),
        ("tables alone", bare),
        ("+ pruning and low ranks", thin),
        ("+ quantisation", rounded),
        ("+ distillation", whole),
    ]
    made = Made(bench.task.model, ())
    for number, (name, candidate) in enumerate(steps):
        made = bench.finished(bench.remade(steps_of(candidate, macs), folder.learning))
        plain = make_artefact(made.model, _samples(bench, made), bench.rows, exports / str(number))
        yield name, plain, (BASE_ENGINE,)
    hoisted = bench.export(made, exports / "hoisted")
    yield "+ each thing computed once", hoisted, (BASE_ENGINE,)
    yield "+ the quickest engine", hoisted, ()


def _samples(bench: Workbench, made: Made) -> list[dict[str, torch.Tensor]]:
    return [{name: one[name] for name in one if name not in made.dropped} for one in bench.samples]


def _measured(
    task: Task, bench: Workbench, lines: list[tuple[str, Artefact, tuple[str, ...]]]
) -> list[dict[str, Any]]:
    """Time all lines in turns with the original in eager PyTorch, and score each on validation."""
    arrays = as_arrays(bench.request)

    def eager() -> object:
        with torch.inference_mode():
            return bench.before.model(**bench.request)

    calls: dict[str, Any] = {"eager": eager}
    running = {}
    for name, artefact, engines in lines:
        chosen = engines[0] if engines else _quickest(artefact)
        running[name] = chosen, find_engine(chosen).prepare(artefact.exported.path, THREADS)
        given = artefact.one_call({one: arrays[one] for one in running[name][1].input_names})
        calls[name] = partial(running[name][1].run, given)
    rows = max(len(values) for values in arrays.values())
    rounds = time_rounds(calls, candidates=rows, threads=THREADS, repeats=1000, seconds=SECONDS)
    found = []
    for name, artefact, _ in lines:
        engine, prepared = running[name]
        scores = artefact_scores(task, prepared, "validation", artefact.flat_call)
        drop = next(iter(bench.drops(scores).values()))
        gain = speedup(rounds, "eager", name)
        found.append(
            {
                "name": name,
                "engine": engine,
                "bytes": artefact.exported.bytes,
                "table_bytes": table_bytes(artefact.model),
                "macs": artefact.macs.total,
                "ms": rounds.latency(name).p50,
                "speedup": [gain.value, gain.low, gain.high],
                "drop": [drop.value, drop.low, drop.high],
            }
        )
        print(found[-1], flush=True)
    return found


def _quickest(artefact: Artefact) -> str:
    return choose_engine(
        artefact.exported.path, artefact.calls, artefact.reference, threads=THREADS, seconds=3.0, noise=artefact.noise
    ).engine

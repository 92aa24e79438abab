"""How far from this machine's limits does the default ranker run, before and after? A table, a picture, JSON.

    python benchmarks/roofline.py                        # compresses the ranker first, a few minutes
    python benchmarks/roofline.py --bundle demo/ranker.fly

One request of 500 candidates, all files and engines in turns in one process, on as many threads as there are cores.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial, reduce
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyweight.cost.hardware import describe_hardware
from flyweight.cost.latency import time_interleaved
from flyweight.cost.limits import Limits, as_data, best_of, machine_limits
from flyweight.cost.onnx_work import count_work
from flyweight.cost.roofline import Roofline, hold_against
from flyweight.engines.agreement import agreement
from flyweight.engines.export import export_onnx
from flyweight.engines.inputs import read_signature
from flyweight.engines.registry import find_engine
from flyweight.errors import EngineError
from flyweight.planning.compress import compress
from flyweight.planning.requests import as_arrays, first_batch, timed_request
from flyweight.task.field import REQUESTS
from flyweight.task.task import Task
from flyweight.zoo.tasks import complete_journey
from page_section import put
from roofline_picture import draw

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "roofline.json"
DOCS = HERE.parent / "docs" / "roofline.md"
FIGURE = HERE.parent / "docs" / "figures" / "roofline.svg"
CANDIDATES, REPEATS = 500, 300
#: How far bfloat16 may move a score, of the scores' standard deviation.
ROUNDED = 0.1
BEFORE, AFTER = "original, float32", "bundle"
#: Engine -> what it computes float32 in.
ENGINES = {"torch": "float32", "onnxruntime": "float32", "openvino": "float32", "openvino-bf16": "bfloat16"}

Arrays = dict[str, NDArray[Any]]
Json = dict[str, Any]


@contextmanager
def bundle_file(task: Task, given: Path | None) -> Iterator[Path]:
    """The model file of a bundle: the one given, or that of the default compression."""
    if given is not None:
        yield given / "model.onnx"
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ranker.fly"
        compress(task).save(path)
        yield path / "model.onnx"


def as_taken(path: Path, flat: Mapping[str, NDArray[Any]]) -> Arrays:
    """A flat batch of one request as the file takes it: fields of the request have one row where it says so."""
    taken = read_signature(path).required
    return {one.name: flat[one.name][:1] if REQUESTS in one.labels else flat[one.name] for one in taken}


def measure(
    files: Mapping[str, Path], flat: Arrays, limits: Limits, repeats: int = REPEATS
) -> tuple[list[Json], list[str]]:
    """Time every file in every engine that runs it rightly, in turns, and hold each against the limits.

    Also returned is what was left out, with the reason.
    """
    calls, left_out = right_calls(files, flat, limits.threads)
    timed = time_interleaved(
        {f"{what} in {engine}": call for (what, engine), call in calls.items()},
        candidates=max(len(value) for value in flat.values()),
        threads=limits.threads,
        repeats=repeats,
    )
    rows = []
    for what, engine in calls:
        work = count_work(files[what], as_taken(files[what], flat), ENGINES[engine])
        latency = timed[f"{what} in {engine}"]
        rows.append(row(what, engine, hold_against(work, limits, latency.p50), asdict(latency)))
    return rows, left_out


def right_calls(
    files: Mapping[str, Path], flat: Arrays, threads: int
) -> tuple[dict[tuple[str, str], Callable[[], NDArray[Any]]], list[str]]:
    """Calls by file and engine; an engine whose scores are not those of the first is left out."""
    calls: dict[tuple[str, str], Callable[[], NDArray[Any]]] = {}
    left_out = []
    for what, path in files.items():
        reference = None
        for engine in ENGINES:
            try:
                why = find_engine(engine).available() or find_engine(engine).cannot_run(path)
                if why is None:
                    call = partial(find_engine(engine).prepare(path, threads).run, as_taken(path, flat))
                    scores = call()
                    reference = scores if reference is None else reference
                    why = off(reference, scores, rounds=ENGINES[engine] != "float32")
            except EngineError as error:
                why = str(error)
            if why is None:
                calls[what, engine] = call
            else:
                left_out.append(f"{what} in {engine}: {why}")
    return calls, left_out


def off(reference: NDArray[Any], scores: NDArray[Any], rounds: bool) -> str | None:
    """Why scores are not right, None if they are; bfloat16 may move them by a tenth of their spread."""
    if not rounds:
        seen = agreement(reference, scores)
        return None if seen.ok else seen.words
    far = float(np.abs(reference - scores).max() / reference.std())
    return None if far < ROUNDED else f"scores move by {far:.2g} of their spread"


def row(what: str, engine: str, held: Roofline, latency: Json) -> Json:
    """One line of the table."""
    facts = asdict(held)
    facts["skipped"] = [str(one) for one in held.skipped]
    derived = {"floor_ms": held.floor_ms, "binds": held.binds, "fraction": held.fraction, "intensity": held.intensity}
    return {"what": what, "engine": engine, "latency": latency, **facts, **derived, "words": held.words}


def table(rows: list[Json]) -> str:
    """The rows as Markdown."""
    lines = [
        "| | engine | median, ms | floor, ms | memory | compute | overhead | bound by | of the limit |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for one in rows:
        latency = one["latency"]
        cells = [
            one["what"],
            one["engine"],
            f"{latency['p50']:.3g} [{latency['p50_low']:.3g}, {latency['p50_high']:.3g}]",
            *(f"{one[key]:.3g}" for key in ("floor_ms", "memory_ms", "compute_ms", "overhead_ms")),
            one["binds"],
            f"{100 * one['fraction']:.0f}%",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def limits_in_words(limits: Limits) -> str:
    """What the machine can do, in one sentence."""
    levels = ", ".join(f"{level.name} {level.rate / 1e9:.0f} GB/s" for level in limits.levels)
    peaks = ", ".join(f"{one.precision} {one.rate / 1e9:.0f} G operations/s ({one.engine})" for one in limits.peaks)
    call, operator = 1e6 * limits.overhead.call, 1e6 * limits.overhead.operator
    return f"{levels}; {peaks}; {call:.1f} us a call and {operator:.2f} us an operator"


def render(rows: list[Json], left_out: list[str], limits: Limits, hardware: Json) -> None:
    """Put the table and what it was measured on between the marks of the docs."""
    versions = ", ".join(f"{name} {hardware['packages'][name]}" for name in ("onnxruntime", "openvino", "torch"))
    note = (
        f"DCN-V2 on Complete Journey, 1 request x {CANDIDATES} candidates, {limits.threads} threads, median of "
        f"{REPEATS} calls in turns with its 95% interval. {hardware['cpu']}, {hardware['cores']} cores; {versions}. "
        f"Limits measured: {limits_in_words(limits)}."
    ) + "".join(f" Left out: {one.rstrip('.')}." for one in left_out)
    put(DOCS, "roofline", f"{table(rows)}\n\n{note}")


def measured_limits(threads: int, times: int = 3) -> Limits:
    """The best of several measurements: a neighbour only ever slows one down."""
    return reduce(best_of, (machine_limits(threads, again=True) for _ in range(times)))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--bundle", type=Path, help="a bundle of the default ranker; it is made where left out")
    given = options.parse_args().bundle
    hardware = describe_hardware()
    limits = measured_limits(hardware["cores_allowed"])
    task = complete_journey()
    flat = {name: np.asarray(value) for name, value in as_arrays(timed_request(task, CANDIDATES)).items()}
    with tempfile.TemporaryDirectory() as folder, bundle_file(task, given) as after:
        before = export_onnx(task.model, first_batch(task), Path(folder)).path
        rows, left_out = measure({BEFORE: before, AFTER: after}, flat, limits)
    found = {"hardware": hardware, "limits": as_data(limits), "rows": rows, "left_out": left_out}
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    draw(rows, limits, FIGURE)
    render(rows, left_out, limits, hardware)
    print(table(rows))


if __name__ == "__main__":
    main()

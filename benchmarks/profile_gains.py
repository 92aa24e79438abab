"""Does a profile foresee what each method gains? Predictions beside what the methods made; JSON and docs/profile.md.

    python benchmarks/profile_gains.py                                        # all, about 40 minutes on 2 cores
    python benchmarks/profile_gains.py --task movielens-1m --method Quantize  # one of them; the rest is kept

One request of 500 candidates on one thread. A prediction is made by `fw.profile`; then the step is applied, the model
is rewritten and exported as `compress` does it, and both files are timed in turns, each in its quickest engine. Nothing
is taken back here: a step that makes a request slower is seen to. The clock is the process's own processor time, which
on one thread is the wall's but for neighbours on the machine.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

import flyweight as fw
from flyweight.cost.hardware import describe_hardware
from flyweight.cost.latency import time_rounds
from flyweight.planning import gate as gate_module
from flyweight.planning import timed_forms
from flyweight.planning.artefact import Artefact, make_artefact
from flyweight.planning.gate import Gate
from flyweight.planning.profile import Profile
from flyweight.planning.requests import sample_requests, timed_request
from flyweight.planning.rewriting import rewritten_artefact
from flyweight.report.words import bytes_in_words
from flyweight.task.step import Step
from flyweight.task.task import Task
from flyweight.zoo.tasks import ZOO
from page_section import put

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "profile_gains.json"
DOCS = HERE.parent / "docs" / "profile.md"
TASKS = ("complete-journey", "movielens-1m", "complete-journey-mlp")
#: More tasks that tables alone are coded of: what is guessed most freely is held against the most.
MORE = ("complete-journey-dlrm", "complete-journey-deepfm")
SECONDS = 6.0
#: Names and operators of quantisers go with the graph of a file: by so much it may miss what counts numbers alone.
SLACK = 0.02
#: What is measured twice, in two places of one process, differs by no more than this.
SAME = 0.1
Json = dict[str, Any]

#: The step of each method that a profile speaks of, from what the profile says.
STEPS: dict[str, Callable[[Profile], Step | None]] = {
    "each request once": lambda found: None,
    "EncodeTables": lambda found: fw.EncodeTables(max_drop=0.001),
    "Quantize": lambda found: fw.Quantize(mixed=False),
    "Prune": lambda found: fw.Prune(max_macs=round(found.macs / 2), force=True),
    "Factorize": lambda found: fw.Factorize(max_macs=round(found.macs / 2), force=True),
    "DropFields": lambda found: fw.DropFields(names=[largest_field(found)]),
}


def without_neighbours() -> None:
    """Let what times calls look at the processor time of this process."""
    for module in (gate_module, timed_forms):
        vars(module)["time_rounds"] = partial(time_rounds, clock=time.process_time)


def largest_field(found: Profile) -> str:
    """Return the field that the profile would drop."""
    method = next(gain.method for gain in found.gains if gain.method.startswith("DropFields"))
    return method.split("'")[1]


def measure(task: Task, found: Profile, method: str) -> Json:
    """Apply a method and return what it made, in bytes and in times as quick as without it."""
    samples = sample_requests(task)
    rows = max(len(value) for value in samples[0].values())
    gate = Gate(samples, rows, timed_request(task), threads=1)
    with tempfile.TemporaryDirectory() as folder:
        step = STEPS[method](found)
        if step is None:
            before = make_artefact(task.model, samples, rows, Path(folder, "plain"))
            after, _ = rewritten_artefact(task, task.model, samples, gate, Path(folder, "once"))
            return row(before, after, gate)
        before, _ = rewritten_artefact(task, task.model, samples, gate, Path(folder, "before"))
        change = step.apply(task)
        wanted = [{name: one[name] for name in one if name not in change.dropped_inputs} for one in samples]
        after, _ = rewritten_artefact(task, change.model, wanted, gate, Path(folder, "after"))
        coded = [done for done in change.done if done["what"] == "table"]
        saved = sum(done["bytes_before"] - done["bytes_after"] for done in coded)
        # The graph of coded tables is longer; of the others, as long as it was.
        graph = max(before.exported.bytes - found.bytes, 0)
        tensors = found.bytes - saved if coded else after.exported.bytes - graph
        return {**row(before, after, gate), "tensors": tensors}


def row(before: Artefact, after: Artefact, gate: Gate) -> Json:
    """Return sizes of two files and how many times quicker the second is."""
    gain = gate.gain(before, after, SECONDS)
    return {"bytes": after.exported.bytes, "bytes_before": before.exported.bytes, "times_as_quick": asdict(gain)}


def predicted(found: Profile, method: str) -> Json:
    """Return what the profile says of a method, its times as ratios too, so that the machine's mood falls out."""
    gain = next(one for one in found.gains if one.method.startswith(method))
    plain = [name for name in found.latencies if name in ("onnxruntime", "openvino")]
    reference = min(plain, key=lambda name: found.latencies[name].p50) if method == "each request once" else found.best
    now = found.latencies[str(reference)].p50
    quick = None
    if gain.ms is not None:
        quick = {"low": now / gain.ms.high, "value": now / gain.ms.likely, "high": now / gain.ms.low}
    return {**asdict(gain), "times_as_quick": quick, "bytes_before": found.bytes}


def table(results: Json) -> str:
    """The rows as Markdown."""
    lines = [
        "| | method | model after, foreseen | made | inside | times as quick, foreseen | measured | inside |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, methods in results.items():
        for method in (one for one in STEPS if one in methods):
            said, made = methods[method]["predicted"], methods[method]["measured"]
            lines.append(f"| {' | '.join([name, f'`{method}`', *sizes(said, made), *times(said, made)])} |")
    return "\n".join(lines)


def sizes(said: Json, made: Json) -> tuple[str, str, str]:
    """Return the cells about bytes."""
    span = said["bytes"]
    if span is None:
        return "-", "-", "-"
    low, high = bytes_in_words(span["low"]), bytes_in_words(span["high"])
    inside = (1 - SLACK) * span["low"] <= made["tensors"] <= (1 + SLACK) * span["high"]
    return low if low == high else f"{low} to {high}", bytes_in_words(made["tensors"]), "yes" if inside else "**no**"


def times(said: Json, made: Json) -> tuple[str, str, str]:
    """Return the cells about time; an interval that reaches into the span counts as inside."""
    span, seen = said["times_as_quick"], made["times_as_quick"]
    measured = f"{seen['value']:.2f} [{seen['low']:.2f}, {seen['high']:.2f}]"
    if span is None:
        return "-", measured, "-"
    slack = SAME if said["known"] == "measured" else 0.0
    inside = seen["high"] >= (1 - slack) * span["low"] and seen["low"] <= (1 + slack) * span["high"]
    words = f"{span['value']:.2f} ({span['low']:.2f} to {span['high']:.2f})"
    return words, measured, "yes" if inside else "**no**"


def render(found: Json) -> None:
    """Put the table between the marks of the docs."""
    packages = found["hardware"]["packages"]
    versions = ", ".join(f"{name} {packages[name]}" for name in ("onnxruntime", "openvino", "torch"))
    note = (
        "One request of 500 candidates, 1 thread, processor time, both files in turns, each in its quickest engine, "
        f"with a 95% interval; made by `benchmarks/profile_gains.py` on {found['hardware']['cpu']}, {versions}."
    )
    put(DOCS, "profile_gains", f"{table(found['tasks'])}\n\n{note}")


def main() -> None:
    """Predict and measure; merge with what is known; write JSON and the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--task", choices=(*TASKS, *MORE), action="append")
    options.add_argument("--method", choices=STEPS, action="append")
    given = options.parse_args()
    torch.set_num_threads(1)
    without_neighbours()
    known: Json = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"tasks": {}}
    for name in given.task or (*TASKS, *MORE):
        task = ZOO[name]()
        found = fw.profile(task, threads=1)
        for method in given.method or (STEPS if name in TASKS else ("EncodeTables",)):
            if any(gain.method.startswith(method) for gain in found.gains):
                one = {"predicted": predicted(found, method), "measured": measure(task, found, method)}
                known["tasks"].setdefault(name, {})[method] = one
        known["hardware"] = describe_hardware()
        RESULTS.write_text(json.dumps(known, indent=1) + "\n")
    render(known)
    print(table(known["tasks"]))


if __name__ == "__main__":
    main()

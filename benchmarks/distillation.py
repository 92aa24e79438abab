"""What a student of the default ranker should start from and learn: results/distillation.json and the docs' table.

python benchmarks/distillation.py [seed ...]

The student is derived from the ranker: a quarter of the hidden units, one cross layer of two. A fifth of an epoch. Test
AUC is what is shown; every choice of settings was made on validation.
"""

import copy
import json
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from torch import nn

from flyweight.cost.hardware import describe_hardware
from flyweight.cost.macs import count_macs
from flyweight.distillation import student as derivation
from flyweight.distillation.recover import recover
from flyweight.distillation.student import Thinner, make_student
from flyweight.quality.measure import measure
from flyweight.task.task import Task
from flyweight.zoo.tasks import complete_journey
from page_section import put

RESULTS = Path(__file__).parent / "results" / "distillation.json"
DOCS = Path(__file__).parent.parent / "docs" / "distillation.md"
THINNER, EPOCHS = Thinner(width=0.25, depth=0.5), 0.2
#: Settings by what the table calls them, all from the same start.
LEARNED: dict[str, dict[str, Any]] = {
    "soft targets (the default)": {},
    "half soft targets, half labels": {"alpha": 0.5},
    "labels alone": {"alpha": 1.0},
    "soft targets, temperature 1": {"temperature": 1.0},
    "scores (squared error)": {"loss": "score"},
    "pairs within the request": {"loss": "pairwise"},
    "soft targets, half of each batch new pairs": {"resampled": 0.5},
    "soft targets, steps of 8,192 rows": {"batch_rows": 8_192},
}
Row = dict[str, Any]


def random_units(seed: int) -> Callable[..., tuple[int, ...]]:
    """Return a choice of units by chance, in the place of the choice by size."""

    def chosen(traced: Any, group: Any, count: int) -> tuple[int, ...]:
        order = torch.randperm(len(group.units), generator=torch.Generator().manual_seed(seed))
        return tuple(sorted(order[:count].tolist()))

    return chosen


def starts(task: Task, seed: int) -> dict[str, nn.Module]:
    """Return students of one shape: with the teacher's largest units, with units by chance, with fresh weights."""
    inputs, _, _ = next(task.batches("train"))
    largest = make_student(task.model, THINNER, inputs).model
    by_size = derivation.strongest
    try:
        derivation.strongest = random_units(seed)
        chance = make_student(task.model, THINNER, inputs).model
    finally:
        derivation.strongest = by_size
    fresh = copy.deepcopy(largest)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for name, parameter in fresh.named_parameters():
            if "tables." not in name:
                bound = parameter.shape[-1] ** -0.5
                nn.init.uniform_(parameter, -bound, bound) if parameter.ndim > 1 else nn.init.zeros_(parameter)
    return {"the teacher's largest units": largest, "units by chance": chance, "fresh weights": fresh}


def auc(task: Task, model: nn.Module) -> float:
    """Return the AUC on the test split."""
    scores = task.scores("test", model)
    return measure(task.spec, scores.outputs, scores.targets)


def row(task: Task, seed: int, start: str, learned: str, model: nn.Module, settings: dict[str, Any]) -> Row:
    """Train one student and return what came of it."""
    found = recover(task, model, epochs=EPOCHS, seed=seed, **settings)
    made = {
        "seed": seed,
        "start": start,
        "learned": learned,
        "validation_before": found.before.metric,
        "validation": found.after.metric,
        "test": auc(task, found.model),
        "seconds": round(found.seconds, 1),
        "epochs": found.epochs,
    }
    print(made, flush=True)
    return made


def table(found: dict[str, Any]) -> str:
    """Return the rows as Markdown: the mean over seeds, ± their standard deviation where there are several."""
    lines = ["| start | learned | validation AUC before | test AUC | seconds |", "|---|---|---|---|---|"]
    keys = list(dict.fromkeys((one["start"], one["learned"]) for one in found["rows"]))
    for start, learned in keys:
        rows = [one for one in found["rows"] if (one["start"], one["learned"]) == (start, learned)]
        tests = [one["test"] for one in rows]
        spread = f" ± {stdev(tests):.4f}" if len(tests) > 1 else ""
        before, seconds = (mean(one[key] for one in rows) for key in ("validation_before", "seconds"))
        lines.append(f"| {start} | {learned} | {before:.4f} | {mean(tests):.4f}{spread} | {seconds:.0f} |")
    about = (
        f"Teacher: test AUC {found['teacher_test']:.4f}, {found['teacher_macs']:,} multiply-accumulates a row; "
        f"students {found['student_macs']:,}. {found['epochs']} epochs, seeds {', '.join(map(str, found['seeds']))}."
    )
    return "\n".join([about, "", *lines])


def main(seeds: list[int]) -> None:
    """Train all students, write the JSON and the table."""
    torch.set_num_threads(1)
    task = complete_journey()
    one = {name: value[:1] for name, value in next(task.batches("train"))[0].items()}
    rows: list[Row] = []
    for seed in seeds:
        made = starts(task, seed)
        first = next(iter(made))
        rows += [row(task, seed, first, learned, made[first], settings) for learned, settings in LEARNED.items()]
        rows += [row(task, seed, name, next(iter(LEARNED)), made[name], {}) for name in made if name != first]
        found = {
            "hardware": describe_hardware(),
            "epochs": EPOCHS,
            "seeds": sorted({row["seed"] for row in rows}),
            "teacher_test": auc(task, task.model),
            "teacher_macs": count_macs(task.model, one).total,
            "student_macs": count_macs(made[first], one).total,
            "rows": rows,
        }
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    put(DOCS, "distillation", table(found))


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]] or [0, 1, 2])

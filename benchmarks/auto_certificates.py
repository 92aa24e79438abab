"""How often does the certificate err? Test sets drawn anew from a population whose true drop is known.

    python benchmarks/auto_certificates.py                   # all: an hour on one core; goes on where it stopped
    python benchmarks/auto_certificates.py --seconds 160     # as much as fits; again, it goes on
    python benchmarks/auto_certificates.py --tasks complete-journey --runs 1000

The population is the test split of a trained model: all its groups, with the scores of the original and of a model with
coded tables. A test set is as many groups, drawn with replacement, so that the population's own drop is the true one of
every draw. To have a true drop of exactly the margin, of half of it, or of none, the compressed model's logits are
moved along the line between the original's and theirs. Each test set goes through the product's own certificate.
Writes results/auto_certificates.json and the table of docs/statistics.md.
"""

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from coverage import wilson
from flyweight.cost.hardware import describe_hardware
from flyweight.planning.certificate import LOGLOSS, compare
from flyweight.quality.intervals import non_inferior, paired_drop
from flyweight.quality.measure import measure
from flyweight.quality.rows_needed import POWER, rows_needed
from flyweight.tables.encode_tables import EncodeTables
from flyweight.task.estimate import Estimate
from flyweight.task.scores import Scores
from flyweight.task.task import Task
from flyweight.zoo.cache import cache_folder, cached_arrays
from flyweight.zoo.tasks import ZOO
from page_section import put

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "auto_certificates.json"
DOCS = HERE.parent / "docs" / "statistics.md"
MARGIN, CONFIDENCE, SEED, RUNS = 0.001, 0.95, 20_260, 200
#: Tasks, and how many times smaller their tables get: so much that the drop is well over the margin.
RATIOS = {"complete-journey": 1200, "movielens-1m": 16}
#: The most that may be certified at the margin: half of what two-sided intervals of 95% leave, with room for chance.
GOAL = 0.07
Json = dict[str, Any]


@dataclass(frozen=True)
class Level:
    """A question.

    Args:
        name: in words.
        share: the true drop as a share of the margin.
        enough: whether a test set has as many groups as `rows_needed` says, for the metric and for logloss, instead of
            as many as the population.
    """

    name: str
    share: float
    enough: bool = False


LEVELS = (
    Level("at the margin", 1.0),
    Level("half of the margin", 0.5),
    Level("none", 0.0),
    Level("none, on the rows that are said to be needed", 0.0, enough=True),
)


@dataclass(frozen=True, eq=False)
class Population:
    """All rows of a test split, by group: scores of two models, targets; `start` (groups + 1,) of each group."""

    before: NDArray[np.float64]
    after: NDArray[np.float64]
    targets: NDArray[Any]
    start: NDArray[np.int64]

    @property
    def groups(self) -> int:
        """How many."""
        return len(self.start) - 1

    def moved(self, share: float) -> "Population":
        """Return the same rows with `before + share * (after - before)` as the second model's scores."""
        return Population(self.before, self.before + share * (self.after - self.before), self.targets, self.start)

    def whole(self) -> tuple[Scores, Scores]:
        """Return the scores of all rows."""
        return self._scores(np.arange(self.groups))

    def draw(self, groups: int, random: np.random.Generator) -> tuple[Scores, Scores]:
        """Return a test set of so many groups, drawn with replacement; one drawn twice counts as two."""
        return self._scores(random.integers(self.groups, size=groups))

    def _scores(self, drawn: NDArray[np.int64]) -> tuple[Scores, Scores]:
        size = np.diff(self.start)[drawn]
        place = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)
        rows = np.repeat(self.start[drawn], size) + place
        group = np.repeat(np.arange(len(drawn)), size)
        return (
            Scores(self.before[rows], self.targets[rows], group),
            Scores(self.after[rows], self.targets[rows], group),
        )


def population_of(name: str, task: Task) -> Population:
    """Return the test split's scores by the original and by coded tables, from the cache where they are kept."""

    def build() -> dict[str, NDArray[Any]]:
        say(f"{name}: coding tables {RATIOS[name]} times smaller")
        change = EncodeTables(ratio=RATIOS[name]).apply(task)
        before, after = task.scores("test"), task.scores("test", change.model)
        assert before.groups is not None
        order = np.argsort(before.groups, kind="stable")
        first = np.flatnonzero(np.diff(before.groups[order], prepend=before.groups[order[0]] - 1))
        return {
            "before": before.outputs[order],
            "after": after.outputs[order],
            "targets": np.asarray(before.targets, dtype=np.float64)[order],
            "start": np.append(first, len(order)),
        }

    weights = hashlib.sha256(b"".join(w.detach().numpy().tobytes() for w in task.model.parameters())).hexdigest()
    kept = cached_arrays(f"auto-certificates-{name}-{RATIOS[name]}-{torch.__version__}-{weights[:12]}", build)
    return Population(*(np.asarray(kept[key]) for key in ("before", "after", "targets", "start")))


def share_for(task: Task, population: Population, wanted: float) -> float:
    """Return how far along the line the second model's logits must lie for a true drop, by bisection.

    Of several places the farthest is taken: a short way the mean of two models is better than either.
    """

    def drop(share: float) -> float:
        before, after = population.moved(share).whole()
        return measure(task.spec, before.outputs, before.targets) - measure(task.spec, after.outputs, after.targets)

    high = 1.0
    if drop(high) <= wanted:
        raise ValueError(f"the population's drop is {drop(high):.5f}, not over {wanted}; take a larger ratio")
    low = next(share for share in np.linspace(1.0, 0.0, 41) if drop(share) <= wanted)
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if drop(middle) <= wanted else (low, middle)
    return high


def measure_level(name: str, task: Task, whole: Population, level: Level, runs: int, until: float) -> Json:
    """Return how many test sets of a level are certified; what was done before is kept."""
    share = share_for(task, whole, level.share * MARGIN)
    population = whole.moved(share)
    before, after = population.whole()
    true = paired_drop(task.spec, before.outputs, after.outputs, before.targets, before.groups)
    groups = population.groups
    judged = [task.judged(LOGLOSS, scores.outputs) for scores in (before, after)]
    rise = paired_drop(LOGLOSS, judged[0], judged[1], before.targets, before.groups)
    needed = [rows_needed(one, MARGIN) for one in (true, rise)]
    if level.enough:
        groups = round(groups * max(rows or len(before.targets) for rows in needed) / len(before.targets))
    digest = hashlib.sha256(population.after.tobytes()).hexdigest()[:8]
    path = cache_folder() / "auto-certificates" / f"{name}-{digest}-{groups}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    done = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    with path.open("a") as file:
        for number in range(len(done), runs):
            if time.monotonic() > until:
                break
            sample = population.draw(groups, np.random.default_rng([SEED, round(1000 * level.share), number]))
            found = compare(task, *sample, MARGIN, CONFIDENCE)
            inside = non_inferior(found.drop, MARGIN)
            done.append({"value": found.drop.value, "high": found.drop.high, "inside": inside})
            done[-1] |= {"certified": found.certified, "rows": found.drop.n}
            file.write(json.dumps(done[-1]) + "\n")
            file.flush()
    about = {"moved": share, "rows_needed": {task.spec.name: needed[0], LOGLOSS.name: needed[1]}, "power": POWER}
    return about | summary(level, (true, rise), groups, done[:runs])


def summary(level: Level, true: tuple[Estimate, Estimate], groups: int, done: list[Json]) -> Json:
    """Return the shares that were certified with their 95% intervals."""

    def counted(key: str) -> Json:
        count = sum(one[key] for one in done)
        low, high = wilson(count, len(done)) if done else (0.0, 1.0)
        return {"count": count, "share": count / max(len(done), 1), "low": low, "high": high}

    return {
        "level": level.name,
        "true_drop": true[0].value,
        "true_logloss_rise": true[1].value,
        "groups": groups,
        "mean_rows": float(np.mean([one["rows"] for one in done])) if done else None,
        "runs": len(done),
        "metric_inside": counted("inside"),
        "certified": counted("certified"),
        "mean_half_width": float(np.mean([one["high"] - one["value"] for one in done])) if done else None,
    }


def render(result: Json) -> str:
    """Return the Markdown of a result."""
    lines = [
        f"Margin {result['margin']}, {result['confidence']:.0%} intervals. *Metric inside*: the bad end of the drop in "
        "the metric is inside the margin. *Certified*: that of logloss too, and no alarm of calibration.",
        "",
        "| drawn from | true drop | true rise, logloss | rows of one | test sets | metric inside | certified |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, found in result["tasks"].items():
        for row in found["levels"]:
            if not row["runs"]:
                continue
            cells = [f"{name}, tables {found['ratio']}x smaller", f"{row['true_drop']:+.4f}, {row['level']}"]
            cells += [f"{row['true_logloss_rise']:+.4f}"]
            cells += [f"{row['mean_rows']:,.0f} in {row['groups']:,} groups", f"{row['runs']:,}"]
            cells += [shown(row["metric_inside"]), shown(row["certified"])]
            lines.append(f"| {' | '.join(cells)} |")
    machine = result["hardware"]
    lines += ["", f"Made by `benchmarks/auto_certificates.py`, seed {result['seed']}: {machine['cpu']}, "]
    lines[-1] += f"torch {machine['packages']['torch']}, NumPy {machine['packages']['numpy']}."
    return "\n".join(lines)


def shown(one: Json) -> str:
    """Return "**2.0%** (0.8% to 5.0%)"."""
    return f"**{one['share']:.1%}** ({one['low']:.1%} to {one['high']:.1%})"


def write_docs(result: Json) -> None:
    """Put the table between the markers of the design note."""
    put(DOCS, "certificates", render(result))


def levels(names: list[str]) -> Iterator[tuple[str, Task, Population]]:
    """Yield each task with its population."""
    for name in names:
        task = ZOO[name]()
        yield name, task, population_of(name, task)


def say(words: str) -> None:
    """Print progress to the terminal."""
    print(f"[{time.strftime('%H:%M:%S')}] {words}", file=sys.stderr, flush=True)


def main() -> None:
    """Draw, certify, count; write the JSON and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=tuple(RATIOS), default=list(RATIOS))
    parser.add_argument("--runs", type=int, default=RUNS, help="test sets of each question")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long; the next run goes on")
    words = parser.parse_args()
    torch.set_num_threads(1)
    until = time.monotonic() + words.seconds
    result: Json = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"tasks": {}}
    result |= {"margin": MARGIN, "confidence": CONFIDENCE, "seed": SEED, "goal_at_margin": GOAL}
    for name, task, whole in levels(words.tasks):
        rows = []
        for level in LEVELS:
            rows.append(measure_level(name, task, whole, level, words.runs, until))
            say(f"{name}, {level.name}: {rows[-1]['runs']} test sets, certified {shown(rows[-1]['certified'])}")
        about = {"ratio": RATIOS[name], "metric": task.spec.name, "rows": len(whole.targets), "groups": whole.groups}
        result["tasks"][name] = about | {"levels": rows}
        result["hardware"] = describe_hardware()
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    write_docs(result)


if __name__ == "__main__":
    main()

"""Do the 95% intervals cover 95%? A thousand simulated tasks for each kind of interval, whose true drop is known.

    python benchmarks/coverage.py            # about three minutes on one core; writes JSON and the table in the docs

A task is a sample of rows with labels and the scores of two models, drawn from a population whose true metrics follow
from a formula (binormal AUC) or from a sample thousands of times larger. An interval covers when the truth is inside.
"""

import json
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyweight.quality.bootstrap import resample_sums
from flyweight.quality.calibration_error import CALIBRATION_ERROR
from flyweight.quality.formulas import Sample, find_formula
from flyweight.quality.intervals import estimate, find_spread, paired_drop
from flyweight.quality.measure import measure
from flyweight.quality.student import student_quantile
from flyweight.task.estimate import Estimate
from flyweight.task.metric import Metric, find_metric
from page_section import put

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "coverage.json"
DOCS = HERE.parent / "docs" / "statistics.md"
SEED, TASKS, RESAMPLES, LARGE = 20_240, 1000, 400, 200_000
KINDS = ("percentile", "basic", "normal", "student", "in use")
NORMAL = NormalDist()

Array = NDArray[Any]
Drawn = tuple[Array, Array, Array, Array | None]  # before, after, targets, groups


@dataclass(frozen=True)
class Population:
    """Where tasks come from: `draw(units, rng)` gives a sample of so many rows, or groups where it has groups."""

    name: str
    draw: Callable[[int, np.random.Generator], Drawn]
    truth: Callable[[str], tuple[float, float]] | None = None  # metric -> its true value before and after


@dataclass(frozen=True)
class Question:
    """One row of the table: what is estimated, from how much data, and whether groups are told to the estimator."""

    metric: str
    population: Population
    units: int
    drop: bool = True
    told_groups: bool = True
    cautious: bool = False  # few units change, or the value is biased: the interval should cover more, never less

    @property
    def is_control(self) -> bool:
        """Whether the interval is expected to fail: rows of a group are taken for independent."""
        return not self.told_groups


def binormal(units: int, rng: np.random.Generator) -> Drawn:
    """Independent rows, a quarter positive; scores normal with means 1.5 and 1.4 apart, correlated 0.95."""
    targets = (rng.random(units) < 0.25).astype(int)
    shared = rng.normal(size=units)
    other = 0.95 * shared + np.sqrt(1 - 0.95**2) * rng.normal(size=units)
    return shared + 1.5 * targets, other + 1.4 * targets, targets, None


def binormal_truth(metric: str) -> tuple[float, float]:
    """AUC of two normals of unit variance, means d apart: Phi(d / sqrt 2)."""
    assert metric == "auc"
    return NORMAL.cdf(1.5 / 2**0.5), NORMAL.cdf(1.4 / 2**0.5)


def logistic(units: int, rng: np.random.Generator) -> Drawn:
    """Independent rows; labels from a logistic model, the second model's logit off by a little everywhere."""
    feature = rng.normal(size=units)
    targets = (rng.random(units) < sigmoid(-1.2 + 1.2 * feature)).astype(int)
    before = -1.2 + 1.2 * feature
    return sigmoid(before), sigmoid(before + 0.05 + 0.1 * rng.normal(size=units)), targets, None


def requests(units: int, rng: np.random.Generator, spread: float = 0.0) -> Drawn:
    """Groups of rows that share a random effect in the label and in the second model's error.

    Groups have 5 to 25 rows, or a log-normal number with this spread (a few groups own most rows).
    """
    if spread:
        size = np.minimum(np.ceil(rng.lognormal(1.8, spread, units)), 300).astype(int)
    else:
        size = rng.integers(5, 26, units)
    group = np.repeat(np.arange(units), size)
    rows = len(group)
    mood, feature = 1.5 * rng.normal(size=units)[group], rng.normal(size=rows)
    targets = (rng.random(rows) < sigmoid(-1.2 + mood + 1.2 * feature)).astype(int)
    before = -1.2 + 0.5 * mood + 1.2 * feature
    after = before + 0.05 + 0.5 * rng.normal(size=units)[group] + 0.1 * rng.normal(size=rows)
    return sigmoid(before), sigmoid(after), targets, group


def uneven_requests(units: int, rng: np.random.Generator) -> Drawn:
    """As `requests`, with log-normal group sizes."""
    return requests(units, rng, spread=1.0)


def sigmoid(logit: Array) -> Array:
    """Return 1 / (1 + exp(-logit))."""
    return np.asarray(1 / (1 + np.exp(-logit)))


BINORMAL = Population("independent rows, binormal scores", binormal, binormal_truth)
LOGISTIC = Population("independent rows, logistic labels", logistic)
REQUESTS = Population("requests of 5 to 25 rows", requests)
UNEVEN = Population("requests of very uneven size", uneven_requests)

QUESTIONS: tuple[Question, ...] = (
    Question("auc", BINORMAL, 200),
    Question("auc", BINORMAL, 1000),
    Question("auc", BINORMAL, 1000, drop=False),
    Question("logloss", LOGISTIC, 500, drop=False),
    Question("logloss", LOGISTIC, 500),
    Question("rmse", LOGISTIC, 500),
    Question("accuracy", LOGISTIC, 500, cautious=True),
    Question("accuracy", LOGISTIC, 4000),
    Question("f1", LOGISTIC, 500),
    Question("calibration_error", LOGISTIC, 500, cautious=True),
    Question("auc", REQUESTS, 30),
    Question("auc", REQUESTS, 100),
    Question("auc", REQUESTS, 300),
    Question("auc", UNEVEN, 100),
    Question("logloss", REQUESTS, 30),
    Question("logloss", REQUESTS, 100),
    Question("logloss", REQUESTS, 1000),
    Question("logloss", UNEVEN, 100),
    Question("logloss", UNEVEN, 30),
    Question("gauc", REQUESTS, 100),
    Question("ndcg@10", REQUESTS, 30, cautious=True),
    Question("ndcg@10", REQUESTS, 100),
    Question("ndcg@10", REQUESTS, 300),
    Question("auc", REQUESTS, 100, told_groups=False),
    Question("logloss", REQUESTS, 100, told_groups=False),
)


def name_metric(name: str) -> Metric:
    """Return a metric of a task, or the calibration guard, by name."""
    return CALIBRATION_ERROR if name == CALIBRATION_ERROR.name else find_metric(name)


def find_truth(question: Question) -> float:
    """Return the true value or drop, by formula or from a sample of 200,000 groups (two million rows)."""
    metric, population = name_metric(question.metric), question.population
    if population.truth is not None:
        before, after = population.truth(question.metric)
    else:
        units = LARGE if population in (REQUESTS, UNEVEN) else 10 * LARGE
        first, second, targets, groups = population.draw(units, np.random.default_rng([SEED, 1]))
        before, after = (measure(metric, scores, targets, groups) for scores in (first, second))
    if not question.drop:
        return before
    return before - after if metric.larger_is_better else after - before


def ask(question: Question, seed: int) -> Estimate:
    """Return the interval from one simulated task."""
    before, after, targets, groups = question.population.draw(question.units, np.random.default_rng([SEED, 2, seed]))
    groups = groups if question.told_groups else None
    metric = name_metric(question.metric)
    if question.drop:
        return paired_drop(metric, before, after, targets, groups, resamples=RESAMPLES, seed=seed)
    return estimate(metric, before, targets, groups, resamples=RESAMPLES, seed=seed)


def measure_coverage(question: Question, tasks: int = TASKS) -> dict[str, Any]:
    """Return how often the interval holds the truth, with the Wilson interval of that share, as plain JSON values."""
    started = time.perf_counter()
    truth = find_truth(question)
    found = [ask(question, seed) for seed in range(tasks)]
    covered = sum(one.low <= truth <= one.high for one in found)
    low, high = wilson(covered, tasks)
    return {
        "metric": question.metric,
        "of": "drop" if question.drop else "value",
        "population": question.population.name,
        "units": question.units,
        "told_groups": question.told_groups and found[0].groups is not None,
        "control": question.is_control,
        "cautious": question.cautious,
        "method": found[0].method,
        "mean_rows": float(np.mean([one.n for one in found])),
        "truth": truth,
        "mean_value": float(np.mean([one.value for one in found])),
        "mean_half_width": float(np.mean([(one.high - one.low) / 2 for one in found])),
        "tasks": tasks,
        "coverage": covered / tasks,
        "coverage_low": low,
        "coverage_high": high,
        "seconds": round(time.perf_counter() - started, 1),
    }


def compare_kinds(population: Population, units: int, tasks: int) -> dict[str, Any]:
    """Return the coverage of five kinds of interval for one logloss drop: why the one in use was chosen."""
    metric, formula = find_metric("logloss"), find_formula(find_metric("logloss"))
    truth = find_truth(Question("logloss", population, units))
    hits = dict.fromkeys(KINDS, 0)
    for seed in range(tasks):
        before, after, targets, groups = population.draw(units, np.random.default_rng([SEED, 3, seed]))
        assert formula.tally is not None
        samples = [Sample(scores, targets, groups) for scores in (after, before)]
        tallies = [formula.tally(sample) for sample in samples]
        drawn = resample_sums(np.hstack([t.sums() for t in tallies]), RESAMPLES, np.random.default_rng(seed))
        values = tallies[0].finish(drawn[:, :2]) - tallies[1].finish(drawn[:, 2:])
        value = measure(metric, after, targets) - measure(metric, before, targets)
        low, high = np.quantile(values, [0.025, 0.975])
        error = float(values.std(ddof=1))
        student = student_quantile(0.95, units - 1) * error * (units / (units - 1)) ** 0.5
        in_use = find_spread(metric, samples, RESAMPLES, seed).half_width(0.95)
        ends = {
            "percentile": (low, high),
            "basic": (2 * value - high, 2 * value - low),
            "normal": (value - 1.96 * error, value + 1.96 * error),
            "student": (value - student, value + student),
            "in use": (value - in_use, value + in_use),
        }
        for kind, (one, other) in ends.items():
            hits[kind] += one <= truth <= other
    shares = {kind: count / tasks for kind, count in hits.items()}
    return {"population": population.name, "units": units, "tasks": tasks, "coverage": shares}


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Return the 95% interval of a share (Wilson 1927)."""
    z = NORMAL.inv_cdf(0.975)
    share, weight = successes / trials, 1 + z * z / trials
    middle = (share + z * z / (2 * trials)) / weight
    half = z * (share * (1 - share) / trials + z * z / (4 * trials**2)) ** 0.5 / weight
    return middle - half, middle + half


def describe_machine() -> dict[str, Any]:
    """Return what it ran on: processor and versions."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "numpy": version("numpy"),
        "flyweight": version("flyweight"),
    }


def render_table(result: dict[str, Any]) -> str:
    """Return the Markdown of a result: the coverage of each question, then of each kind of interval."""
    lines = [
        f"{result['tasks']:,} simulated tasks a row, 95% intervals, {result['resamples']} resamples, seed "
        f"{result['seed']}; the range beside a coverage is its own 95% interval.",
        "",
        "| interval on | tasks of | method | covered |",
        "|---|---|---|---|",
    ]
    for row in result["questions"]:
        size = f"{row['units']:,} " + (row["population"] if row["population"].startswith("requests") else "rows")
        method = row["method"].split(",")[0] + (" (groups not told: a control)" if row["control"] else "")
        method += " (cautious, see above)" if row["cautious"] else ""
        lines.append(
            f"| {row['metric']} {row['of']} | {size} | {method} | **{row['coverage']:.1%}** "
            f"({row['coverage_low']:.1%} to {row['coverage_high']:.1%}) |"
        )
    lines += [
        "",
        "Kinds of interval on the same resamples, logloss drop:",
        "",
        "| tasks of | percentile | basic | normal | Student's t, G - 1 | in use |",
        "|---|---|---|---|---|---|",
    ]
    for row in result["kinds"]:
        shares = " | ".join(f"{row['coverage'][kind]:.1%}" for kind in KINDS)
        lines.append(f"| {row['units']} {row['population']} | {shares} |")
    machine = result["machine"]
    lines += ["", f"Made by `benchmarks/coverage.py` in {result['seconds']:.0f} s: {machine['processor']}, one core, "]
    lines[-1] += f"Python {machine['python']}, NumPy {machine['numpy']}."
    return "\n".join(lines)


def write_docs(result: dict[str, Any], path: Path = DOCS) -> None:
    """Put the table between the markers of the design note."""
    put(path, "coverage", render_table(result))


def main() -> None:
    """Measure everything, write the JSON and the table."""
    started = time.perf_counter()
    questions = []
    for number, question in enumerate(QUESTIONS):
        row = measure_coverage(question)
        questions.append(row)
        spent = time.perf_counter() - started
        left = spent / (number + 1) * (len(QUESTIONS) - number - 1)
        print(
            f"{row['metric']:8} {row['of']:5} {row['units']:5} {row['population']:34} {row['method']:32} "
            f"{row['coverage']:.1%}  ({row['seconds']} s, about {left:.0f} s left)",
            flush=True,
        )
    kinds = [compare_kinds(REQUESTS, units, TASKS) for units in (10, 30, 100)]
    kinds += [compare_kinds(UNEVEN, units, TASKS) for units in (30, 100)]
    result = {
        "machine": describe_machine(),
        "seed": SEED,
        "tasks": TASKS,
        "resamples": RESAMPLES,
        "confidence": 0.95,
        "seconds": round(time.perf_counter() - started, 1),
        "questions": questions,
        "kinds": kinds,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    write_docs(result)


if __name__ == "__main__":
    main()

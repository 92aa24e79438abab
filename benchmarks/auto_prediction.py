"""Does the predicted damage rank codings of the tables as the true one does, and does a plan beat one coding for all?

    python benchmarks/auto_prediction.py                       # about five minutes on one core
    python benchmarks/auto_prediction.py --only plan           # a part; the others are kept from the JSON

Rank correlation (Spearman 1904) between the rise of the mean validation loss that the quadratic form of
`flyweight.tables.damage` predicts for a choice of codings, one for each band, and the true one, over choices drawn at
random from the whole menu: of sizes spread from 64 to 2,000 times smaller, and, harder, all of about one size. What is
to be beaten is the plain sum of the damages that each coding does alone. Writes results/auto_prediction.json and the
table of docs/tables.md.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from auto_prediction_tables import write_docs
from dense_harness import as_json
from flyweight.cost.hardware import describe_hardware
from flyweight.planning.certificate import compare
from flyweight.quality.intervals import paired_drop
from flyweight.quality.places import mid_ranks
from flyweight.tables import damage
from flyweight.tables.allocation import Choice, Damage, Menu, allocate
from flyweight.tables.damage import Anchor, expand
from flyweight.tables.prepare import encode_bands, test_size, usable_tables, weigh_rows
from flyweight.tables.recalibration import fold
from flyweight.tables.replace import with_tables
from flyweight.tables.search import Search
from flyweight.tables.sensitivity import row_losses, small_batch, validation_folds
from flyweight.tables.trial import Bench, Trial
from flyweight.task.scores import Scores, evaluating
from flyweight.task.task import Task
from flyweight.zoo.tasks import ZOO

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "auto_prediction.json"
TASK, SEED, CHOICES, GOAL = "complete-journey", 20_261, 50, 0.9
#: Times smaller: the range of the spread set, and the size of the even one.
RANGE, EVEN = (64.0, 2000.0), 400.0
#: How near a drawn choice comes to the bytes wanted, as a share of them.
NEAR = 0.03
#: Bits of the one code a row that every large band gets where there is no plan.
ONE_CODING = (4, 2)
MARGIN = 0.001
#: Bands of fewer rows keep their best coding where all others get one coding: they weigh nothing.
SMALL = 1_000
#: Of a choice near the plan: the share of the bands that move to a neighbouring coding of their menu.
MOVED = 0.3
#: Sizes at which both predictions make a plan, with no trial.
PLANNED = (128.0, 400.0, 800.0, 1200.0)
#: Tables of more rows are emptied two by two.
LARGE = 20_000
PARTS = ("spread", "even", "near", "pairs", "planned", "plan")
Json = dict[str, Any]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Setting:
    """The tables with all their codings, what trials are made on, and the first prediction."""

    bench: Bench
    search: Search
    first: Damage

    @property
    def task(self) -> Task:
        """The task with the original model."""
        return self.bench.task

    @property
    def menu(self) -> Menu:
        """All options."""
        return self.search.menu


def setting_of(task: Task, *, fine: bool) -> Setting:
    """Encode every band in every coding of the menu, as `EncodeTables` does before it searches."""
    tables, _ = usable_tables(task)
    before = task.scores("validation")
    items = encode_bands(tables, weigh_rows(task, tables), fine=fine, seed=0)
    bench = Bench(task, tables, items, before, validation_folds(task).numpy(), test_size(task, before))
    search = Search(bench)
    return Setting(bench, search, search.damages[0][0])


def draw_choice(menu: Menu, wanted: float, random: np.random.Generator) -> Choice:
    """Return a choice of about so many bytes, each band's option drawn with probability as `exp(-price * bytes)`.

    Of all ways to draw that give this size in the mean it is the one of most entropy; the price is found by bisection.
    """
    spans = list(zip(menu.starts[:-1], menu.starts[1:], strict=True))

    def chances(price: float) -> list[Floats]:
        exponents = [-price * menu.bytes[a:b] for a, b in spans]
        weights = [np.exp(one - one.max()) for one in exponents]
        return [weight / weight.sum() for weight in weights]

    def mean(price: float) -> float:
        return sum(float(p @ menu.bytes[a:b]) for p, (a, b) in zip(chances(price), spans, strict=True))

    low, high = -1e-2, 1e2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if mean(middle) > wanted else (low, middle)
    drawn_from = chances(high)
    for _ in range(200_000):
        choice = np.array([random.choice(len(p), p=p) for p in drawn_from])
        if abs(menu.size(choice) - wanted) <= NEAR * wanted:
            return choice
    raise ValueError(f"no choice of {wanted:,.0f} bytes was drawn; the menu takes {menu.bytes.min():,.0f} and more")


def draw_near(menu: Menu, plan: Choice, random: np.random.Generator) -> Choice:
    """Return a choice of about the bytes of a plan, in which some bands have the next finer or coarser coding."""
    counts, wanted = np.diff(menu.starts), menu.size(plan)
    for _ in range(200_000):
        steps = random.choice([-1, 1], size=len(plan)) * (random.random(len(plan)) < MOVED)
        choice = np.clip(plan + steps, 0, counts - 1)
        if (choice != plan).any() and abs(menu.size(choice) - wanted) <= NEAR * wanted:
            return choice
    raise ValueError(f"no choice near the plan of {wanted:,.0f} bytes was drawn")


def true_loss(setting: Setting, choice: Choice) -> float:
    """Return the mean validation loss of the model of a choice, recalibrated to the labels as every trial is."""
    bench = setting.bench
    model = with_tables(bench.task.model, bench.tables, bench.tables_of(choice), share=True)
    return calibrated_loss(setting, bench.task.scores("validation", model))


def calibrated_loss(setting: Setting, scores: Scores) -> float:
    """Return the mean loss of scores, recalibrated to the labels."""
    outputs = setting.bench.fit(scores.outputs).apply(torch.from_numpy(scores.outputs))
    return float(row_losses(setting.task, outputs, torch.from_numpy(scores.targets)).mean())


def alone(form: Damage) -> Floats:
    """Return the damage of each option by itself, (options,)."""
    return np.asarray(form.linear + 0.5 * np.diag(form.curvature))


def measure_set(setting: Setting, choices: list[Choice], tried: Choice) -> Json:
    """Return true and predicted damage of choices, and their rank correlations.

    Args:
        tried: the choice that the corrected predictions are laid at.
    """
    menu = setting.menu
    before = calibrated_loss(setting, setting.bench.before)
    rises = np.array([true_loss(setting, choice) - before for choice in choices])
    predictions = predictions_of(setting, tried)
    predicted = {name: np.array([of(menu.picks(choice)) for choice in choices]) for name, of in predictions.items()}
    predicted["bytes alone"] = -np.array([menu.size(choice) for choice in choices])
    return {
        "choices": len(choices),
        "ratio": [float(setting.bench.bytes_before / menu.size(choice)) for choice in choices],
        "rise": rises.tolist(),
        "predicted": {name: values.tolist() for name, values in predicted.items()},
        "spearman": {name: correlation(values, rises) for name, values in predicted.items()},
    }


def predictions_of(setting: Setting, tried: Choice) -> dict[str, Callable[[NDArray[np.int64]], float]]:
    """Return each way to predict, by name: what is to be beaten, the first form, and those after one trial."""
    bench, first = setting.bench, setting.first
    single = alone(first)
    trial = bench.run(tried, (tried, tried))
    anchors = (
        Anchor(bench.task.model, bench.fit(bench.before.outputs)),
        Anchor(trial.model, trial.calibration, trial.choice),
    )
    at_original, at_tried = (damages[0] for damages in expand(bench.task, bench.tables, bench.items, anchors))
    return {
        "sum of single damages": lambda picks: float(single[picks].sum()),
        "first prediction": first.of,
        "corrected, laid at the original": at_original.of,
        "corrected, laid at a tried choice": at_tried.of,
    }


def correlation(one: Floats, other: Floats, draws: int = 2_000) -> Json:
    """Return Spearman's rank correlation with its 95% bootstrap interval over the choices."""
    random = np.random.default_rng(0)
    places = random.integers(len(one), size=(draws, len(one)))
    values = [spearman(one[rows], other[rows]) for rows in places]
    low, high = np.nanquantile(values, [0.025, 0.975])
    return {"value": spearman(one, other), "low": float(low), "high": float(high), "n": len(one)}


def spearman(one: Floats, other: Floats) -> float:
    """Return the correlation of ranks, ties sharing the mean of theirs; NaN where one side has no order.

    Example:
        >>> spearman(np.array([1.0, 2.0, 3.0]), np.array([1.0, 9.0, 4.0]))
        0.5
    """
    ranks = np.stack([mid_ranks(one), mid_ranks(other)])
    if (ranks.std(1) == 0).any():
        return float("nan")
    return float(np.corrcoef(ranks)[0, 1])


def measure_spread(setting: Setting) -> Json:
    """Return the set of sizes spread evenly, on the scale of the ratio's logarithm."""
    random, total = np.random.default_rng([SEED, 1]), setting.bench.bytes_before
    choices = [draw_choice(setting.menu, total / ratio, random) for ratio in np.geomspace(*RANGE, CHOICES)]
    return measure_set(setting, choices, first_plan(setting))


def measure_even(setting: Setting) -> Json:
    """Return the set of one size."""
    random, budget = np.random.default_rng([SEED, 2]), setting.bench.bytes_before / EVEN
    choices = [draw_choice(setting.menu, budget, random) for _ in range(CHOICES)]
    return measure_set(setting, choices, first_plan(setting))


def measure_near(setting: Setting) -> Json:
    """Return the set around the first prediction's own best choice of that size: where a search decides."""
    random, plan = np.random.default_rng([SEED, 3]), first_plan(setting)
    return measure_set(setting, [draw_near(setting.menu, plan, random) for _ in range(CHOICES)], plan)


def first_plan(setting: Setting) -> Choice:
    """Return the choice of least damage by the first prediction, of the even set's size."""
    budget = setting.bench.bytes_before / EVEN
    return allocate(setting.menu, setting.first, budget, setting.menu.extreme(largest=True))


def measure_pairs(setting: Setting) -> Json:
    """Return what two large tables of one vector each cost beyond what each costs alone, in truth and predicted."""
    finest, base = setting.menu.extreme(largest=True), calibrated_loss(setting, setting.bench.before)
    names = sorted({item.table for item in setting.bench.items if item.stop > LARGE})

    def costs(*emptied: str) -> tuple[float, float]:
        choice = np.where([item.table in emptied for item in setting.bench.items], 0, finest)
        return true_loss(setting, choice) - base, setting.first.of(setting.menu.picks(choice))

    nothing = np.array(costs())
    alone_costs = {name: np.array(costs(name)) - nothing for name in names}
    pairs = [
        {"tables": list(pair), "rise": extra[0], "predicted": extra[1]}
        for pair in combinations(names, 2)
        for extra in [np.array(costs(*pair)) - nothing - alone_costs[pair[0]] - alone_costs[pair[1]]]
    ]
    true, predicted = (np.array([pair[key] for pair in pairs]) for key in ("rise", "predicted"))
    return {
        "pairs": pairs,
        "alone": {name: {"rise": cost[0], "predicted": cost[1]} for name, cost in alone_costs.items()},
        "same_sign": float(np.mean(np.sign(true) == np.sign(predicted))),
        "median_share": float(np.median(predicted / true)),
        "spearman": {"first prediction": correlation(predicted, true)},
    }


def measure_planned(setting: Setting) -> list[Json]:
    """Return, for each size, what the plan of least damage really costs, by the sum of single damages and by the form.

    No trial corrects either: what differs is whether two codings together count as more than each alone. And, to see
    why, the same with slopes that are believed as they were measured, noise and all.
    """
    task, first, rows = setting.task, setting.first, []
    before, base = task.scores("test"), calibrated_loss(setting, setting.bench.before)
    bolder = bolder_prediction(setting)
    ways = {
        "sum of single damages": Damage(alone(first), np.zeros_like(first.curvature)),
        "first prediction": first,
        "sum, slopes as measured": Damage(alone(bolder), np.zeros_like(bolder.curvature)),
        "first, slopes as measured": bolder,
    }
    for ratio in PLANNED:
        told: Json = {"ratio": ratio}
        for name, form in ways.items():
            budget = setting.bench.bytes_before / ratio
            choice = allocate(setting.menu, form, budget, setting.menu.extreme(largest=True))
            after = handed_on(setting, setting.bench.run(choice, (choice, choice)))
            found = compare(task, before, after, MARGIN, 0.95)
            told[name] = {
                "predicted_rise": form.of(setting.menu.picks(choice)),
                "validation_rise": true_loss(setting, choice) - base,
                "drop": as_json(found.drop),
                "logloss_drop": as_json(found.guard_drops["logloss"]),
            }
        rows.append(told)
        say(f"{ratio:.0f}x: {({name: round(told[name]['validation_rise'], 5) for name in ways})}")
    return rows


def bolder_prediction(setting: Setting) -> Damage:
    """Return the first prediction with slopes that are believed as they were measured."""
    bench, kept = setting.bench, damage.NOISE
    try:
        damage.NOISE = 0.0
        anchor = Anchor(bench.task.model, bench.fit(bench.before.outputs))
        return expand(bench.task, bench.tables, bench.items, (anchor,))[0][0]
    finally:
        damage.NOISE = kept


def measure_plan(setting: Setting) -> list[Json]:
    """Return, for each single coding, its drop on test data beside that of a plan of no more bytes."""
    task, rows = setting.task, []
    before = task.scores("test")
    for bits in ONE_CODING:
        choice = one_coding(setting, bits)
        single = setting.bench.run(choice, (choice, choice))
        planned = setting.search.try_bytes(single.table_bytes)
        scores = {"one coding": handed_on(setting, single), "plan": handed_on(setting, planned)}
        told: Json = {"bits": bits}
        for (name, after), trial in zip(scores.items(), (single, planned), strict=True):
            found = compare(task, before, after, MARGIN, 0.95)
            told[name] = {
                "table_bytes": trial.table_bytes,
                "ratio": setting.bench.bytes_before / trial.table_bytes,
                "drop": as_json(found.drop),
                "logloss_drop": as_json(found.guard_drops["logloss"]),
                "certified": found.certified,
            }
        pair = [one.outputs for one in (scores["plan"], scores["one coding"])]
        told["plan_better_by"] = as_json(paired_drop(task.spec, *pair, before.targets, before.groups))
        # A plan that loses nothing has lost at most half of anything.
        limit = 0.5 * max(told["one coding"]["drop"]["value"], 0.0)
        told["at_most_half"] = told["plan"]["drop"]["value"] <= limit
        rows.append(told)
        drops = {name: round(told[name]["drop"]["value"], 5) for name in scores}
        say(f"{bits} bits: drops {drops}")
    return rows


def one_coding(setting: Setting, bits: int) -> Choice:
    """Return the choice of one code of so many bits a row in every large band, and the best coding of a small one."""
    choice = setting.menu.extreme(largest=True)
    for number, item in enumerate(setting.bench.items):
        codings = [option.coding for option in item.options]
        wanted = [place for place, one in enumerate(codings) if (one.bits, one.stages, one.groups) == (bits, 1, 1)]
        if item.stop - item.start >= SMALL and wanted:
            choice[number] = wanted[0]
    return choice


def handed_on(setting: Setting, trial: Trial) -> Scores:
    """Return the test scores of the model that a trial would be handed on as, its recalibration folded in."""
    bench = setting.bench
    model: nn.Module = with_tables(bench.task.model, bench.tables, trial.tables)
    with evaluating(model):
        model, _ = fold(model, trial.recalibration, small_batch(bench.task))
    return bench.task.scores("test", model)


def say(words: str) -> None:
    """Print progress to the terminal."""
    print(f"[{time.strftime('%H:%M:%S')}] {words}", file=sys.stderr, flush=True)


MEASURES: dict[str, Callable[[Setting], Any]] = {
    "spread": measure_spread,
    "even": measure_even,
    "near": measure_near,
    "pairs": measure_pairs,
    "planned": measure_planned,
    "plan": measure_plan,
}


def main() -> None:
    """Measure the parts asked for, write the JSON and the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    words = parser.parse_args()
    torch.set_num_threads(1)
    result: Json = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    result |= {"task": TASK, "seed": SEED, "goal": GOAL}
    say("Encoding every table in every coding")
    setting = setting_of(ZOO[TASK](), fine=True)
    for part in words.only:
        result[part] = MEASURES[part](setting)
        if "spearman" in result[part]:
            say(f"{part}: {({name: round(one['value'], 3) for name, one in result[part]['spearman'].items()})}")
        result["hardware"] = describe_hardware()
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    if all(part in result for part in PARTS):
        write_docs(result)


if __name__ == "__main__":
    main()

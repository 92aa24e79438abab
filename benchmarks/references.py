"""How good are the zoo's models beside simple rankers, and does the choice of groups move an interval?

python benchmarks/references.py          # about four minutes on 2 cores the first time; writes JSON and docs/zoo.md
"""

import copy
import json
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flyweight.cost.hardware import describe_hardware
from flyweight.quality.intervals import estimate, paired_drop
from flyweight.task.estimate import Estimate
from flyweight.task.metric import find_metric
from flyweight.task.task import Task
from flyweight.zoo import complete_journey, movielens, retail_rows
from flyweight.zoo.batches import Batches
from flyweight.zoo.dataset import Dataset
from flyweight.zoo.references import REFERENCES, count_scores, rate_scores, regression_scores
from flyweight.zoo.tasks import ZOO
from page_section import put

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "references.json"
DOCS = HERE.parent / "docs" / "zoo.md"
#: A table whose loss costs little: the difference that the choice of groups is shown on.
LEFT_OUT = "household_x_manufacturer"


def as_json(one: Estimate) -> dict[str, Any]:
    """Return an estimate as plain JSON values."""
    keys = ("value", "low", "high", "n", "groups", "method")
    return {key: getattr(one, key) for key in keys}


def quality(scores: Tensor, split: Batches, groups: Tensor) -> dict[str, Any]:
    """Return the AUC of scores with its interval by groups."""
    return as_json(estimate(find_metric("auc"), scores.double().numpy(), split.target.numpy(), groups.numpy()))


def measure_journey(task: Task, data: Dataset) -> list[dict[str, Any]]:
    """Return the test AUC of each reference and of the ranker on Complete Journey."""
    requests = data.test.extra["request_id"]
    rows = [
        {"name": reference.name, "auc": quality(reference.scores(data, data.test), data.test, requests)}
        for reference in REFERENCES
    ]
    tasks = {"DCN-V2": task, **{name: ZOO[key]() for name, key in RANKERS.items()}}
    for name, one in tasks.items():
        found = torch.from_numpy(one.scores("test").outputs)
        rows.append({"name": name, "auc": quality(found, data.test, requests)})
    return rows


def measure_movielens(task: Task, data: Dataset) -> list[dict[str, Any]]:
    """Return the test AUC of popularity and of the two-tower model on MovieLens-1M."""
    users = data.test.column("user_id").long()
    scores = {
        "film popularity (times liked)": count_scores(data.train, data.test, "item_id"),
        "film rate (liked of shown)": rate_scores(data.train, data.test, "item_id"),
        "two-tower": torch.from_numpy(task.scores("test").outputs),
    }
    return [{"name": name, "auc": quality(values, data.test, users)} for name, values in scores.items()]


def measure_retail(task: Task, data: Dataset) -> list[dict[str, Any]]:
    """Return the test AUC of simple rankers and of DCN-V2 on Online Retail II."""
    customers = data.test.extra["customer_number"].long()
    plain = tuple(name for name in data.fields if "_x_" not in name)
    scores = {
        "how long ago the customer bought it": rate_scores(data.train, data.test, "since"),
        "what was sold of it in 28 days": rate_scores(data.train, data.test, "sales"),
        "logistic regression": regression_scores(data, data.test, plain),
        "DCN-V2": torch.from_numpy(task.scores("test").outputs),
    }
    return [{"name": name, "auc": quality(values, data.test, customers)} for name, values in scores.items()]


def compare_groups(task: Task, data: Dataset) -> list[dict[str, Any]]:
    """Return the drop from leaving one table out, with intervals by row, by request and by household."""
    smaller = copy.deepcopy(task.model)
    with torch.no_grad():
        smaller.tables[LEFT_OUT].weight.zero_()
    before, after = task.scores("test"), task.scores("test", smaller)
    groups = {"row": None} | {name: data.test.extra[key].numpy() for name, key in GROUPS.items()}
    return [
        {
            "group": name,
            "drop": as_json(paired_drop(find_metric("auc"), before.outputs, after.outputs, before.targets, ids)),
        }
        for name, ids in groups.items()
    ]


#: The zoo's other rankers of the same rows.
RANKERS = {
    "MLP": "complete-journey-mlp",
    "DLRM": "complete-journey-dlrm",
    "DeepFM": "complete-journey-deepfm",
    "DIN, without crossed fields, with the last 100 purchases": "complete-journey-din",
}
GROUPS = {"request": "request_id", "household": "household"}


def render(result: dict[str, Any]) -> str:
    """Return the Markdown of a result."""
    lines = []
    for title, key, unit in (
        ("Complete Journey, test weeks 51 to 53", "complete_journey", "requests"),
        ("MovieLens-1M, each user's last tenth of likes", "movielens_1m", "users"),
        ("Online Retail II, baskets of November and December 2011", "online_retail", "customers"),
    ):
        first = result[key][0]["auc"]
        lines += [f"{title}: {first['n']:,} rows, {first['groups']:,} {unit}.", "", "| ranker | test AUC, 95% |"]
        lines += ["|---|---|"]
        for row in result[key]:
            one = row["auc"]
            lines.append(f"| {row['name']} | {one['value']:.4f} [{one['low']:.4f}, {one['high']:.4f}] |")
        lines.append("")
    lines += [
        f"The drop of DCN-V2 when the table `{LEFT_OUT}` is emptied, by what is resampled:",
        "",
        "| independent | drop in AUC, 95% | half width |",
        "|---|---|---|",
    ]
    for row in result["groups"]:
        one = row["drop"]
        count = one["groups"] or one["n"]
        half = (one["high"] - one["low"]) / 2
        interval = f"{one['value']:+.5f} [{one['low']:+.5f}, {one['high']:+.5f}]"
        lines.append(f"| {row['group']} ({count:,}) | {interval} | {half:.5f} |")
    machine = result["hardware"]
    lines += ["", f"Made by `benchmarks/references.py` on {machine['cpu']}, torch {machine['packages']['torch']}."]
    return "\n".join(lines)


def write_docs(result: dict[str, Any]) -> None:
    """Put the tables between the markers of the page."""
    put(DOCS, "references", render(result))


def main() -> None:
    """Measure, write the JSON and the tables."""
    started = time.perf_counter()
    journey, ranker = complete_journey.load(), ZOO["complete-journey"]()
    films, tower = movielens.load(), ZOO["movielens-1m"]()
    result = {
        "hardware": describe_hardware(),
        "complete_journey": measure_journey(ranker, journey),
        "movielens_1m": measure_movielens(tower, films),
        "online_retail": measure_retail(ZOO["online-retail"](), retail_rows.load()),
        "groups": compare_groups(ranker, journey),
        "seconds": round(time.perf_counter() - started, 1),
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    write_docs(result)


if __name__ == "__main__":
    main()

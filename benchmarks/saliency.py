"""How well a saliency foretells what the loss does without a unit, or the metric without a field: rank correlations.

python benchmarks/saliency.py     # writes results/saliency.json

Each of a sample of units is silenced alone, and the rise of the loss on validation data is the truth; Spearman's
correlation with the saliency is taken over all units together, which is what a global ranking needs, and within groups.
The variants divide by something of the unit's group, as some tools do.
"""

import json
import sys
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from scipy.stats import spearmanr
from torch import Tensor

import flyweight as fw
from dense_models import gtsrb_task, lenet_task
from flyweight.cost.hardware import describe_hardware
from flyweight.graph.coupling import Group, find_groups
from flyweight.graph.shrink import silenced
from flyweight.graph.trace import trace
from flyweight.graph.traced import TracedModel
from flyweight.pruning.calibration import calibration_pieces, first_inputs
from flyweight.pruning.input_fields import find_fields, measure_fields, without_fields
from flyweight.pruning.saliency import SALIENCIES, unit_saliency
from flyweight.quality.measure import measure
from flyweight.task.scores import call_model
from flyweight.zoo.tasks import complete_journey

RESULTS = Path(__file__).parent / "results" / "saliency.json"
SAMPLE, BATCHES = 24, 4
VARIANTS: dict[str, Callable[[Tensor], Tensor]] = {
    "divided by the group's mean": lambda values: values / values.mean(),
    "divided by the group's norm": lambda values: values / values.square().sum().sqrt(),
}


def loss_of(task: fw.Task, model: TracedModel) -> float:
    """Return the mean loss of some validation rows."""
    with torch.no_grad():
        rows = [
            task.row_loss(call_model(model, inputs, len(target)), target).double()
            for inputs, target, _ in islice(task.batches("validation"), BATCHES)
        ]
    return float(torch.cat(rows).mean())


def truth(task: fw.Task, traced: TracedModel, groups: Iterable[Group]) -> dict[str, tuple[list[int], Tensor]]:
    """Return for each group some of its units, and how much the loss rises without each."""
    whole, found = loss_of(task, traced), {}
    for group in groups:
        every = range(len(group.units))
        units = torch.randperm(len(every), generator=torch.Generator().manual_seed(0))[:SAMPLE].tolist()
        left = [silenced(traced, {group.name: [one for one in every if one != unit]}) for unit in units]
        found[group.name] = units, torch.tensor([loss_of(task, model) - whole for model in left])
    return found


def compare_units(name: str, task: fw.Task) -> list[dict[str, Any]]:
    """Return the correlation of each saliency with the truth."""
    traced = trace(task.model, first_inputs(task))
    groups, _ = find_groups(traced)
    true = truth(task, traced, groups)
    rows = []
    for saliency in SALIENCIES:
        found = unit_saliency(task, traced, groups, saliency)
        kinds = {"as it is": found}
        if saliency == "taylor":
            kinds |= {words: {key: make(own) for key, own in found.items()} for words, make in VARIANTS.items()}
        for words, values in kinds.items():
            rows.append({"task": name, "saliency": saliency, "variant": words, **_correlations(values, true)})
            print(rows[-1], file=sys.stderr)
    return rows


def _correlations(found: dict[str, Tensor], true: dict[str, tuple[list[int], Tensor]]) -> dict[str, float]:
    pairs = [(found[name][units], rise) for name, (units, rise) in true.items()]
    values, rises = (torch.cat([pair[which] for pair in pairs]) for which in (0, 1))
    within = [spearmanr(own, rise).statistic for own, rise in pairs]
    return {
        "over_all": round(float(spearmanr(values, rises).statistic), 3),
        "within_groups": round(fmean(float(one) for one in within if one == one), 3),
        "units": len(values),
    }


def compare_fields(task: fw.Task) -> dict[str, Any]:
    """Return the correlation of the fields' first-order rise with the true drop in the metric."""
    traced = trace(task.model, first_inputs(task))
    fields, _ = find_fields(traced)
    rises, means = measure_fields(task, traced, fields, calibration_pieces(task))

    def quality(model: torch.nn.Module) -> float:
        scores = task.scores("validation", model)
        return measure(task.spec, task.judged(task.spec, scores.outputs), scores.targets, scores.groups)

    whole = quality(traced)
    drops = {one.name: whole - quality(without_fields(traced, [one], means)) for one in fields}
    correlation = spearmanr([rises[name] for name in drops], list(drops.values())).statistic
    return {"task": task.name, "fields": len(drops), "correlation": round(float(correlation), 3), "drops": drops}


def main() -> None:
    """Compare all and write the JSON."""
    torch.set_num_threads(1)
    units = [
        row
        for name, make in (("LeNet-300-100", lenet_task), ("ResNet on traffic signs", gtsrb_task))
        for row in compare_units(name, make(0))
    ]
    fields = compare_fields(complete_journey())
    RESULTS.write_text(json.dumps({"hardware": describe_hardware(), "units": units, "fields": fields}, indent=1) + "\n")


if __name__ == "__main__":
    main()

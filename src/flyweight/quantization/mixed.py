"""The precision of each layer: by what rounding it costs the output, and by what the model takes, measured.

A layer in integers is not always faster: its input must be rounded first, and a small product is over before that is
(pytorch issue 62804). Which layers are too small depends on the engine and the machine, and the times of single layers
do not add up, since engines join neighbours. So whole models are timed: layers are ranked by their work and grouped,
and each candidate keeps one group more in floating point, the smallest layers first; one rounds weights alone. The
candidate of fewest bytes among those as fast as the fastest is taken.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import log, prod
from typing import Any

import torch
from torch import fx

from flyweight.graph.traced import TracedModel
from flyweight.quantization.build import Built
from flyweight.quantization.insert import Precision
from flyweight.quantization.measured import AS_FAST, Timed, time_candidates
from flyweight.quantization.observe import Inputs
from flyweight.quantization.sensitivity import LADDER, Price, output_error, raise_precision, weight_bytes
from flyweight.quantization.sites import STEP, Site
from flyweight.task.change import Skipped
from flyweight.task.scores import evaluating

#: Rows that sensitivity is judged on.
_ROWS = 512
#: Layers whose work is within this factor of each other stay together.
_ALIKE = 4.0
#: The most candidates that keep some layers in floating point.
_MOST_GROUPS = 3
FLOAT, WEIGHTS_ONLY, ALL = "float32", "weights alone", "all layers"
Choice = dict[str, Precision]
Make = Callable[[Choice], Built]


@dataclass(frozen=True, eq=False)
class Mixed:
    """What was chosen.

    Args:
        precision: of each layer.
        built: the model; None where nothing is rounded.
        done: what was tried, as a record.
        skipped: the layers that stay as they were, with the numbers.
    """

    precision: Choice
    built: Built | None
    done: tuple[dict[str, Any], ...]
    skipped: tuple[Skipped, ...]


def by_sensitivity(
    traced: TracedModel,
    sites: Sequence[Site],
    start: Precision,
    make: Make,
    rows: Sequence[Inputs],
    most: float,
) -> tuple[Choice, list[dict[str, Any]]]:
    """Return the precision of each layer so that the errors of the outputs add up to at most `most` variances.

    Args:
        start: what all layers have that are not too sensitive.
        make: builds a model of a choice.
    """
    few = _few(rows)
    with evaluating(traced), torch.no_grad():
        wanted = [traced(**inputs) for inputs in few]
    prices: dict[str, dict[Precision, Price]] = {site.name: {} for site in sites}
    for precision in LADDER[LADDER.index(start) : -1]:
        if precision == "bfloat16" and start != "bfloat16":
            continue
        rounded = make(dict.fromkeys(prices, precision)).model
        for site in sites:
            error = output_error(rounded, site, few, wanted)
            prices[site.name][precision] = Price(weight_bytes(site, traced, precision), error)
        if sum(prices[name][precision].error for name in prices) <= most:
            break  # this or a lower precision will do for every layer
    for site in sites:
        prices[site.name]["float32"] = Price(weight_bytes(site, traced, "float32"), 0.0)
    chosen = raise_precision(prices, start, most)
    records = [
        {"what": "sensitivity", "name": name, "chosen": chosen[name]}
        | {str(to): float(f"{price.error:.3g}") for to, price in found.items()}
        for name, found in prices.items()
    ]
    return chosen, records


def by_time(
    traced: TracedModel,
    sites: Sequence[Site],
    chosen: Choice,
    make: Make,
    inputs: Inputs,
    *,
    make_weights_only: Make | None = None,
    force: bool = False,
) -> Mixed:
    """Return the choice that is taken after timing it against others with small layers in floating point.

    Args:
        traced: the float model.
        chosen: precision of each layer by sensitivity.
        make: builds a model of a choice.
        inputs: of the call that is timed.
        make_weights_only: the same, with activations in floating point.
        force: take the best rounded candidate also where the float model is faster.
    """
    candidates: dict[str, Choice] = {ALL: chosen}
    groups = groups_by_work(traced, [site for site in sites if chosen[site.name] != "float32"])
    kept: list[str] = []
    for group in groups[:-1] if make_weights_only is not None else ():
        kept += group
        label = f"{len(kept)} smallest layers in float32"
        candidates[label] = chosen | dict.fromkeys(kept, "float32")
    built = {label: make(choice) for label, choice in candidates.items()}
    if make_weights_only is not None:
        candidates[WEIGHTS_ONLY], built[WEIGHTS_ONLY] = chosen, make_weights_only(chosen)
    models = {FLOAT: traced} | {label: one.model for label, one in built.items()}
    timed = time_candidates(models, inputs)
    taken = pick({label: one for label, one in timed.items() if label in built or not force})
    record = {
        "what": "timing",
        "taken": taken,
        "candidates": [
            {"label": one.label, "milliseconds": one.milliseconds, "engine": one.engine, "bytes": one.bytes}
            for one in timed.values()
        ],
    }
    precision = candidates.get(taken, dict.fromkeys(chosen, "float32"))
    return Mixed(precision, built.get(taken), (record,), _left(chosen, precision, timed, taken))


def pick(timed: Mapping[str, Timed]) -> str:
    """Return the label of the candidate of fewest bytes among those within 5% of the fastest.

    Example:
        >>> a, b = Timed("a", 400, 1.00, "onnxruntime"), Timed("b", 100, 1.02, "onnxruntime")
        >>> pick({"a": a, "b": b}), pick({"a": a, "b": Timed("b", 100, 1.2, "onnxruntime")})
        ('b', 'a')
    """
    best = min(one.milliseconds for one in timed.values())
    fast = [one for one in timed.values() if one.milliseconds <= AS_FAST * best]
    return min(fast, key=lambda one: (one.bytes, one.milliseconds)).label


def groups_by_work(traced: TracedModel, sites: Sequence[Site]) -> list[list[str]]:
    """Return the names of layers in at most four groups of like work, the smallest first."""
    nodes = {node.name: node for node in traced.body.graph.nodes}
    work = {site.name: multiplications(traced, nodes[site.node], site) for site in sites}
    order = sorted(work, key=work.__getitem__)
    groups: list[list[str]] = []
    first = 0.0
    for name in order:
        if groups and work[name] <= first * _ALIKE:
            groups[-1].append(name)
        else:
            groups.append([name])
            first = work[name]
    while len(groups) > _MOST_GROUPS + 1:  # join the two whose work is most alike
        ratios = [log(work[after[0]] / work[before[-1]]) for before, after in pairwise(groups)]
        at = ratios.index(min(ratios))
        groups[at : at + 2] = [groups[at] + groups[at + 1]]
    return groups


def multiplications(traced: TracedModel, node: fx.Node, site: Site) -> float:
    """Return the multiplications of a layer for one row: its weights times the places they are used at."""
    shape = [size for size in node.meta["val"].shape[1:] if isinstance(size, int)]
    outputs = site.tensor(traced).shape[site.out_axis]
    return site.tensor(traced).numel() * max(prod(shape) / outputs, 1.0)


def _left(chosen: Choice, precision: Choice, timed: Mapping[str, Timed], taken: str) -> tuple[Skipped, ...]:
    names = [name for name in chosen if chosen[name] != "float32" and precision[name] == "float32"]
    if not names:
        return ()
    best, all_rounded = timed[taken], timed[ALL]
    numbers = (
        f"a call takes {best.milliseconds:.3g} ms with it in float32 ({best.engine}) and "
        f"{all_rounded.milliseconds:.3g} ms with all layers rounded ({all_rounded.engine})"
    )
    return tuple(Skipped(name, "rounding it does not make the model faster", STEP, numbers) for name in names)


def _few(rows: Sequence[Inputs]) -> list[Inputs]:
    """Return the first rows of calibration inputs, whole batches where they cannot be cut."""
    first = rows[0]
    lengths = {len(value) for value in first.values()}
    return [first] if len(lengths) > 1 else [{name: value[:_ROWS] for name, value in first.items()}]

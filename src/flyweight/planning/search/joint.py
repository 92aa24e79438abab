"""Tables and layers planned together: one choice for each table, band and layer under one budget.

The shifts of all options add (`tables/damage.py`), so the loss is one quadratic form and the plan one multiple-choice
knapsack. What it may cost has two sides, bytes and milliseconds; a millisecond is priced in bytes so that a percent of
the one is worth a percent of the other at the plan itself, which is where their product is least.
"""

from dataclasses import dataclass

import numpy as np

from flyweight.planning.search.layer_menu import LayerItem, LayerOption, layer_menu
from flyweight.planning.search.layer_shifts import LayerShifts
from flyweight.planning.search.workbench import Workbench
from flyweight.tables.allocation import Damage, Menu, allocate
from flyweight.tables.damage import Anchor, Item, expand
from flyweight.tables.recalibration import Recalibration
from flyweight.task.progress import stage

#: Rounds of pricing a millisecond anew, and of halving the budget until the predicted damage is the one allowed.
PRICINGS, HALVINGS = 3, 18


@dataclass(frozen=True, eq=False)
class Joint:
    """A plan for all parts.

    Args:
        tables: option number of each band; None where there are no tables.
        layers: what each layer becomes, by name.
        predicted: rise of the mean loss.
        bytes: of tables and layers; macs, milliseconds: of the layers.
    """

    tables: tuple[int, ...] | None
    layers: dict[str, LayerOption]
    predicted: float
    bytes: float
    macs: int
    milliseconds: float


@dataclass(frozen=True, eq=False)
class Parts:
    """Everything that is chosen from, with the damage of all of it.

    Args:
        bands: of the tables; layers: with their options.
        damage: of the options of the bands, then of the layers.
        bytes, milliseconds, macs: of each option.
    """

    bands: tuple[Item, ...]
    layers: tuple[LayerItem, ...]
    damage: Damage
    starts: "np.ndarray[tuple[int], np.dtype[np.int64]]"
    bytes: "np.ndarray[tuple[int], np.dtype[np.float64]]"
    milliseconds: "np.ndarray[tuple[int], np.dtype[np.float64]]"

    def predicted(self, tables: tuple[int, ...]) -> float:
        """Return the predicted damage of coding the tables so, layers left whole."""
        choice = np.array([*tables, *(0 for _ in self.layers)])
        return self.damage.of(self.starts[:-1] + choice)


def find_parts(bench: Workbench, ratio: float) -> Parts:
    """Work out what every option of every part does, alone and with every other.

    Args:
        ratio: of a tried coding of the tables that the model is expanded around beside the original; 1 for none.
    """
    task = bench.task
    trial = bench.coder.tried(ratio) if ratio > 1 else None
    model = task.model if trial is None else trial.model
    with stage("Predicting what each change of each layer does", seconds=10.0):
        layers = layer_menu(task, model, bench.request)
        beside = LayerShifts(task, model.eval(), layers)
        if bench.coder.tables:
            search = bench.coder.search_of(ratio)
            anchors = [Anchor(task.model, search.bench.fit(search.bench.before.outputs))]
            anchors += [] if trial is None else [Anchor(trial.model, trial.calibration, trial.choice)]
            bands = search.bench.items
            damage = expand(task, search.bench.tables, bands, tuple(anchors), beside)[-1][0]
            bytes_ = list(search.menu.bytes)
            starts = list(search.menu.starts)
        else:
            bands = ()
            nothing = Recalibration(probability=task.output == "probability")
            damage = expand(task, (), (), (Anchor(task.model, nothing),), beside)[0][0]
            bytes_, starts = [], [0]
    milliseconds = [0.0] * len(bytes_)
    for layer in layers:
        bytes_ += [float(option.bytes) for option in layer.options]
        milliseconds += [option.milliseconds for option in layer.options]
        starts.append(starts[-1] + len(layer.options))
    return Parts(bands, layers, damage, np.array(starts), np.array(bytes_), np.array(milliseconds))


def sensitivities(parts: Parts) -> list[dict[str, object]]:
    """Return each part's options with bytes, milliseconds and predicted damage of each alone, as plain values."""
    alone = parts.damage.linear + 0.5 * np.diag(parts.damage.curvature)
    names = [
        (f"{band.table}[{band.start}:{band.stop}]", [str(one.coding) for one in band.options]) for band in parts.bands
    ]
    names += [(layer.name, [option.words for option in layer.options]) for layer in parts.layers]
    return [
        {
            "part": name,
            "options": [
                {
                    "words": words,
                    "bytes": int(parts.bytes[first + place]),
                    "milliseconds": round(float(parts.milliseconds[first + place]), 5),
                    "damage": float(f"{alone[first + place]:.4g}"),
                }
                for place, words in enumerate(options)
            ],
        }
        for (name, options), first in zip(names, parts.starts[:-1], strict=True)
    ]


def plan(parts: Parts, allowed: float, start: tuple[int, ...] | None = None) -> Joint:
    """Return the plan of least bytes times milliseconds whose predicted damage is at most `allowed`.

    Args:
        start: option number of each band that the descent starts from, and what is kept where nothing else is allowed;
            None starts from the largest.
    """
    bands = [len(band.options) - 1 for band in parts.bands] if start is None else [*start]
    whole = np.array(bands + [0 for _ in parts.layers], dtype=np.int64)
    picks = parts.starts[:-1] + whole
    price = parts.bytes[picks].sum() / max(parts.milliseconds[picks].sum(), 1e-9)
    for _ in range(PRICINGS):
        menu = Menu(parts.starts, parts.bytes + price * parts.milliseconds)
        low, high = menu.size(menu.extreme(largest=False)), menu.size(whole)
        best = whole
        for _ in range(HALVINGS):
            budget = float(np.sqrt(low * high)) if low > 0 else high / 2
            choice = allocate(menu, parts.damage, budget, whole)
            if parts.damage.of(menu.picks(choice)) <= allowed:
                best, high = choice, budget
            else:
                low = budget
        picks = parts.starts[:-1] + best
        price = parts.bytes[picks].sum() / max(parts.milliseconds[picks].sum(), 1e-9)
    chosen = best[len(parts.bands) :]
    layers = {item.name: item.options[option] for item, option in zip(parts.layers, chosen, strict=True)}
    return Joint(
        tables=tuple(int(one) for one in best[: len(parts.bands)]) if parts.bands else None,
        layers=layers,
        predicted=parts.damage.of(picks),
        bytes=float(parts.bytes[picks].sum()),
        macs=sum(option.macs for option in layers.values()),
        milliseconds=float(parts.milliseconds[picks].sum()),
    )

"""What the page shows of a search: the front in two pictures and a table, and how the search went."""

import math
from functools import partial
from typing import Any

from flyweight.report.data import ReportData
from flyweight.report.front import front_of
from flyweight.report.picture import FULL, Picture, drawings
from flyweight.report.pictures.frontier import BYTES, LATENCY, Axis, Told, draw_frontier, placed
from flyweight.report.pictures.timeline import ENDINGS, draw_timeline, ending_of
from flyweight.report.search_data import SearchTold, TriedRecipe
from flyweight.report.search_words import reasons_in_words, tried_in_words
from flyweight.report.words import (
    bytes_in_words,
    divided,
    metric_in_words,
    milliseconds_in_words,
    ratio_in_words,
    signed,
)

_TITLES = {BYTES.key: "Size against {}: every recipe tried", LATENCY.key: "Time against {}: the same recipes"}
#: The colours of a timeline in words, by how a trial ended.
_ENDED = {
    "inside": ("after", "inside the budget"),
    "outside": ("limit", "outside"),
    "cut": ("before", "cut"),
    "failed": ("ink", "failed"),
}


def search_pictures(data: ReportData) -> list[Picture]:
    """Return the pictures of a search; none where the steps were given."""
    if data.search is None:
        return []
    return [*(_front(data, data.search, axis) for axis in shown_axes(data)), *_timeline(data, data.search)]


def shown_axes(data: ReportData) -> list[Axis]:
    """Return what the drop can be held against: what at least one trial was measured in."""
    if data.search is None:
        return []
    return [axis for axis in (BYTES, LATENCY) if placed(data.search.trials, axis)]


def front_rows(data: ReportData) -> list[dict[str, Any]]:
    """Return the front as lines of a table, with the place of each by size, time and drop."""
    if data.search is None:
        return []
    front = front_of(data.search)
    places = {
        key: {trial.number: place for place, trial in enumerate(sorted(front, key=partial(_value, key=key)))}
        for key in ("bytes", "time", "drop")
    }
    return [
        {
            **_row(trial, data.before.bytes),
            "order": "; ".join(f"--{key}: {place[trial.number]}" for key, place in places.items()),
        }
        for trial in front
    ]


def search_facts(search: SearchTold) -> tuple[str, ...]:
    """Return how many trials ended how, and why those that were not measured were not."""
    return (tried_in_words(search), *reasons_in_words(search.trials))


def _front(data: ReportData, search: SearchTold, axis: Axis) -> Picture:
    metric = metric_in_words(data.metric)
    proof = data.drop if data.after.split == "test" else None
    drawn = drawings(
        partial(draw_frontier, search, axis, Told(data.metric, data.before.bytes, data.margin, proof)), FULL
    )
    legend = [("front", "on the front"), ("tried", "tried")]
    legend += [("peer", "other ways to serve the original")] if search.peers else []
    return Picture(
        f"front-{axis.key}", _TITLES[axis.key].format(metric), _front_words(search, axis, proof is not None), *drawn,
        legend=tuple(legend), crowded=True,
    )  # fmt: skip


def _front_words(search: SearchTold, axis: Axis, proven: bool) -> str:
    shown = placed(search.trials, axis)
    if axis is not BYTES:
        return "Filled dots are those of the front again; the steps join the best of this picture."
    confidence = shown[0][2].drop.confidence if shown[0][2].drop else 0.95
    words = "Down and to the left is better, on a logarithmic scale. No recipe is smaller, faster and better at once "
    words += "than one on the front; the steps join the best of this picture. Bars are "
    words += f"{confidence:.0%} intervals on validation rows."
    if proven:
        words += " The certificate is that of the chosen model, exported, on test rows that no choice had seen."
    hidden = len(search.trials) - len(shown)
    if hidden:
        words += f" {hidden:,} of {len(search.trials):,} trials ended before a drop was measured and are not shown."
    return words


def _timeline(data: ReportData, search: SearchTold) -> list[Picture]:
    if not search.trials:
        return []
    endings = {ending_of(trial) for trial in search.trials}
    legend = tuple(_ENDED[ending] for ending in ENDINGS if ending in endings)
    words = "A bar is a trial, from its begin to its end."
    words += " The mark points at the chosen one." if any(trial.chosen for trial in search.trials) else ""
    drawn = drawings(partial(draw_timeline, search, data.before.bytes, data.metric), FULL)
    return [Picture("timeline", "How the search went", words, *drawn, legend=legend)]


def _value(trial: TriedRecipe, key: str) -> tuple[float, int]:
    """Return what trials are ordered by; what was not measured comes last."""
    drop = None if trial.drop is None else trial.drop.value
    value = {"bytes": trial.bytes, "time": trial.latency_ms, "drop": drop}[key]
    return (math.inf if value is None else float(value)), trial.number


def _row(trial: TriedRecipe, before: int) -> dict[str, Any]:
    drop = trial.drop
    return {
        "number": trial.number,
        "words": trial.words,
        "chosen": trial.chosen,
        "inside": trial.inside,
        "bytes": "" if trial.bytes is None else bytes_in_words(trial.bytes),
        "smaller": "" if trial.bytes is None else f"{divided(before, trial.bytes)} smaller",
        "time": "" if trial.latency_ms is None else milliseconds_in_words(trial.latency_ms),
        "faster": "" if trial.speedup is None else f"{ratio_in_words(trial.speedup)} faster",
        "drop": "" if drop is None else signed(drop.value),
        "interval": "" if drop is None else f"[{signed(drop.low)}, {signed(drop.high)}]",
    }

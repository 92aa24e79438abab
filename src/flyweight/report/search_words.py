"""A search in words: what a trial gave, how many ended how and why."""

import re
from collections import defaultdict
from collections.abc import Sequence

from flyweight.report.search_data import PeerPoint, SearchTold, State, TriedRecipe
from flyweight.report.words import (
    bytes_in_words,
    divided,
    metric_in_words,
    milliseconds_in_words,
    ratio_in_words,
    seconds_in_words,
    signed,
)
from flyweight.task.estimate import Estimate

#: Reasons that are told one by one; the rest are counted.
MOST_REASONS = 8
#: Letters of a reason that are shown.
LONGEST = 160


def interval_in_words(drop: Estimate) -> str:
    """Return a drop with its interval.

    Example:
        >>> interval_in_words(Estimate(0.0002, -0.0001, 0.0005, n=78_008))
        '+0.0002 [-0.0001, +0.0005]'
    """
    return f"{signed(drop.value)} [{signed(drop.low)}, {signed(drop.high)}]"


def size_in_words(one: TriedRecipe | PeerPoint, before: int) -> str:
    """Return bytes on disk, and how many times smaller than `before`; "" where they were not measured."""
    return "" if one.bytes is None else f"{bytes_in_words(one.bytes)}, {divided(before, one.bytes)} smaller"


def time_in_words(trial: TriedRecipe) -> str:
    """Return the time of a request, and how many times faster than the original; "" where it was not timed."""
    if trial.latency_ms is None:
        return ""
    faster = "" if trial.speedup is None else f", {ratio_in_words(trial.speedup)} faster"
    return milliseconds_in_words(trial.latency_ms) + faster


def tip_of(trial: TriedRecipe, before: int, metric: str) -> str:
    """Return all of a trial in a few short lines, for where the pointer rests on it."""
    lines = [f"{trial.number}: {trial.words}", size_in_words(trial, before), time_in_words(trial)]
    if trial.drop is not None:
        lines.append(f"{metric_in_words(metric)} drop {interval_in_words(trial.drop)}")
    ended = f"{'inside' if trial.inside else 'outside'} the budget" if trial.state == "done" else trial.state
    lines.append(f"{ended}: {_cut(trial.reason)}" if trial.reason else ended)
    return "\n".join(line for line in lines if line)


def tried_in_words(search: SearchTold) -> str:
    """Return how many recipes were tried, in what time, and how they ended.

    Example: "48 recipes tried in 9 min 52 s: 31 measured, of which 19 inside the budget; 14 cut; 3 failed."
    """
    count = len(search.trials)
    by_state: dict[State, int] = defaultdict(int)
    for trial in search.trials:
        by_state[trial.state] += 1
    inside = sum(trial.inside for trial in search.trials)
    parts = [f"{by_state['done']:,} measured, of which {inside:,} inside the budget"]
    parts += [f"{by_state[state]:,} {state}" for state in ("cut", "failed") if by_state[state]]
    tried = "1 recipe" if count == 1 else f"{count:,} recipes"
    return f"{tried} tried in {seconds_in_words(search.seconds)}: {'; '.join(parts)}."


def reasons_in_words(trials: Sequence[TriedRecipe]) -> tuple[str, ...]:
    """Return why trials were cut or failed, each reason with its count, the most frequent first.

    Reasons that differ in their numbers alone are counted together, and the first of them is told.

    Example: "3 cut: no smaller and no quicker than trial 4".
    """
    kinds: dict[tuple[str, str], list[str]] = defaultdict(list)
    for trial in trials:
        if trial.state != "done":
            kinds[trial.state, re.sub(r"[\d.,]+", "#", trial.reason)].append(trial.reason)
    ordered = sorted(kinds.items(), key=lambda kind: -len(kind[1]))
    told = [_reason(state, reasons) for (state, _), reasons in ordered[:MOST_REASONS]]
    rest = ordered[MOST_REASONS:]
    if rest:
        told.append(f"{sum(len(reasons) for _, reasons in rest):,} for {len(rest):,} other reasons")
    return tuple(told)


def _reason(state: str, reasons: list[str]) -> str:
    if not reasons[0]:
        return f"{len(reasons):,} {state}"
    alike = "" if len(set(reasons)) == 1 else ", and alike"
    return f"{len(reasons):,} {state}: {_cut(reasons[0])}{alike}"


def _cut(reason: str) -> str:
    line = " ".join(reason.split())
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 3]}..."

"""What would help where a budget was missed: rows, another limit, a point that was tried, more minutes."""

import math
from collections.abc import Mapping

from flyweight.errors import InputError
from flyweight.planning.budget import Budget
from flyweight.planning.search.outcome import Outcome, excess
from flyweight.planning.search.search import Found
from flyweight.quality.intervals import non_inferior
from flyweight.quality.rows_needed import rows_needed_in_words
from flyweight.task.estimate import Estimate


def rows_that_help(losses: Mapping[str, Estimate], margin: float | None) -> list[str]:
    """Return, for each drop that was not certified, how many test rows would have certified it, in words.

    Args:
        losses: paired drops on the test split that the margin holds for, by metric.
    """
    if margin is None:
        return []
    found = []
    for name, drop in losses.items():
        if non_inferior(drop, margin):
            continue
        try:
            found.append(f"to certify {name}, {rows_needed_in_words(drop, margin)}")
        except InputError as error:
            found.append(f"to certify {name}: {error}".rstrip("."))
    return found


def points_that_help(found: Found, budget: Budget, before: int, test_size: float) -> list[str]:
    """Return what giving way in one limit would buy, by the trials that were made, in words.

    Args:
        before: bytes of the original's float32 export.
        test_size: rows (groups, where there are any) of the test split for each one of validation.
    """
    nearest: dict[str, tuple[float, Outcome]] = {}
    for one in found.outcomes:
        over = {name: value for name, value in excess(one, budget, before, test_size).items() if value > 0}
        if len(over) != 1 or one.state != "done":
            continue
        name, value = next(iter(over.items()))
        if name not in nearest or value < nearest[name][0]:
            nearest[name] = value, one
    return [_in_words(name, one, test_size) for name, (_, one) in nearest.items()]


def _in_words(name: str, one: Outcome, test_size: float) -> str:
    measured = one.measured
    assert measured is not None
    gives = {
        "drop": f"max_drop={_rounded(one.bad_end(test_size), 2, up=True)}",
        "bytes": f"max_bytes={measured.bytes:,}",
        "size ratio": f"{measured.bytes:,} bytes",
        "latency": f"max_latency_ms={_rounded(measured.latency_ms, 3, up=True)}",
        "speed-up": f"min_speedup={_rounded(measured.speedup, 3, up=False)}",
    }
    return f"trial {one.number} ({one.candidate}) would do with {gives[name]}"


def _rounded(value: float, digits: int, *, up: bool) -> str:
    """Return a positive number in so many digits, rounded so that as a limit it still holds for the number itself."""
    step = 10.0 ** (math.floor(math.log10(value)) - digits + 1)
    return f"{(math.ceil if up else math.floor)(value / step) * step:.{digits}g}"

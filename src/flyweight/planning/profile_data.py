"""A profile as what JSON can hold: everything that was seen, with what follows from it."""

from dataclasses import asdict
from typing import Any

from flyweight.engines.operator_times import OperatorTimes
from flyweight.planning.profile import Profile


def as_data(found: Profile) -> dict[str, Any]:
    """Return a profile as plain values; times in milliseconds, sizes in bytes, work in multiply-accumulates.

    Example:
        >>> as_data(fw.profile(task))["roofline"]["binds"]  # doctest: +SKIP
        'compute'
    """
    data = asdict(found)
    if found.roofline is not None:
        limit = found.roofline
        names = ("floor_ms", "binds", "fraction", "intensity", "words")
        data["roofline"] |= {name: getattr(limit, name) for name in names}
    if found.repeated is not None:
        data["repeated"]["saved"] = found.repeated.saved
    for name, times in found.operators.items():
        data["operators"][name] |= _sums(times)
    return data


def _sums(times: OperatorTimes) -> dict[str, Any]:
    kinds = {kind: {"count": count, "ms": ms} for kind, (count, ms) in times.by_kind().items()}
    return {
        "ms": times.ms,
        "by_kind": kinds,
        "by_purpose": times.by_purpose(),
        "by_module": times.by_module(),
    }

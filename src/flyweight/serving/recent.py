"""The last minutes of a version or a model, put together from moments."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flyweight.serving.gathering import added
from flyweight.serving.latency_sketch import quantile_of
from flyweight.serving.series import MOMENT_SECONDS, MOMENTS


@dataclass
class Recent:
    """Sums over moments.

    Args:
        latency: times by bucket, see `latency_sketch`.
        bins: scores by bin of the reference; [] where there is none.
    """

    requests: int = 0
    errors: int = 0
    candidates: int = 0
    latency: dict[int, int] = field(default_factory=dict)
    bins: list[int] = field(default_factory=list)
    score_sum: float = 0.0


def recent_of(moments: Mapping[str, Mapping[str, Any]], most: int | None = None) -> Recent:
    """Return the sum of the newest `most` moments, by the clock; of all where it is None."""
    since = None if most is None else current_moment() - most
    return sum_moments(one for number, one in moments.items() if since is None or int(number) > since)


def sum_moments(moments: Iterable[Mapping[str, Any]]) -> Recent:
    """Return the sum of moments."""
    total = Recent()
    latency = total.latency
    for one in moments:
        total.requests += one["requests"]
        total.errors += one["errors"]
        total.candidates += one["candidates"]
        total.score_sum += one["score_sum"]
        for bucket, count in one["latency"].items():
            latency[int(bucket)] = latency.get(int(bucket), 0) + count
        if any(one["bins"]):  # those of another bundle under this version's name have another length
            total.bins = added(total.bins, one["bins"]) if total.bins else one["bins"]
    return total


def history_of(versions: Iterable[Mapping[str, Mapping[str, Any]]]) -> list[dict[str, float | None]]:
    """Return a model's five minutes, oldest first: for each moment that is over, rates a second and times in ms.

    Args:
        versions: the moments of each of its versions.
    """
    listed, now = list(versions), current_moment()
    points = []
    for number in range(now - MOMENTS + 1, now):
        one = sum_moments(moments[str(number)] for moments in listed if str(number) in moments)
        times = {
            f"p{share}": round(quantile_of(one.latency, share / 100) * 1e3, 4) if one.latency else None
            for share in (50, 95, 99)
        }
        rates = {"requests": one.requests, "errors": one.errors, "candidates": one.candidates}
        ago = (number + 1 - now) * MOMENT_SECONDS
        points.append({"ago": ago, **{name: count / MOMENT_SECONDS for name, count in rates.items()}, **times})
    return points


def current_moment() -> int:
    """Return the number of the moment that is now; alike in all processes of a machine."""
    return int(time.perf_counter() / MOMENT_SECONDS)

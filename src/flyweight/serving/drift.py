"""What a shadow has shown so far, in memory that does not grow: sums, extremes and counts by size.

Workers' summaries add up exactly, as each holds counts of the same bins.
"""

import bisect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flyweight.serving.agreement_of_scores import Difference

#: Upper ends of the bins: differences from 1e-9 on, ten bins a decade; shares and correlations in steps of 0.01.
SIZES = tuple(10.0 ** (step / 10) for step in range(-90, 61))
SHARES = tuple(step / 100 for step in range(-100, 101))


@dataclass
class Summary:
    """A stream of numbers.

    Args:
        ends: upper ends of the bins; what is above the last counts in one more.
    """

    ends: Sequence[float]
    count: int = 0
    total: float = 0.0
    least: float = math.inf
    most: float = -math.inf
    bins: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.bins = self.bins or [0] * (len(self.ends) + 1)

    def add(self, value: float) -> None:
        """Count a number."""
        self.count += 1
        self.total += value
        self.least, self.most = min(self.least, value), max(self.most, value)
        self.bins[bisect.bisect_left(self.ends, value)] += 1

    def quantile(self, share: float) -> float:
        """Return the upper end of the bin that holds this share, and nothing beyond what was seen."""
        seen = 0
        for end, count in zip((*self.ends, math.inf), self.bins, strict=True):
            seen += count
            if seen >= share * self.count:
                return max(self.least, min(end, self.most))
        return self.most

    def describe(self) -> dict[str, Any]:
        """Return count, mean, extremes and quantiles; only the count where nothing was seen."""
        if not self.count:
            return {"count": 0}
        quantiles = {f"p{round(share * 100):02d}": self.quantile(share) for share in (0.05, 0.5, 0.95, 0.99)}
        mean = self.total / self.count
        return {"count": self.count, "mean": mean, "min": self.least, "max": self.most} | quantiles


@dataclass
class Drift:
    """How far a shadow was from what answered.

    Args:
        compared: calls scored by both.
        shed: calls that were to be compared and were not, as there was no time for them.
        failed: calls that the shadow could not score, with the last reason in `failure`.
        shift_total: sum of the compared calls' mean signed differences.
        mean, largest: each call's mean and largest absolute difference.
        tau, overlap: each request's Kendall's tau-b and share of the best candidates in common.
    """

    compared: int = 0
    shed: int = 0
    failed: int = 0
    failure: str = ""
    shift_total: float = 0.0
    mean: Summary = field(default_factory=lambda: Summary(SIZES))
    largest: Summary = field(default_factory=lambda: Summary(SIZES))
    tau: Summary = field(default_factory=lambda: Summary(SHARES))
    overlap: Summary = field(default_factory=lambda: Summary(SHARES))

    def add(self, difference: Difference) -> None:
        """Count a call that both scored."""
        self.compared += 1
        self.shift_total += difference.shift
        self.mean.add(difference.mean)
        self.largest.add(difference.largest)
        for tau in difference.taus:
            self.tau.add(tau)
        for overlap in difference.overlaps:
            self.overlap.add(overlap)

    def fail(self, reason: str) -> None:
        """Count a call that the shadow could not score."""
        self.failed += 1
        self.failure = reason[:400]

    def describe(self) -> dict[str, Any]:
        """Return it as the admin route tells it."""
        return {
            "compared": self.compared,
            "shed": self.shed,
            "failed": self.failed,
            "last_failure": self.failure,
            "mean_difference": self.shift_total / self.compared if self.compared else None,
            "mean_abs_difference": self.mean.describe(),
            "max_abs_difference": self.largest.describe(),
            "kendall_tau": self.tau.describe(),
            "top_overlap": self.overlap.describe(),
        }

    def to_json(self) -> dict[str, Any]:
        """Return it for another process, which adds it to others by `sum_drifts`."""
        numbers = {name: getattr(self, name) for name in ("compared", "shed", "failed", "failure", "shift_total")}
        return numbers | {name: _summary_to_json(getattr(self, name)) for name in SUMMARIES}


#: Fields of a drift that are summaries, with their bins.
SUMMARIES = {"mean": SIZES, "largest": SIZES, "tau": SHARES, "overlap": SHARES}


def sum_drifts(told: Sequence[Mapping[str, Any]]) -> Drift:
    """Return what several processes' `Drift.to_json` come to together."""
    drift = Drift()
    for one in told:
        drift.compared += one["compared"]
        drift.shed += one["shed"]
        drift.failed += one["failed"]
        drift.failure = one["failure"] or drift.failure
        drift.shift_total += one["shift_total"]
        for name in SUMMARIES:
            _add_summary(getattr(drift, name), one[name])
    return drift


def _summary_to_json(summary: Summary) -> dict[str, Any]:
    extremes = [summary.least, summary.most] if summary.count else []  # JSON has no infinity
    return {"count": summary.count, "total": summary.total, "extremes": extremes, "bins": summary.bins}


def _add_summary(summary: Summary, told: Mapping[str, Any]) -> None:
    if not told["count"]:
        return
    summary.count += told["count"]
    summary.total += told["total"]
    summary.least, summary.most = min(summary.least, told["extremes"][0]), max(summary.most, told["extremes"][1])
    summary.bins = [mine + theirs for mine, theirs in zip(summary.bins, told["bins"], strict=True)]

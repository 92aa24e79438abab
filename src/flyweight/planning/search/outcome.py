"""What a trial gave, which outcomes nothing beats, and which of them a budget asks for."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, Literal

from flyweight.planning.budget import Budget
from flyweight.planning.search.candidate import Candidate
from flyweight.tables.trial import ASSURANCE, likely_bad_end
from flyweight.task.estimate import Estimate

State = Literal["done", "cut", "failed"]
#: Where no trial is surely inside, those are looked at that are as likely inside as not.
EVEN = 0.5


@dataclass(frozen=True)
class Measured:
    """What was read off an exported model.

    Args:
        bytes, table_bytes: on disk, and those of embedding tables.
        macs: multiply-accumulates of one row.
        latency_ms: median of a request in the quickest engine that is exact.
        speedup: the original's median in eager PyTorch divided by it, both timed in turns.
        engine: that engine.
    """

    bytes: int
    table_bytes: int
    macs: int
    latency_ms: float
    speedup: float
    engine: str

    def beaten_by(self, other: "Measured", slack: float = 1.0) -> bool:
        """Return whether another is no larger and no slower; `slack` above 1 forgives it that much time."""
        return other.bytes <= self.bytes and other.latency_ms <= slack * self.latency_ms


@dataclass(frozen=True)
class Outcome:
    """One trial: what was tried and what came of it.

    Args:
        number: of the trial, in the order they were begun.
        candidate: what was tried.
        state: "done" was measured whole, "cut" was given up early, "failed" threw.
        reason: why, where it is not done.
        measured: None where it did not come so far.
        drops: paired drops on validation that a margin holds for, the task's metric first.
        started, seconds: since the search began, and how long the trial took.
    """

    number: int
    candidate: Candidate
    state: State
    reason: str = ""
    measured: Measured | None = None
    drops: dict[str, Estimate] = field(default_factory=dict)
    started: float = 0.0
    seconds: float = 0.0

    @property
    def drop(self) -> Estimate | None:
        """The drop of the task's metric; None where it was not measured."""
        return next(iter(self.drops.values()), None)

    def bad_end(self, test_size: float, assurance: float = ASSURANCE) -> float:
        """Return what the worst drop's bad end on test data will not exceed, with a probability of `assurance`."""
        return max(likely_bad_end(drop, test_size, assurance) for drop in self.drops.values())

    def plain(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)


def outcome_of(plain: dict[str, Any]) -> Outcome:
    """Return an outcome from its plain values."""
    measured = plain["measured"]
    return Outcome(
        **{
            **plain,
            "candidate": Candidate(**plain["candidate"]),
            "measured": None if measured is None else Measured(**measured),
            "drops": {name: Estimate(**drop) for name, drop in plain["drops"].items()},
        }
    )


def excess(
    outcome: Outcome, budget: Budget, before: int, test_size: float, assurance: float = ASSURANCE
) -> dict[str, float]:
    """Return how far an outcome is outside each limit of a budget, as a share of the limit; at most 0 is inside.

    Args:
        before: bytes of the original's float32 export.
        test_size: rows (groups, where there are any) of the test split for each one of validation.
        assurance: that the drop on test data is inside.
    """
    measured = outcome.measured
    if measured is None or not outcome.drops:
        return {"measured": math.inf}
    over: dict[str, float] = {}
    if budget.max_drop is not None:
        over["drop"] = outcome.bad_end(test_size, assurance) / budget.max_drop - 1
    if budget.max_bytes is not None:
        over["bytes"] = measured.bytes / budget.max_bytes - 1
    if budget.min_size_ratio is not None:
        over["size ratio"] = measured.bytes * budget.min_size_ratio / before - 1
    if budget.max_latency_ms is not None:
        over["latency"] = measured.latency_ms / budget.max_latency_ms - 1
    if budget.min_speedup is not None:
        over["speed-up"] = budget.min_speedup / measured.speedup - 1
    return over


def is_inside(outcome: Outcome, budget: Budget, before: int, test_size: float) -> bool:
    """Return whether an outcome probably meets every limit."""
    return all(over <= 0 for over in excess(outcome, budget, before, test_size).values())


def gain(measured: Measured, before: int, eager_ms: float = math.inf) -> float:
    """Return the logarithm of size ratio times speed-up: what is better where only quality is limited.

    Args:
        before: bytes of the original's float32 export.
        eager_ms: what the original usually takes for a request. Timed in turns with a trial, it is at times disturbed
            alone; the trial then counts as quick as its own time says.
    """
    speedup = min(measured.speedup, eager_ms / max(measured.latency_ms, 1e-9))
    return math.log(before / max(measured.bytes, 1)) + math.log(max(speedup, 1e-9))


def best_of(outcomes: Sequence[Outcome], budget: Budget, before: int, test_size: float) -> Outcome | None:
    """Return the outcome that a budget asks for; None where nothing was measured.

    Of those inside every limit: under `max_drop` the one of the largest gain (size ratio times speed-up), without it
    the one of the least likely drop. Where none is inside with the assurance of the search, the likeliest of those that
    are as likely inside as not; where there is none of those, the nearest: the one whose worst excess is least.
    """
    done = [one for one in outcomes if one.state == "done" and one.measured is not None and one.drops]
    if not done:
        return None
    inside = [one for one in done if is_inside(one, budget, before, test_size)]
    if not inside:
        even = [one for one in done if max(excess(one, budget, before, test_size, EVEN).values()) <= 0]
        if even:
            return min(even, key=lambda one: (one.bad_end(test_size), one.number))
        return min(done, key=lambda one: (max(excess(one, budget, before, test_size).values()), one.number))
    if budget.max_drop is not None:
        eager = median(one.measured.latency_ms * one.measured.speedup for one in done if one.measured is not None)
        return max(inside, key=lambda one: (_gain(one, before, eager), -one.number))
    return min(inside, key=lambda one: (one.bad_end(test_size), one.number))


def frontier(outcomes: Sequence[Outcome]) -> tuple[Outcome, ...]:
    """Return the outcomes that no other beats in bytes, latency and drop at once, the smallest first."""
    done = [one for one in outcomes if one.state == "done" and one.measured is not None and one.drop is not None]
    kept = [one for one in done if not any(_beats(other, one) for other in done if other is not one)]
    return tuple(sorted(kept, key=lambda one: (_axes(one), one.number)))


def _beats(one: Outcome, other: Outcome) -> bool:
    mine, theirs = _axes(one), _axes(other)
    no_worse = all(a <= b for a, b in zip(mine, theirs, strict=True))
    return no_worse and (mine != theirs or one.number < other.number)


def _axes(outcome: Outcome) -> tuple[float, float, float]:
    assert outcome.measured is not None
    assert outcome.drop is not None
    return outcome.measured.bytes, outcome.measured.latency_ms, outcome.drop.value


def _gain(outcome: Outcome, before: int, eager_ms: float) -> float:
    assert outcome.measured is not None
    return gain(outcome.measured, before, eager_ms)

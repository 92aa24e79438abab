"""Outcomes of trials, made up: sizes, times and drops as a test wants them."""

from typing import Any

from flyweight.planning.search.candidate import Candidate
from flyweight.planning.search.outcome import Measured, Outcome
from flyweight.task.estimate import Estimate

ROWS = 10_000


def measured(size: int = 1_000, latency: float = 1.0, speedup: float = 2.0) -> Measured:
    return Measured(size, size // 2, 100, latency, speedup, "onnxruntime")


def estimate(value: float, error: float = 1e-4) -> Estimate:
    """A drop whose interval is 1.96 standard errors wide on each side."""
    return Estimate(value, value - 1.96 * error, value + 1.96 * error, n=ROWS)


def done(
    number: int, size: int = 1_000, latency: float = 1.0, drop: float = 0.0, speedup: float = 2.0, **knobs: Any
) -> Outcome:
    """A trial that was measured."""
    drops = {"auc": estimate(drop)}
    return Outcome(number, Candidate(**knobs), "done", measured=measured(size, latency, speedup), drops=drops)


def failed(number: int, reason: str = "ValueError: no", **knobs: Any) -> Outcome:
    return Outcome(number, Candidate(**knobs), "failed", reason)

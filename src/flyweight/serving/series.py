"""What one worker counts of one version of a model: since it began, and in each of the last five minutes' moments."""

import weakref
from bisect import bisect_left
from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyweight.serving.answering import Answered
from flyweight.serving.latency_sketch import bucket_of
from flyweight.serving.score_reference import MOST, Reference, count_scores, reference_of
from flyweight.serving.served import Served

#: Seconds of a moment, and how many are kept.
MOMENT_SECONDS, MOMENTS = 5, 60
#: Requests of a moment whose scores are all looked at, and of how many one is after those: the index has a floor of
#: noise from the few stored scores, which more served ones do not lower.
LOOKED, EACH = 500, 16
#: Upper ends of the histograms' buckets.
SECONDS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
REQUESTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
CANDIDATES = (1, 10, 50, 100, 200, 500, 700, 1000, 2000, 5000, 10_000)


class Moment:
    """What happened in a few seconds.

    Args:
        number: `time.perf_counter() // MOMENT_SECONDS`; Linux counts it alike for all processes.
        bins: of the scores.
    """

    __slots__ = ("bins", "candidates", "errors", "latency", "number", "requests", "score_sum")

    def __init__(self, number: int, bins: int) -> None:
        self.number = number
        self.requests = self.errors = self.candidates = 0
        self.latency: dict[int, int] = {}
        self.bins: NDArray[np.int64] = np.zeros(bins, dtype=np.int64)
        self.score_sum = 0.0

    def as_json(self) -> dict[str, Any]:
        """Return numbers that can be added to those of other workers."""
        return {
            "requests": self.requests,
            "errors": self.errors,
            "candidates": self.candidates,
            "latency": {str(bucket): count for bucket, count in self.latency.items()},
            "bins": self.bins.tolist(),
            "score_sum": self.score_sum,
        }


class Histogram:
    """Counts in buckets, and the sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


#: The histograms, with their buckets.
HISTOGRAMS: dict[str, tuple[float, ...]] = {
    "seconds": SECONDS,
    "queue": SECONDS,
    "engine": SECONDS,
    "batch": REQUESTS,
    "candidates": CANDIDATES,
}


class Series:
    """The counts of a version.

    Args:
        served: the version; None for requests that reached none.
    """

    def __init__(self, served: Served | None) -> None:
        self.requests: dict[str, int] = {}
        self.errors: dict[str, int] = {}
        self.histograms = {name: Histogram(bounds) for name, bounds in HISTOGRAMS.items()}
        self.moments: deque[Moment] = deque(maxlen=MOMENTS)
        self.unknown: dict[str, int] = {}
        self._unknown_before: dict[str, int] = {}
        self.reference: Reference | None = None
        self.begin(served)

    def begin(self, served: Served | None) -> None:
        """Go on with another bundle of the same name; its scores are compared with its own."""
        # A version that was retired must not stay in memory for having been counted.
        self._served = None if served is None else weakref.ref(served)
        self._unknown_before = {}
        self.reference = None if served is None else reference_of(served.opened.ranker.bundle.samples)
        self._bins = 0 if self.reference is None else len(self.reference.counts)
        for moment in self.moments:
            moment.bins, moment.score_sum = np.zeros(self._bins, dtype=np.int64), 0.0

    @property
    def served(self) -> Served | None:
        """The version that is counted, None once it is gone."""
        return None if self._served is None else self._served()

    def note(self, told: Answered, number: int) -> None:
        """Count a request; on the way of each, so it does little."""
        if told.kind:
            self.refuse(told.protocol, told.kind, number)
            return
        self.requests[told.protocol] = self.requests.get(told.protocol, 0) + 1
        moment = self._moment(number)
        moment.requests += 1
        histograms, seconds = self.histograms, told.seconds
        histograms["seconds"].add(seconds)
        histograms["queue"].add(told.queue_seconds)
        histograms["engine"].add(told.engine_seconds)
        histograms["batch"].add(told.batch)
        histograms["candidates"].add(told.candidates)
        moment.candidates += told.candidates
        bucket = bucket_of(seconds)
        moment.latency[bucket] = moment.latency.get(bucket, 0) + 1
        scores, reference = told.scores, self.reference
        looked = moment.requests <= LOOKED or moment.requests % EACH == 0
        if looked and reference is not None and scores is not None and scores.ndim == 1:
            some = scores if len(scores) <= MOST else scores[:: -(-len(scores) // MOST)]
            moment.bins += count_scores(reference.edges, some)
            moment.score_sum += float(some.sum())

    def refuse(self, protocol: str, kind: str, number: int) -> None:
        """Count a request that was refused."""
        self.requests[protocol] = self.requests.get(protocol, 0) + 1
        self.errors[kind] = self.errors.get(kind, 0) + 1
        moment = self._moment(number)
        moment.requests += 1
        moment.errors += 1

    def _moment(self, number: int) -> Moment:
        moment = self.moments[-1] if self.moments else None
        if moment is None or moment.number != number:
            moment = Moment(number, self._bins)
            self.moments.append(moment)
        return moment

    def lasting(self) -> dict[str, Any]:
        """Return what only grows: it is kept when the worker ends."""
        self._count_unknown()
        return {
            "requests": self.requests,
            "errors": self.errors,
            "unknown": self.unknown,
            "histograms": {name: [*one.counts, one.total] for name, one in self.histograms.items()},
        }

    def recent(self, number: int) -> dict[str, Any]:
        """Return the moments that are not over five minutes old, by their numbers."""
        return {
            str(moment.number): moment.as_json() for moment in self.moments if number - moment.number < MOMENTS
        }

    def _count_unknown(self) -> None:
        served = self.served
        if served is not None:
            now = served.opened.ranker.unknown_ids
            for field, count in now.items():
                self.unknown[field] = self.unknown.get(field, 0) + count - self._unknown_before.get(field, 0)
            self._unknown_before = now

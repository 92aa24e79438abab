"""How long a call takes: a part that is the same for all, and a part for each candidate, learnt from the calls made.

Seconds divided by candidates would do only where calls are alike: after many calls of one candidate, nine thousand
would be thought to take a second and a half, and be refused.
"""

from dataclasses import dataclass, field

#: How much of the newest call goes into the running means.
_NEWEST = 0.1
#: Squared candidates: how much calls must differ in size before they say what a candidate takes, not the first pace.
_RIDGE = 50.0**2


@dataclass
class Pace:
    """Seconds of a call of n candidates: `start + n * each`, by least squares over calls that count the less the older.

    Args:
        each: seconds a candidate, as known before the first call.
        start: seconds of a call whatever is in it.
    """

    each: float = 0.0
    start: float = 0.0
    _first: float = field(default=0.0, init=False)
    _rows: float = field(default=0.0, init=False)
    _seconds: float = field(default=0.0, init=False)
    _variance: float = field(default=0.0, init=False)
    _covariance: float = field(default=0.0, init=False)
    _seen: bool = field(default=False, init=False)

    def note(self, rows: int, seconds: float) -> None:
        """Learn from a call."""
        if not self._seen:
            self._seen, self._first = True, self.each or seconds / max(rows, 1)
            self._rows, self._seconds = float(rows), seconds
        more, longer = rows - self._rows, seconds - self._seconds
        self._rows += _NEWEST * more
        self._seconds += _NEWEST * longer
        self._variance = (1 - _NEWEST) * (self._variance + _NEWEST * more * more)
        self._covariance = (1 - _NEWEST) * (self._covariance + _NEWEST * more * longer)
        each = (self._covariance + _RIDGE * self._first) / (self._variance + _RIDGE)
        self.each = min(max(each, 0.0), self._seconds / max(self._rows, 1.0))
        self.start = self._seconds - self.each * self._rows

    def seconds(self, rows: int, calls: float) -> float:
        """Return how long so many calls of so many candidates in all take."""
        return rows * self.each + calls * self.start

    def rows_in(self, seconds: float) -> float:
        """Return how many candidates take so long, beside the start of their call."""
        return seconds / self.each if self.each else float("inf")

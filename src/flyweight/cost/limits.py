"""What this machine can do at most, measured once and kept: bandwidth, peaks, overhead."""

import hashlib
import json
import math
import os
import tempfile
import warnings
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from flyweight.cost.bandwidth import Level, measure_bandwidth
from flyweight.cost.hardware import describe_hardware
from flyweight.cost.overhead import Overhead, measure_overhead
from flyweight.cost.peak import Peak, measure_peaks
from flyweight.errors import InputError

#: Of the file; what another version wrote is measured again.
VERSION = 1


@dataclass(frozen=True)
class Limits:
    """A machine's limits for a number of threads.

    Args:
        threads: that worked at once.
        levels: caches and memory, the nearest first.
        peaks: by precision.
        overhead: of a call and an operator.
        unknown: precision -> why it could not be measured.
    """

    threads: int
    levels: tuple[Level, ...]
    peaks: tuple[Peak, ...]
    overhead: Overhead
    unknown: dict[str, str]

    def level_of(self, size: int) -> Level:
        """Return the nearest level that holds so many bytes."""
        return next((level for level in self.levels[:-1] if size <= level.holds), self.levels[-1])

    def rate_of(self, size: int) -> float:
        """Return bytes a second of the nearest level that holds so many; never less than a farther one's."""
        place = self.levels.index(self.level_of(size))
        return max(level.rate for level in self.levels[place:])

    def peak(self, precision: str) -> Peak | None:
        """Return the peak of a precision, None where it is unknown."""
        return next((one for one in self.peaks if one.precision == precision), None)


def best_of(first: Limits, second: Limits) -> Limits:
    """Return the higher of two measurements of one machine, figure by figure: what was reached once can be reached.

    A neighbour only ever slows a measurement down, so the best of several is nearer to the limit than any of them.

    Raises:
        InputError: they are of different thread counts or caches.
    """
    if first.threads != second.threads or [a.name for a in first.levels] != [b.name for b in second.levels]:
        raise InputError(
            f"Limits of {first.threads} and {second.threads} threads, or of different caches, have no best of two; "
            "measure both alike."
        )
    levels = tuple(
        replace(a, read=max(a.read, b.read), copy=max(a.copy, b.copy), add=max(a.add, b.add))
        for a, b in zip(first.levels, second.levels, strict=True)
    )
    peaks: dict[str, Peak] = {}
    for one in (*first.peaks, *second.peaks):
        if one.precision not in peaks or one.rate > peaks[one.precision].rate:
            peaks[one.precision] = one
    calls, operators = zip(*((one.overhead.call, one.overhead.operator) for one in (first, second)), strict=True)
    unknown = {name: why for name, why in {**first.unknown, **second.unknown}.items() if name not in peaks}
    return Limits(first.threads, levels, tuple(peaks.values()), Overhead(min(calls), min(operators)), unknown)


def machine_limits(threads: int = 1, again: bool = False) -> Limits:
    """Return this machine's limits: from the cache folder, or measured in about three seconds and kept there.

    Processor, system and package versions name the file; a damaged one is measured again, and so it is with `again`.
    The folder is `$FLYWEIGHT_CACHE`, or `~/.cache/flyweight`.

    Raises:
        InputError: `threads` is below 1.
        EngineError: `onnxruntime` is not installed.

    Example:
        >>> machine_limits(threads=1).peak("float32")  # doctest: +SKIP
        Peak(precision='float32', rate=105000000000.0, engine='onnxruntime')
    """
    path = limits_folder() / f"{_fingerprint()}-{threads}.json"
    kept = None if again else _read(path)
    if kept is not None and kept.threads == threads:
        return kept
    levels = measure_bandwidth(threads)
    peaks, unknown = measure_peaks(threads)
    limits = Limits(threads, levels, peaks, measure_overhead(), unknown)
    _write(path, limits)
    return limits


def limits_folder() -> Path:
    """Return where limits are kept."""
    chosen = os.environ.get("FLYWEIGHT_CACHE")
    return (Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "flyweight") / "limits"


def as_data(limits: Limits) -> dict[str, Any]:
    """Return limits as what JSON can hold; `from_data` reads it."""
    return {"version": VERSION, **asdict(limits)}


def from_data(data: Any) -> Limits:
    """Return the limits that `as_data` wrote.

    Raises:
        ValueError, TypeError, KeyError: it is not what was written; a number is missing, not positive or not finite.
    """
    if not isinstance(data, dict) or data["version"] != VERSION:
        raise ValueError("not limits of this version")
    levels = tuple(Level(**one) for one in data["levels"])
    peaks = tuple(Peak(**one) for one in data["peaks"])
    overhead = Overhead(**data["overhead"])
    numbers = [rate for level in levels for rate in (level.read, level.copy, level.add)] + [one.rate for one in peaks]
    sound = all(math.isfinite(rate) and rate > 0 for rate in numbers)
    idle = all(math.isfinite(one) and one >= 0 for one in (overhead.call, overhead.operator))
    if not (sound and idle and levels and peaks and all(isinstance(level.holds, int) for level in levels)):
        raise ValueError("limits that no machine has")
    unknown = {str(name): str(why) for name, why in data["unknown"].items()}
    return Limits(int(data["threads"]), levels, peaks, overhead, unknown)


def _fingerprint() -> str:
    """Name the machine and what runs on it; our own version changes no limit."""
    facts = describe_hardware()
    facts["packages"].pop("flyweight", None)
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _read(path: Path) -> Limits | None:
    try:
        return from_data(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):  # absent or damaged: measure again
        return None


def _write(path: Path, limits: Limits) -> None:
    """Write beside the target and rename, so that an interrupt leaves no half file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".part", delete=False) as part:
            json.dump(as_data(limits), part, indent=1)
        os.replace(part.name, path)
    except OSError as error:
        warnings.warn(
            f"{path} could not be written ({error}), so this machine is measured again next time; "
            "free some space or set FLYWEIGHT_CACHE to a folder that can be written.",
            stacklevel=3,
        )

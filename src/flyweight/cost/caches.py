"""The caches of a processor, as Linux describes them: how many bytes each level holds for a number of threads."""

import re
from dataclasses import dataclass
from pathlib import Path

SYSTEM = Path("/sys/devices/system/cpu/cpu0/cache")
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


@dataclass(frozen=True)
class Cache:
    """One level of cache.

    Args:
        name: "L2", "L3".
        bytes: of one cache.
        shared: cores that share one.
    """

    name: str
    bytes: int
    shared: int

    def holds(self, threads: int) -> int:
        """Return the bytes that threads on different cores have together.

        Example: two threads with 1 MB each of their own hold 2 MB; in one cache shared by both, 32 MB stay 32 MB.
        """
        return self.bytes * -(-threads // self.shared)


#: Where nothing says what the caches are: a core of the last ten years has at least these.
TYPICAL = (Cache("L2", 1 << 20, 1), Cache("L3", 32 << 20, 64))


def find_caches(folder: Path = SYSTEM) -> tuple[Cache, ...]:
    """Return the levels from L2 on, the nearest first; `TYPICAL` where the system does not say.

    L1 is left out: a value of 32 KB costs more to call for than to read.
    """
    found = []
    for place in sorted(folder.glob("index*")):
        try:
            level, kind, size, cores = (
                (place / name).read_text().strip() for name in ("level", "type", "size", "shared_cpu_list")
            )
            cache = Cache(f"L{int(level)}", _bytes(size), _cores(cores))
        except (OSError, ValueError):
            continue
        if int(level) > 1 and kind != "Instruction" and cache.bytes > 0:
            found.append(cache)
    return tuple(found) or TYPICAL


def _bytes(size: str) -> int:
    match = re.fullmatch(r"(\d+)([KMG]?)", size)
    if match is None:
        raise ValueError(size)
    return int(match[1]) * _UNITS[match[2]]


def _cores(listed: str) -> int:
    """Count a list such as "0-3,8"."""
    pairs = [part.partition("-") for part in listed.split(",")]
    return sum(int(last or first) - int(first) + 1 for first, _, last in pairs)

"""What so many workers would take: parts handed out one after the other, read from shared disks, coded, sent back.

A simulation by events, of every part: `units` are measured (benchmarks/cluster.py), `Assumed` is not.
"""

import heapq
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True)
class Assumed:
    """What was not measured.

    Args:
        node_cores: cores, and workers, of a node.
        node_bytes: a second that a node can read over its network.
        disk_bytes: a second that the shared file system gives to all together.
        latency: seconds of one small read from it.
        driver_bytes: a second that the driver writes, and reads again to join parts.
        core_hour: price of a core for an hour, its share of memory included, in dollars.
        node_seconds: until a node that was asked for is there.
    """

    node_cores: int = 16
    node_bytes: float = 1.25e9
    disk_bytes: float = 10e9
    latency: float = 1e-3
    driver_bytes: float = 500e6
    core_hour: float = 0.05
    node_seconds: float = 120.0


@dataclass(frozen=True)
class Run:
    """What a run takes.

    Args:
        hours: from the first node asked for to the last byte written.
        coding: of those, hours in which parts are coded.
        busy: share of the workers' time in which they read or code, while parts are coded.
        money: dollars, for all cores and the driver's over all hours.
        codes: bytes that come of it.
    """

    hours: float
    coding: float
    busy: float
    money: float
    codes: float


def simulate(rows: int, workers: int, kind: Json, units: Json, assumed: Assumed) -> Run:
    """Return what coding a table takes.

    Args:
        kind: the unit costs of a part of such rows.
    """
    each = int(kind["rows"])
    parts = -(-rows // each)
    read = each * kind["row_bytes"] / share_of_bytes(workers, assumed)
    work = read + core_seconds(kind)
    handing = units["task_seconds"] + max(units["write_seconds"], kind["code_bytes"] / assumed.driver_bytes)
    free = [0.0] * min(workers, parts)
    driver = end = 0.0
    for _ in range(parts):  # the driver does one thing at a time
        driver = max(driver, heapq.heappop(free)) + handing
        end = driver + work
        heapq.heappush(free, end)
    codes = kind["code_bytes"] * rows / each
    learning = kind["learning_seconds"] + units["sample_rows"] * assumed.latency
    joining = 2 * codes / assumed.driver_bytes
    seconds = assumed.node_seconds + units["start_seconds"] + learning + end + joining
    money = (workers + 1) * seconds / 3600 * assumed.core_hour
    return Run(seconds / 3600, end / 3600, parts * work / (end * min(workers, parts)), money, codes)


def core_seconds(kind: Json) -> float:
    """Return the seconds that a core works for a part: on what it reads, beside waiting for it, and on coding."""
    return float(kind["read_seconds_cached"] + kind["code_seconds"])


def share_of_bytes(workers: int, assumed: Assumed) -> float:
    """Return the bytes a second that each worker can read while all do."""
    return min(assumed.node_bytes / min(workers, assumed.node_cores), assumed.disk_bytes / workers)

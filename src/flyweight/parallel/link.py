"""What a link between two processes carries, measured."""

import time
from pathlib import Path

import torch
import torch.distributed as dist

from flyweight.parallel.balance import Link
from flyweight.parallel.launch import run_ranks

#: Bytes of a large message, and how often each is sent.
LARGE, LARGE_TIMES, SMALL_TIMES = 16 << 20, 12, 200


def measure_link() -> Link:
    """Return bandwidth and latency between two processes of this machine, over gloo and loopback.

    Latency is half of the median time there and back of four bytes; bandwidth what 16 MB take beyond it.
    """
    left = run_ranks(_ping_pong, 2)["times"]
    return Link(LARGE / max(left["large"] - left["small"], 1e-9), left["small"])


def _ping_pong(rank: int, ranks: int, folder: Path) -> None:
    times = {}
    for name, size, count in (("small", 4, SMALL_TIMES), ("large", LARGE, LARGE_TIMES)):
        message, taken = torch.zeros(size, dtype=torch.uint8), []
        for _ in range(count):
            begun = time.perf_counter()
            for sender in (0, 1):
                if rank == sender:
                    dist.send(message, dst=1 - rank)
                else:
                    dist.recv(message, src=1 - rank)
            taken.append((time.perf_counter() - begun) / 2)
        times[name] = sorted(taken)[len(taken) // 2]
    if rank == 0:
        torch.save(times, folder / "times.pt")

"""What a link between two processes of this machine carries, and what of it their units do themselves, measured."""

import time
from functools import partial
from pathlib import Path
from statistics import quantiles

import torch
from torch import Tensor

from flyweight.parallel.balance import Link
from flyweight.parallel.launch import run_ranks
from flyweight.parallel.ring import Ring

#: Bytes of a large message, about what a micro-batch sends, and of a small one.
LARGE, SMALL = 3 << 20, 64
#: How often each is sent, and how often before that counts.
TIMES, WARM_UP = 80, 10


def measure_link() -> Link:
    """Return what the shared memory between two processes of this machine does.

    The sender copies, and computes nothing meanwhile. The receiver reads where it lies: it gives up what reading that
    takes longer than reading its own. Latency is half of the time there and back of a small message. All are lower
    quartiles: what other programs of the machine take is not the link's.
    """
    left = run_ranks(partial(_over_rings, rings=(Ring(), Ring())), 2)
    foreign, own = left["reading"]["foreign"], left["reading"]["own"]
    copying, latency = left["sending"]["copying"], left["sending"]["latency"]
    return Link(LARGE / copying, latency, sender=1.0, receiver=max(0.0, foreign - own) / copying)


def _over_rings(rank: int, ranks: int, folder: Path, *, rings: tuple[Ring, Ring]) -> None:
    """Send large messages one way, small ones back; then small ones both ways."""
    there, back = rings
    large, small, own = torch.zeros(LARGE, dtype=torch.uint8), torch.zeros(SMALL, dtype=torch.uint8), []
    taken: list[float] = []
    scratch = torch.empty_like(large)
    for message in (large, small):
        times = []
        for _ in range(WARM_UP + TIMES):
            message.add_(1)  # what is sent was just made
            begun = time.perf_counter()
            if rank == 0:
                there.put([message])
                times.append(time.perf_counter() - begun)
                _taken(back, small)
                if message is small:
                    times[-1] = (time.perf_counter() - begun) / 2
                continue
            times.append(_taken(there, scratch[: len(message)]))
            begun = time.perf_counter()
            scratch[: len(message)].copy_(message)
            own.append(time.perf_counter() - begun)
            back.put([small])
        taken.append(_undisturbed(times[WARM_UP:]))
    if rank == 0:
        torch.save({"copying": taken[0], "latency": taken[1]}, folder / "sending.pt")
    else:
        torch.save({"foreign": taken[0], "own": _undisturbed(own[WARM_UP : WARM_UP + TIMES])}, folder / "reading.pt")


def _taken(ring: Ring, into: Tensor) -> float:
    """Read the next message, and return the seconds of reading alone."""
    (message,) = ring.take(len(into))
    begun = time.perf_counter()
    into.copy_(message)
    seconds = time.perf_counter() - begun
    ring.give_back()
    return seconds


def _undisturbed(seconds: list[float]) -> float:
    return quantiles(seconds, n=4)[0]

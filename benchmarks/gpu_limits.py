"""What a device can do at most, measured through PyTorch: bandwidth, peaks, the cost of starting a kernel."""

import time
from collections.abc import Callable
from typing import Any

import torch

from flyweight.cost.bandwidth import MEMORY, Level
from flyweight.cost.limits import Limits
from flyweight.cost.overhead import CHAIN, Overhead
from flyweight.cost.peak import Peak

#: Rows of the square matrices, and bytes of each of three arrays that lie in memory.
SIZE, FAR_BYTES = 8192, 1 << 30


def device_limits(device: str, size: int = SIZE, far_bytes: int = FAR_BYTES, repeats: int = 20) -> Limits:
    """Return the limits of a device; of a CUDA device its second cache is a level of its own."""
    levels = [(MEMORY, 0, far_bytes)]
    if device == "cuda":
        cache = int(torch.cuda.get_device_properties(0).L2_cache_size)
        levels.insert(0, ("L2", cache, cache // 8))
    with torch.inference_mode():
        measured = tuple(_level(device, name, holds, used, repeats) for name, holds, used in levels)
        peaks, unknown = _peaks(device, size, repeats)
        return Limits(1, measured, peaks, _overhead(device, repeats), unknown)


def synchronise(device: str) -> None:
    """Wait until a device has done all it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


def _seconds(device: str, call: Callable[[], object], repeats: int) -> float:
    """Seconds of one call among ten that are given at once, the best of `repeats`."""
    call()
    best = float("inf")
    for _ in range(repeats):
        synchronise(device)
        start = time.perf_counter()
        for _ in range(10):
            call()
        synchronise(device)
        best = min(best, (time.perf_counter() - start) / 10)
    return best


def _level(device: str, name: str, holds: int, used: int, repeats: int) -> Level:
    a, b, c = (torch.ones(max(used // 4, 1), device=device) for _ in range(3))
    loops: dict[str, tuple[Callable[[], object], int]] = {
        "read": (b.sum, 1),
        "copy": (lambda: a.copy_(b), 2),
        "add": (lambda: torch.add(b, c, out=a), 3),
    }
    rates = {loop: moved * a.nbytes / _seconds(device, call, repeats) for loop, (call, moved) in loops.items()}
    return Level(name, holds, **rates)


def _peaks(device: str, size: int, repeats: int) -> tuple[tuple[Peak, ...], dict[str, str]]:
    """Products of square matrices; float32 is float32, not TF32, as PyTorch has it unless told otherwise."""
    multiply: dict[str, Any] = {"float32": torch.matmul, "bfloat16": torch.matmul, "int8": torch._int_mm}
    peaks, unknown = [], {}
    for precision, product in multiply.items():
        left = torch.ones(size, size, device=device).to(getattr(torch, precision))
        right = left.t().contiguous().t()  # int8 products on a GPU take their second factor column by column
        try:
            seconds = _seconds(device, lambda p=product, x=left, y=right: p(x, y), repeats)
        except RuntimeError as error:  # a device without that product
            unknown[precision] = str(error).splitlines()[0][:200]
            continue
        peaks.append(Peak(precision, 2.0 * size**3 / seconds, f"torch on {device}"))
    return tuple(peaks), unknown


def _overhead(device: str, repeats: int) -> Overhead:
    """Chains of 1 and 128 operators on one number: on a CUDA device captured as a graph, its cheapest form."""
    times = []
    for length in (1, CHAIN):
        call = _chain(device, length)
        best = float("inf")
        for _ in range(10 * repeats):
            synchronise(device)
            start = time.perf_counter()
            call()
            synchronise(device)
            best = min(best, time.perf_counter() - start)
        times.append(best)
    operator = max((times[1] - times[0]) / (CHAIN - 1), 0.0)
    return Overhead(max(times[0] - operator, 0.0), operator)


def _chain(device: str, length: int) -> Callable[[], object]:
    start = torch.ones(1, device=device)

    def chain(value: torch.Tensor) -> torch.Tensor:
        for _ in range(length):
            value = -value
        return value

    if device != "cuda":
        return lambda: chain(start)
    from flyweight.engines.cuda_graph import Graphed

    graph = Graphed(chain, (start,))
    return lambda: graph((start,))

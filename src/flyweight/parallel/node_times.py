"""What each operator of a graph takes, measured: the graph run node by node, brought to the time of the whole."""

import time
from statistics import median
from typing import Any

import torch
from torch import Tensor, fx

from flyweight.graph.traced import TracedModel
from flyweight.parallel.cuts import operators_of

#: Runs that the median is of, and runs before them that do not count.
REPEATS, WARM_UP = 15, 3


def operator_seconds(traced: TracedModel, inputs: dict[str, Tensor], repeats: int = REPEATS) -> list[float]:
    """Return the seconds that each operator takes of a call, in the order in which they run.

    Node by node, a call takes longer than as a whole. What all take together is brought to the whole's, so that many
    small operators do not weigh more than they do. Seconds are those of the one thread on its core: what other programs
    of the machine take is not the model's.

    Args:
        inputs: of a call: a micro-batch.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as a stage's process has
    try:
        return _measured(traced, inputs, repeats)
    finally:
        torch.set_num_threads(threads)


def _measured(traced: TracedModel, inputs: dict[str, Tensor], repeats: int) -> list[float]:
    body = traced.body
    given = [inputs[name] for name in traced.names]
    clock = _Clock(body)
    wholes: list[float] = []
    with torch.inference_mode():
        for number in range(WARM_UP + repeats):
            begun = time.thread_time()
            body(*given)
            whole = time.thread_time() - begun
            clock.run(*given)
            if number < WARM_UP:
                clock.taken.clear()
            else:
                wholes.append(whole)
    single = [median(clock.taken[node]) for node in operators_of(body)]
    scale = median(wholes) / max(sum(single), 1e-12)
    return [seconds * scale for seconds in single]


class _Clock(fx.Interpreter):
    """Runs a graph node by node and keeps the seconds of each."""

    def __init__(self, body: fx.GraphModule) -> None:
        super().__init__(body)
        self.taken: dict[fx.Node, list[float]] = {}

    def run_node(self, n: fx.Node) -> Any:
        begun = time.thread_time()
        result = super().run_node(n)
        self.taken.setdefault(n, []).append(time.thread_time() - begun)
        return result

"""The learning rate of a recovery: a few are tried for a moment, each from the start, and judged on validation.

What a damaged ranker wants (0.01: its dense layers are small and its tables frozen) wrecks a transformer.
"""

from collections.abc import Callable

from flyweight.distillation.run import Run
from flyweight.distillation.standing import Standing
from flyweight.task.progress import stage

#: Rates that are tried; where a training is too short to try them, and where none came to an end, the middle one.
RATES = (1e-2, 3e-3, 1e-3)
MIDDLE = 3e-3
#: A try's share of the training, its least number of steps, and the share of the training that all may take together.
SHARE, STEPS, MOST = 0.05, 16, 0.5


def choose_rate(make: Callable[[float], Run], *, larger_is_better: bool) -> float:
    """Return the rate whose short training, annealed like a long one, stands best on validation.

    Args:
        make: returns a training at its start, for a learning rate.
        larger_is_better: the direction of the task's metric.
    """
    first = make(MIDDLE)
    batches = max(round(SHARE * first.passes.total), -(-STEPS // first.steps))
    if batches * len(RATES) > MOST * first.passes.total:
        return MIDDLE
    best: tuple[float, Standing] | None = None
    with stage("Trying learning rates", total=len(RATES)) as work:
        for rate in RATES:
            standing = make(rate).try_out(batches)
            if standing is not None and (best is None or standing.above(best[1], larger_is_better=larger_is_better)):
                best = rate, standing
            work.advance()
    return best[0] if best is not None else MIDDLE

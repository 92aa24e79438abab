"""One trial: the recipe applied, cut as soon as it cannot win, measured on its export; what it throws is its reason."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from flyweight.distillation.distill import Distill
from flyweight.errors import FlyweightError
from flyweight.planning.search.candidate import Candidate, steps_of
from flyweight.planning.search.clock import Clock
from flyweight.planning.search.outcome import Measured, Outcome, State
from flyweight.planning.search.workbench import Made, Workbench
from flyweight.task.estimate import Estimate

#: A model that is behind in size and time, by as much as timing noise, cannot win by learning.
SLACK = 1.03
#: A drop of which the good end is more than so many margins is beyond what low ranks and rounding could give back.
FAR = 6.0


class CannotWinError(Exception):
    """The trial cannot win."""


def run_trial(
    bench: Workbench,
    number: int,
    candidate: Candidate,
    *,
    macs: int,
    inside: Sequence[Outcome],
    margin: float | None,
    clock: Clock,
    learning: Callable[[str], str],
) -> Outcome:
    """Try a candidate and return what came of it, whatever happens but an interrupt.

    Args:
        macs: multiply-accumulates of one row of the original.
        inside: the outcomes so far that are inside every limit.
        margin: the drop allowed, None where none is.
        learning: returns the file that a training goes on from, by what was done until it ends.
    """
    started = clock.elapsed
    measured: Measured | None = None
    drops: dict[str, Estimate] = {}
    state: State = "done"
    reason = ""
    try:
        _cut_the_beaten(bench, candidate, macs, inside)
        measured, drops = _measured(bench, candidate, macs, margin, clock, learning)
    except CannotWinError as cut:
        state, reason = "cut", str(cut)
    except FlyweightError as error:
        state, reason = "failed", str(error)
    except Exception as error:  # a trial of a search may not end the search, whatever a step or a library throws
        state, reason = "failed", f"{type(error).__name__}: {error}".rstrip(": ")
        if _short_of_memory(error):
            bench.forget()  # what other trials left may be what it lacked
    taken = clock.elapsed - started
    return Outcome(number, candidate, state, reason[:500], measured, drops, started, taken)


def _measured(
    bench: Workbench,
    candidate: Candidate,
    macs: int,
    margin: float | None,
    clock: Clock,
    learning: Callable[[str], str],
) -> tuple[Measured, dict[str, Estimate]]:
    began = time.monotonic()
    learned = 0.0
    steps = steps_of(candidate, macs)
    for place, step in enumerate(steps):
        if isinstance(step, Distill) and not bench.knows(steps[: place + 1]):
            begin, file = time.monotonic(), Path(learning(repr(steps[: place + 1])))
            begun = file.exists()
            made = bench.make(steps[: place + 1], checkpoint=str(file))
            learned = time.monotonic() - begin
            if not begun:  # the rest of a training says nothing of a whole one
                clock.saw(epoch=learned / candidate.epochs)
            _cut_the_far(bench, made, margin)
        else:
            made = bench.make(steps[: place + 1])
    measured, drops = bench.judge(bench.make(steps))
    taken = time.monotonic() - began
    if candidate.weights and candidate.learns:  # between rounds of pruning, which is one step
        clock.saw(epoch=taken / candidate.epochs)
    else:
        clock.saw(plain=taken - learned)
    return measured, drops


def _short_of_memory(error: Exception) -> bool:
    """Return whether Python, PyTorch or an engine found no memory."""
    words = str(error).lower()
    return isinstance(error, MemoryError) or "allocate memory" in words or "out of memory" in words


def _cut_the_beaten(bench: Workbench, candidate: Candidate, macs: int, inside: Sequence[Outcome]) -> None:
    """Give up before learning what has the shape of a loser: larger and slower than what already holds."""
    if not candidate.learns or candidate.weights or not inside or bench.knows(steps_of(candidate, macs)):
        return
    measured = bench.measure(bench.make(steps_of(candidate.untrained(), macs)))
    for other in inside:
        if other.measured is not None and measured.beaten_by(other.measured, SLACK):
            raise CannotWinError(f"no smaller and no quicker than trial {other.number}, which holds")


def _cut_the_far(bench: Workbench, made: Made, margin: float | None) -> None:
    """Give up after learning what is surely far outside the margin: what follows only takes more away."""
    if margin is None:
        return
    drop = bench.drop_of(made)
    if drop.low > FAR * margin:
        raise CannotWinError(f"still loses {drop.value:.4f} after learning, {drop.value / margin:.0f} margins")

"""Trials made on other machines: the driver proposes, keeps what came of them, and lets nobody else at the database.

A worker gets the task once, and for each trial the candidate, how tables are coded at its ratios, and the trainings
begun before. It sends back the outcome and what it learned, as bytes. So trials need no file system in common. What a
ratio is coded as hangs on what was tried before it; so the driver settles it, in the order in which trials begin, as
one process alone would.
"""

import fcntl
import hashlib
import os
import pickle
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from flyweight.distillation.distill import Distill
from flyweight.errors import FlyweightError
from flyweight.planning.search.candidate import Candidate, steps_of
from flyweight.planning.search.clock import Clock, clock_from
from flyweight.planning.search.outcome import Outcome
from flyweight.planning.search.run_folder import RunFolder
from flyweight.planning.search.run_trial import run_trial
from flyweight.planning.search.space import Space
from flyweight.planning.search.study import MOST_KILLS, Trials
from flyweight.planning.search.workbench import Workbench
from flyweight.tables.coded_teacher import CodedTeacher
from flyweight.tables.encode_tables import EncodeTables
from flyweight.task.runner import Runner, WorkerLostError

if TYPE_CHECKING:
    from flyweight.planning.search.search import Begun, Search

Plain = dict[str, Any]


@dataclass
class Settled:
    """How tables are coded by their ratio, as the driver has settled it."""

    known: dict[float, Plain] = field(default_factory=dict)

    def coding(self, ratio: float) -> Plain | None:
        """Return the plain values kept for a ratio; None where there are none."""
        return self.known.get(ratio)

    def note_coding(self, ratio: float, plain: Plain) -> Plain:
        """Keep plain values for a ratio where none are kept yet; return those that are."""
        return self.known.setdefault(ratio, plain)


@dataclass(frozen=True, eq=False)
class _Sent:
    """What every trial needs, once for each worker."""

    bench: Workbench
    macs: int
    margin: float | None


@dataclass(frozen=True, eq=False)
class _Asked:
    """One trial on its way to a worker: its place, what is tried and what is known so far."""

    number: int
    candidate: Candidate
    inside: tuple[Outcome, ...]
    clock: tuple[float, float, float]
    codings: dict[float, Plain]
    learned: dict[str, bytes]


@dataclass(frozen=True, eq=False)
class _Came:
    """What came of one trial: the outcome, what it took, and what it learned."""

    outcome: Outcome
    pace: tuple[float, float]
    learned: dict[str, bytes]


#: The bench of the search that this process last worked for, by what tells it from others.
_benches: dict[str, tuple[_Sent, Settled]] = {}


def try_elsewhere(search: "Search", runner: Runner, trials: Trials, space: Space, clock: Clock) -> str:
    """Try candidates on the workers of a cluster, one each at a time; return why it ended."""
    sent = _Sent(search.bench.elsewhere(), space.macs, search.budget.max_drop)
    packed = np.frombuffer(runner.packed(sent), dtype=np.uint8)
    work = partial(_tried, hashlib.sha256(packed.data).hexdigest(), packed)
    under_way: dict[int, Begun] = {}
    stopped: list[str] = []

    def asked() -> Iterator[_Asked]:
        while True:
            begun = search.next_trial(trials, space, clock, len(under_way))
            if isinstance(begun, str):
                stopped.append(begun)
                return
            under_way[begun.trial.number] = begun
            yield _ask(search, begun, space.macs, clock)

    with closing(runner.each(work, asked(), most=runner.workers, retries=MOST_KILLS - 1)) as each:
        for one, done in each:
            begun = under_way.pop(one.number)
            came = _outcome(one, done)
            if came.pace != (0.0, 0.0):
                clock.saw(plain=came.pace[0] or None, epoch=came.pace[1] or None)
            search.folder.note_learned(came.learned)
            search.end_trial(trials, begun.trial, came.outcome, clock)
    return stopped[0]


def _ask(search: "Search", begun: "Begun", macs: int, clock: Clock) -> _Asked:
    folder, steps = search.folder, steps_of(begun.candidate, macs)
    for step in steps:
        if isinstance(step, EncodeTables | CodedTeacher):
            with suppress(FlyweightError):  # the worker will say it
                search.bench.make((step,))
    keys = [repr(steps[: place + 1]) for place, step in enumerate(steps) if isinstance(step, Distill)]
    times = (clock.elapsed, clock.limit, clock.reserve)
    codings, learned = folder.codings(), folder.learned(keys)
    return _Asked(begun.trial.number, begun.candidate, begun.inside, times, codings, learned)


def _outcome(one: _Asked, done: "Future[_Came]") -> _Came:
    try:
        return done.result()
    except WorkerLostError:
        reason = f"the process died in it {MOST_KILLS} times (out of memory?)"
        return _Came(Outcome(one.number, one.candidate, "failed", reason), (0.0, 0.0), {})


def _tried(key: str, packed: NDArray[np.uint8], asked: _Asked) -> _Came:
    """Make a trial, on a worker."""
    if key not in _benches:
        _benches.clear()
        sent: _Sent = pickle.loads(packed.data)  # our own driver's
        settled = Settled()
        bench = replace(sent.bench.elsewhere(settled), turn=_alone_on_this_machine)
        _benches[key] = replace(sent, bench=bench), settled
    sent, settled = _benches[key]
    settled.known |= asked.codings
    seconds, limit, reserve = asked.clock
    clock = clock_from({"seconds": seconds}, limit, reserve)
    with tempfile.TemporaryDirectory(prefix="flyweight-trial-") as place:
        folder = RunFolder(Path(place))
        Path(place, "learning").mkdir()
        folder.note_learned(asked.learned)
        outcome = run_trial(
            sent.bench,
            asked.number,
            asked.candidate,
            macs=sent.macs,
            inside=asked.inside,
            margin=sent.margin,
            clock=clock,
            learning=folder.learning,
        )
        learned = {file.name: file.read_bytes() for file in Path(place, "learning").glob("[!.]*.pt")}
    plain, epoch = clock.noted()["pace"]
    return _Came(outcome, (plain, epoch), learned)


@contextmanager
def _alone_on_this_machine() -> Iterator[None]:
    """Let one worker of a machine at a time look at the clock, whichever search it works for."""
    lock = os.open(Path(tempfile.gettempdir(), f"flyweight-timing-{os.getuid()}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)

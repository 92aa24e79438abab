"""A function run on many values by processes of this machine; one that is killed is replaced."""

import os
import pickle
import sys
import tempfile
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any, TypeVar

from flyweight.task.runner import RETRIES, Done, WorkerLostError, pickled

G = TypeVar("G")
R = TypeVar("R")
#: What a process was sent once, for all the values it will be given.
_held: list[Callable[[Any], Any]] = []


@dataclass(frozen=True)
class Processes:
    """Processes of this machine, each with one thread.

    Args:
        workers: how many.
    """

    workers: int
    local: bool = True

    def packed(self, value: Any) -> bytes:
        """Return a value as bytes."""
        return pickled(value)

    def each(
        self, work: Callable[[G], R], given: Iterable[G], *, most: int | None = None, retries: int = RETRIES
    ) -> Generator[Done[G, R], None, None]:
        """Yield each value with what came of it, as they come.

        Raises:
            InputError: the function cannot be sent to another process; says why.
        """
        with tempfile.TemporaryDirectory(prefix="flyweight-processes-") as folder:
            path = Path(folder, "work.pickle")
            # By a file: tensors among the arguments move to shared memory, away from arrays that look at them.
            path.write_bytes(self.packed(work))
            values, again = iter(given), list[tuple[G, int]]()
            while True:
                try:
                    yield from self._pooled(path, values, again, most or 2 * self.workers)
                    return
                except BrokenProcessPool:  # one was killed: what was under way is given to new processes
                    lost = [one for one, deaths in again if deaths > retries]
                    again[:] = [(one, deaths) for one, deaths in again if deaths <= retries]
                    for one in lost:
                        yield one, _lost(retries + 1)

    def _pooled(
        self, path: Path, values: Iterator[G], again: list[tuple[G, int]], most: int
    ) -> Generator[Done[G, R], None, None]:
        """Work on values until there are none, or a process dies; then `again` holds those that were under way."""
        with ProcessPoolExecutor(
            self.workers, mp_context=get_context("spawn"), initializer=_begin, initargs=(path,)
        ) as pool:
            jobs: dict[Future[R], tuple[G, int]] = {}
            try:
                while True:
                    # Those that were under way when a process died run alone now: only so is it known which it died of.
                    while len(jobs) < (1 if again else most) and (one := _next(values, again)) is not None:
                        jobs[_submitted(pool, one, again)] = one
                    if not jobs:
                        return
                    for done in wait(jobs, return_when=FIRST_COMPLETED).done:
                        if isinstance(done.exception(), BrokenProcessPool):
                            done.result()
                        yield jobs.pop(done)[0], done
            except BrokenProcessPool:
                alone = len(jobs) == 1
                again.extend((one, deaths + alone) for one, deaths in jobs.values())
                raise
            except BaseException:  # one failed, or the user stopped it: what has not begun shall not
                pool.shutdown(wait=True, cancel_futures=True)
                raise


def _next(values: Iterator[G], again: list[tuple[G, int]]) -> tuple[G, int] | None:
    """Return the next value and how often a process died of it."""
    if again:
        return again.pop(0)
    for one in values:
        return one, 0
    return None


def _submitted(pool: ProcessPoolExecutor, one: tuple[G, int], again: list[tuple[G, int]]) -> "Future[Any]":
    try:
        return pool.submit(_work, one[0])
    except BrokenProcessPool:  # it broke meanwhile: no process died of this one
        again.append(one)
        raise


def _lost(times: int) -> "Future[Any]":
    done: Future[Any] = Future()
    done.set_exception(
        WorkerLostError(
            f"The process that worked on it was killed {times} times, probably for want of memory; ask for fewer "
            "workers. What was done stays, and the same call goes on."
        )
    )
    return done


def _begin(path: Path) -> None:
    """Begin a process; PyTorch is loaded only where the work needs it, and has one thread either way."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ["OMP_NUM_THREADS"] = "1"
    with path.open("rb") as file:
        _held[:] = [pickle.load(file)]  # our own parent's file, in a folder of its own
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def _end_with_parent() -> None:
    """End this process when the one that began it is gone, also by SIGKILL: nobody would ever collect its work."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(one: Any) -> Any:
    return _held[0](one)

"""Further processes that try candidates of the same search, where there are cores: one database, one clock."""

import ctypes
import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from flyweight.cost.hardware import allowed_cores
from flyweight.errors import InputError

#: Cores that a worker wants for itself, and the most workers that are begun without being asked for.
CORES, MOST = 4, 4
#: Seconds that a worker may take to end.
SECONDS = 10.0
#: `prctl` option by which Linux ends a process with its parent.
_PARENT_DEATH = 1


def default_workers(given: object = None) -> int:
    """Return how many processes search where nobody says: one for every four cores, at most four.

    Args:
        given: what they would be given; where it cannot be sent to another process, one searches alone.
    """
    most = max(1, min(MOST, allowed_cores() // CORES))
    return most if most == 1 or _can_be_sent(given) else 1


class _Nowhere:
    """A file that keeps nothing."""

    def write(self, data: Any) -> int:
        return len(memoryview(data))


def _can_be_sent(given: object) -> bool:
    try:
        pickle.Pickler(_Nowhere(), protocol=pickle.HIGHEST_PROTOCOL).dump(given)
    except (pickle.PicklingError, AttributeError, TypeError):
        return False
    return True


@contextmanager
def working_beside(work: Callable[..., None], given: tuple[Any, ...], count: int) -> Iterator[None]:
    """Run `work(*given)` in `count` further processes until the block ends; they end with this one, however it ends.

    Raises:
        InputError: what is given cannot be sent to another process; says what.
    """
    if count < 1:
        yield
        return
    threads = torch.get_num_threads()
    each = max(1, threads // (count + 1))
    with tempfile.TemporaryDirectory(prefix="flyweight-workers-") as folder:
        path = Path(folder, "work.pickle")
        _write(path, (work, given))
        context = multiprocessing.get_context("spawn")
        processes = [context.Process(target=_begin, args=(os.getpid(), each, path)) for _ in range(count)]
        try:
            for process in processes:
                process.start()
            torch.set_num_threads(each)
            yield
        finally:
            torch.set_num_threads(threads)
            _end(processes)


def _write(path: Path, given: tuple[Any, ...]) -> None:
    """Write what a worker is given.

    Not through the arguments of its process: tensors sent so are moved to shared memory, away from the arrays that
    look at them here.
    """
    try:
        with path.open("wb") as file:
            pickle.dump(given, file, protocol=pickle.HIGHEST_PROTOCOL)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise InputError(
            f"The task cannot be sent to another process ({error}), so one process must search: give workers=1, or "
            "define the classes of the model and of the data in a module that can be imported."
        ) from error


def _begin(parent: int, threads: int, path: Path) -> None:
    """Begin a worker: it ends with its parent, and leaves interrupts to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PARENT_DEATH, signal.SIGKILL)
    if os.getppid() != parent:  # it died before it could be told of
        return
    torch.set_num_threads(threads)
    with path.open("rb") as file:
        work, given = pickle.load(file)  # our own parent's file, in a folder of its own
    work(*given)


def _end(processes: list[Any]) -> None:
    for process in processes:
        if process.pid is not None and process.is_alive():
            process.terminate()
    for process in processes:
        if process.pid is not None:
            process.join(SECONDS)
            process.kill()
            process.join()

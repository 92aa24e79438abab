"""How one function is run on many values: here, in other processes, or on a cluster. Who calls it need not know.

What comes of a value hangs on that value alone, so results are the same whoever runs them and however many there are.
"""

import pickle
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future
from contextlib import closing
from functools import partial
from typing import Any, Protocol, TypeVar

from flyweight.errors import EngineError, InputError

G = TypeVar("G")
R = TypeVar("R")
#: A value and what came of it; `result()` raises what the function raised, or `WorkerLostError`.
Done = tuple[G, Future[R]]
#: Times that a value is given to another process after the one that had it died.
RETRIES = 2


class WorkerLostError(EngineError):
    """Every process that had a value died of it, or with it."""


class Runner(Protocol):
    """Runs a function on many values."""

    @property
    def workers(self) -> int:
        """How many values are worked on at once."""
        ...

    @property
    def local(self) -> bool:
        """Whether everything runs on this machine, with its files."""
        ...

    def packed(self, value: Any) -> bytes:
        """Return a value as bytes that `pickle.loads` of a worker makes it of again.

        Raises:
            InputError: it cannot be sent; says what cannot.
        """
        ...

    def each(
        self, work: Callable[[G], R], given: Iterable[G], *, most: int | None = None, retries: int = RETRIES
    ) -> Generator[Done[G, R], None, None]:
        """Yield each value with what came of it, as they come.

        Args:
            work: a function of a module, or a `functools.partial` of one; sent once.
            given: read only as far as there is room for another value.
            most: values under way at once; None takes as many as keep all workers busy.
            retries: of a value whose process died.
        """
        ...


def pickled(value: Any, dump: Callable[..., bytes] = pickle.dumps) -> bytes:
    """Return a value as bytes.

    Raises:
        InputError: it cannot be sent to another process; says what cannot.
    """
    try:
        return dump(value, protocol=pickle.HIGHEST_PROTOCOL)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise InputError(
            f"The work cannot be sent to another process ({error}); ask for one worker, or define the classes of the "
            "model and of the data in a module that can be imported."
        ) from error


def in_order(runner: Runner, work: Callable[[G], R], given: Iterable[G]) -> Generator[R, None, None]:
    """Yield what comes of each value, in the order of the values.

    Raises:
        WorkerLostError: processes died of a value; and whatever `work` raises.

    Example:
        >>> list(in_order(Here(), abs, [-1, 2]))
        [1, 2]
    """
    waiting: dict[int, R] = {}
    due = 0
    with closing(runner.each(partial(_of_numbered, work), enumerate(given))) as each:
        for (place, _), done in each:
            waiting[place] = done.result()
            while due in waiting:
                yield waiting.pop(due)
                due += 1


def _of_numbered(work: Callable[[G], R], numbered: tuple[int, G]) -> R:
    return work(numbered[1])


class Here:
    """Runs everything in this process, one value after the other."""

    workers, local = 1, True

    def packed(self, value: Any) -> bytes:
        """Return a value as bytes."""
        return pickled(value)

    def each(
        self, work: Callable[[G], R], given: Iterable[G], *, most: int | None = None, retries: int = RETRIES
    ) -> Generator[Done[G, R], None, None]:
        """Yield each value with what came of it."""
        for one in given:
            done: Future[R] = Future()
            try:
                done.set_result(work(one))
            except Exception as error:  # handed to who asks for the result, as the other ways do
                done.set_exception(error)
            yield one, done

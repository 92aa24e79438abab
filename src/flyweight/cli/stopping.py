"""Ctrl-C in a verb that only looks: one line, and the exit code that shells give an interrupt."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer

from flyweight.cli.display import errors

INTERRUPTED = 130


@contextmanager
def stoppable(*, writes: bool = False) -> Iterator[None]:
    """Leave with exit code 130 on Ctrl-C, also where a library underneath took it and went on.

    Signals reach Python's main thread alone; elsewhere only what is raised is seen.

    Args:
        writes: whether the verb was asked to write what it found, so that what went on has written it.
    """
    asked: list[int] = []

    def stop(number: int, frame: Any) -> None:
        asked.append(number)
        raise KeyboardInterrupt

    here = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM) if here}
    try:
        yield
    except (KeyboardInterrupt, Exception) as error:  # a library may also have made an error of its own of it
        if not asked and not isinstance(error, KeyboardInterrupt):
            raise
        errors.print("Stopped; nothing was written.")
        raise typer.Exit(INTERRUPTED) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if asked:
        errors.print("Stopped; nothing was written." if not writes else "Stopped, but it was done by then.")
        raise typer.Exit(INTERRUPTED)

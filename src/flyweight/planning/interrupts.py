"""Interrupts once a model is found: they wait until it is measured, instead of losing it."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flyweight.task.progress import teller

#: Ctrl-C, and where a command line takes it as one, the signal that asks a process to end.
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def interrupts_wait(words: str) -> Iterator[None]:
    """Let the first interrupt wait until the block is done; a second one stops it at once.

    Signals reach Python's main thread alone, and handlers that are not Python's own are somebody's; there and then
    nothing changes.

    Args:
        words: what the user is told when an interrupt comes.

    Example:
        >>> with interrupts_wait("Saving first; Ctrl-C again stops it."):
        ...     done = True
    """
    here = threading.current_thread() is threading.main_thread()
    ours = [number for number in _SIGNALS if here and signal.getsignal(number) is signal.default_int_handler]
    tell = teller()

    def wait(number: int, frame: Any) -> None:
        restore()
        tell(words)

    def restore() -> None:
        for number in ours:
            signal.signal(number, signal.default_int_handler)

    for number in ours:
        signal.signal(number, wait)
    try:
        yield
    finally:
        restore()

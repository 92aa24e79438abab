"""How many threads a call may use: a number that this machine can take."""

import numpy as np

from flyweight.cost.hardware import allowed_cores
from flyweight.errors import InputError

#: An engine starts as many as it is told, a million too, so more than these a core, and in all, is taken for a slip.
EACH, MOST = 64, 1024


def checked_threads(threads: object) -> int:
    """Return a number of threads as an int; 0 leaves it to the engine.

    Raises:
        InputError: it is no whole number, negative, or more than 64 for each core here, at most 1,024.

    Example:
        >>> checked_threads(np.int64(2))
        2
    """
    if isinstance(threads, bool) or not isinstance(threads, (int, np.integer)) or threads < 0:
        raise InputError(f"threads must be a whole number from 0 on; seen {threads!r}. 0 leaves it to the engine.")
    count, cores = int(threads), allowed_cores()
    most = min(EACH * cores, MOST)
    if count > most:
        here = f"{cores:,} core{'' if cores == 1 else 's'} here"
        raise InputError(f"threads must be at most {most:,} with the {here}; seen {count:,}. Give as many as cores.")
    return count

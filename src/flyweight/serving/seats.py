"""How many connections each worker holds, where all workers see it, so that none takes more than its part.

A kernel wakes every process that listens, and the first to look takes the connection; callers that keep their
connections would leave one worker with most of them, and the others idle.
"""

import mmap
import os
import tempfile

#: The number of a worker that takes no connections: never the one with the fewest.
ABSENT = 2**62
_BYTES = 8


class Seats:
    """The numbers of all workers, in memory that they share.

    Args:
        file: number of the file that holds them.
        workers: how many.
    """

    def __init__(self, file: int, workers: int) -> None:
        self.file = file
        self._numbers = memoryview(mmap.mmap(file, _BYTES * workers)).cast("q")

    def set(self, place: int, number: int) -> None:
        """Say how many connections a worker holds."""
        self._numbers[place] = number

    def taken(self, place: int) -> bool:
        """Whether a worker takes connections."""
        return self._numbers[place] != ABSENT

    def over(self, place: int) -> bool:
        """Whether a worker holds more than the one with the fewest, which should take the next."""
        return self._numbers[place] > min(self._numbers)


def make_seats(workers: int) -> Seats:
    """Return the numbers of workers of which none takes connections yet; the file is open for processes to come."""
    if hasattr(os, "memfd_create"):
        file = os.memfd_create("flyweight-seats", 0)
    else:
        with tempfile.TemporaryFile() as made:
            file = os.dup(made.fileno())
    os.ftruncate(file, _BYTES * workers)
    seats = Seats(file, workers)
    for place in range(workers):
        seats.set(place, ABSENT)
    return seats

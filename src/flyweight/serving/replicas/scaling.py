"""How many replicas of a service a cluster runs, and when it makes more of them or fewer."""

import math
from dataclasses import dataclass

from flyweight.errors import InputError


@dataclass(frozen=True)
class Scaling:
    """Bounds and aim of the autoscaling.

    Args:
        least, most: replicas; equal numbers leave nothing to scale.
        ongoing: requests under way, on average, that one replica should have; more of them make more replicas.
        cores: that a replica reserves on its node; an engine takes as many threads, and at least one.
        up_seconds, down_seconds: that there must have been too many requests, or too few, before replicas are added or
            taken away.
    """

    least: int = 1
    most: int = 1
    ongoing: float = 2.0
    cores: float = 1.0
    up_seconds: float = 30.0
    down_seconds: float = 600.0

    def __post_init__(self) -> None:
        if self.least < 1:
            raise InputError(f"--min-replicas must be 1 or more; seen {self.least}.")
        if self.most < self.least:
            raise InputError(f"--max-replicas must be {self.least} (--min-replicas) or more; seen {self.most}.")
        if not 0 < self.ongoing < 1e6:
            raise InputError(f"--target-ongoing must be a number above 0; seen {self.ongoing:g}.")
        if not 0 < self.cores <= 1024 or (self.cores > 1 and self.cores != int(self.cores)):
            raise InputError(
                f"--replica-cores must be a whole number, or a part of one core such as 0.5; seen {self.cores:g}."
            )

        for name, seconds in (("up", self.up_seconds), ("down", self.down_seconds)):
            if not 0 <= seconds < 1e6:
                raise InputError(f"--scale-{name}-after is in seconds, 0 or more; seen {seconds:g}.")

    @property
    def looked_back(self) -> float:
        """Seconds over which requests under way are averaged: no longer than more of them may go unanswered."""
        return min(30.0, max(self.up_seconds, 1.0))

    @property
    def threads(self) -> int:
        """Threads of an engine in a replica."""
        return math.ceil(self.cores)

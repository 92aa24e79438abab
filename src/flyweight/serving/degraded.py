"""Scores that were worked out with stand-ins carry how many, so that every protocol's answer can say it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

#: The key of an answer that says it, in JSON and in gRPC's parameters.
DEGRADED_ROWS = "degraded_rows"


class DegradedScores(np.ndarray[Any, Any]):
    """Scores as any others, also when they are cut into parts, that know of the rows that were stood in for.

    Source: https://numpy.org/doc/stable/user/basics.subclassing.html, "adding an extra attribute to ndarray".
    """

    degraded_rows: int

    def __array_finalize__(self, made_of: Any) -> None:
        """Take over what the array knows that this one is made of."""
        self.degraded_rows = getattr(made_of, "degraded_rows", 0)


def marked_degraded(scores: NDArray[Any], rows: int) -> NDArray[Any]:
    """Return scores that know how many rows of their call, those of requests joined to it included, were stood in for.

    Example:
        >>> degraded_rows(marked_degraded(np.zeros(4), 3)[2:])
        3
    """
    marked = scores.view(DegradedScores)
    marked.degraded_rows = rows
    return marked


def degraded_rows(scores: object) -> int:
    """Return how many rows were stood in for in the call that scores are of; 0: they are exact."""
    return scores.degraded_rows if isinstance(scores, DegradedScores) else 0

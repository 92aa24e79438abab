"""Why a request was not answered: one exception, with the status that HTTP and gRPC give it."""

import reprlib
from dataclasses import dataclass
from typing import Any, Literal

from flyweight.bundle.shards.client import LAST_WAIT
from flyweight.errors import FlyweightError, ShardError

Kind = Literal[
    "invalid", "unauthorized", "forbidden", "not_found", "method", "slow", "conflict", "too_large", "media_type",
    "busy", "expired", "draining", "away", "failed",
]  # fmt: skip


@dataclass(frozen=True)
class Status:
    """How one kind of refusal is told: HTTP's status and the name of gRPC's code."""

    http: int
    grpc: str


STATUSES: dict[Kind, Status] = {
    "invalid": Status(400, "INVALID_ARGUMENT"),
    "unauthorized": Status(401, "UNAUTHENTICATED"),
    "forbidden": Status(403, "PERMISSION_DENIED"),
    "not_found": Status(404, "NOT_FOUND"),
    "method": Status(405, "UNIMPLEMENTED"),
    "slow": Status(408, "DEADLINE_EXCEEDED"),
    "conflict": Status(409, "FAILED_PRECONDITION"),
    "too_large": Status(413, "RESOURCE_EXHAUSTED"),
    "media_type": Status(415, "INVALID_ARGUMENT"),
    "busy": Status(429, "RESOURCE_EXHAUSTED"),
    "expired": Status(503, "DEADLINE_EXCEEDED"),
    "draining": Status(503, "UNAVAILABLE"),
    "away": Status(503, "UNAVAILABLE"),
    "failed": Status(500, "INTERNAL"),
}


class Refusal(FlyweightError):  # noqa: N818
    """A request that gets no scores.

    Args:
        message: what is wrong, what was seen, what was expected.
        kind: decides the status.
        retry_after: seconds after which another try makes sense; None where none does.
    """

    def __init__(self, message: str, kind: Kind = "invalid", retry_after: float | None = None) -> None:
        super().__init__(message)
        self.kind: Kind = kind
        self.retry_after = retry_after

    @property
    def status(self) -> Status:
        """The statuses of HTTP and gRPC."""
        return STATUSES[self.kind]


def refusal_of(error: FlyweightError) -> Refusal:
    """Return an error of the rooms below as a refusal: wrong input is the caller's fault, all else is ours."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, ShardError):
        return Refusal(str(error), "away", LAST_WAIT)
    return Refusal(str(error), "invalid" if isinstance(error, ValueError) else "failed")


def shown(value: Any) -> str:
    """Return what a caller sent as a few letters for an error, however large it is or deep.

    `repr` writes all of it out, and fails where lists lie a thousand deep.

    Example:
        >>> shown([1, [2, [3, [4, [5]]]]]), shown(None)
        ('[1, [2, [3, [...]]]]', 'null')
    """
    return "null" if value is None else _SHORT.repr(value)


_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxlist, _SHORT.maxdict = 4, 8, 4
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 60

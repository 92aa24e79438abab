"""Who asks, as far as its request says: its name for the request, and the trace that it belongs to."""

import itertools
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

#: Letters of a request's name; what is over is cut off.
LONGEST_ID = 128
REQUEST_ID, TRACEPARENT = b"x-request-id", b"traceparent"
_PREFIX = secrets.token_hex(6)
_NUMBERS = itertools.count()


@dataclass(slots=True)
class Caller:
    """Who asks.

    Args:
        request_id: the caller's name for the request; made here where it gave none.
        traceparent: of the W3C's Trace Context; "" where the caller traces nothing.
    """

    request_id: str = ""
    traceparent: str = ""

    def named(self, own_id: str = "") -> str:
        """Return the request's name: the caller's header, else the name inside the request, else one that is made."""
        if not self.request_id:
            self.request_id = clean_id(own_id) or f"{_PREFIX}-{next(_NUMBERS):x}"
        return self.request_id


def caller_of(headers: Mapping[bytes, bytes]) -> Caller:
    """Return what the headers of an HTTP request say."""
    request_id, trace = headers.get(REQUEST_ID), headers.get(TRACEPARENT)
    return Caller(
        "" if request_id is None else clean_id(request_id.decode("latin-1")),
        "" if trace is None else trace.decode("latin-1"),
    )


def clean_id(text: str) -> str:
    """Return a name of printable ASCII, which fits a header and a line of a log.

    Example:
        >>> clean_id("order-7\\r\\nSet-Cookie: x")
        'order-7Set-Cookie: x'
    """
    if text.isascii() and text.isprintable():
        return text[:LONGEST_ID]
    return "".join(letter for letter in text[: 4 * LONGEST_ID] if " " <= letter <= "~")[:LONGEST_ID]

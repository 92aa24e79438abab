"""Inference from bytes to bytes: a plain request that is here whole goes to the queue, and its answer to the caller.

An ASGI application between the two, with its scope, events and tasks, took a third of what a worker does for a request.
"""

import logging
import time
from collections.abc import Callable
from email.utils import formatdate
from functools import partial
from http import HTTPStatus
from typing import Any

from flyweight.serving.access import Access, Origin
from flyweight.serving.answering import Desk, Handed
from flyweight.serving.caller import Caller, caller_of
from flyweight.serving.infer_route import FAULT, Lines, answer_of, infer_target, refusal_of_protocol, tensors_of
from flyweight.serving.lane import Ticket
from flyweight.serving.plain_request import Plain
from flyweight.serving.refusal import Refusal

logger = logging.getLogger("flyweight.serving")
_STARTS = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
#: Takes a whole answer, and whether the connection is to be closed after it.
Done = Callable[[bytes, bool], None]


class DirectInfer:
    """Answers plain requests.

    Args:
        desk: where they are handed in.
        access: who may.
    """

    def __init__(self, desk: Desk, access: Access) -> None:
        self._desk, self._access = desk, access
        self._last: tuple[Refusal | None, bytes] = (None, b"")

    def takes(self, plain: Plain) -> bool:
        """Return whether a request is to be answered here, and not by the application."""
        return plain.size - plain.head <= self._desk.repository.settings.max_body

    def refuse(self, plain: Plain) -> bytes | None:
        """Return the whole answer where a request must be refused whatever its body is, None where not."""
        answer = self._busy(plain.model, plain.version, expects=False)
        return answer if answer is not None or self._access.is_open else self._refuse_stranger(plain)

    def refuse_by_path(self, method: str, path: str) -> bytes | None:
        """Return the whole answer to a request that is not plain where its queue is full, None where not."""
        target = infer_target(path) if method == "POST" else None
        return None if target is None else self._busy(*target, expects=True)

    def _busy(self, model: str, version: str | None, *, expects: bool) -> bytes | None:
        refusal = self._desk.early_refusal(model, version, expects=expects)
        if refusal is None:
            return None
        if refusal is not self._last[0]:
            self._last = refusal, message(refusal.status.http, *refusal_of_protocol(refusal))
        return self._last[1]

    def _refuse_stranger(self, plain: Plain) -> bytes | None:
        """Look at a request's token before there is room for its body."""
        told = plain.headers.get(b"authorization", b"").decode("latin-1")
        try:
            self._access.check_use(Origin(authorization=told))
        except Refusal as refusal:
            caller = caller_of(plain.headers)
            self._desk.refuse("http", plain.model, refusal, caller)
            return message(refusal.status.http, *refusal_of_protocol(refusal, caller.named()))
        return None

    def begin(self, plain: Plain, body: memoryview, done: Done) -> Ticket | None:
        """Hand a request in; `done` is called with the answer, maybe before this returns.

        Args:
            body: whole; nobody writes to it any more.

        Returns:
            The place in the queue, to be given up where the caller goes; None where the request is answered already.
        """
        caller = caller_of(plain.headers)
        try:
            handed = self._hand_in(plain, body, caller)
        except Refusal as refusal:
            self._refused(refusal, caller, done)
            return None
        except Exception:  # the last stop: whatever it is, the caller gets an answer of the protocol
            logger.exception("Inference failed", extra={"request_id": caller.named()})
            self._refused(FAULT, caller, done)
            return None
        handed.ticket.answer.add_done_callback(partial(self._end, handed, plain, caller, done))
        return handed.ticket

    def too_slow(self, plain: Plain, refusal: Refusal, done: Done) -> None:
        """Refuse a request whose body did not come in time."""
        caller = caller_of(plain.headers)
        self._desk.refuse("http", plain.model, refusal, caller)
        done(message(refusal.status.http, *refusal_of_protocol(refusal, caller.named()), closing=True), True)

    def _hand_in(self, plain: Plain, body: memoryview, caller: Caller) -> Handed:
        desk = self._desk
        try:
            tensors = tensors_of(body, plain.headers, desk.repository.settings.max_body)
        except Refusal as refusal:
            desk.refuse("http", plain.model, refusal, caller)
            raise
        return desk.hand_in("http", (plain.model, plain.version), tensors, caller)

    def _end(self, handed: Handed, plain: Plain, caller: Caller, done: Done, answer: Any) -> None:
        if answer.cancelled():  # the caller has gone
            return
        try:
            body, lines = answer_of(self._desk.take_back(handed), plain.headers)
        except Refusal as refusal:
            self._refused(refusal, caller, done)
            return
        except Exception:
            logger.exception("Inference failed", extra={"request_id": caller.named()})
            self._refused(FAULT, caller, done)
            return
        closing = self._desk.repository.draining
        done(message(200, body, lines, closing=closing), closing)

    def _refused(self, refusal: Refusal, caller: Caller, done: Done) -> None:
        closing = self._desk.repository.draining
        body, lines = refusal_of_protocol(refusal, caller.named())
        done(message(refusal.status.http, body, lines, closing=closing), closing)


def message(status: int, body: bytes, lines: Lines, *, closing: bool = False) -> bytes:
    """Return a whole answer; `closing` tells the caller to take another connection for the next request."""
    parts = [_STARTS[status], _date()]
    for name, value in lines:
        parts += (name, b": ", value, b"\r\n")
    parts += (b"content-length: %d\r\n" % len(body), b"connection: close\r\n\r\n" if closing else b"\r\n", body)
    return b"".join(parts)


_dated: tuple[int, bytes] = (0, b"")


def _date() -> bytes:
    """Return the header that tells when it is, in whole seconds."""
    global _dated
    now = int(time.time())
    if now != _dated[0]:
        _dated = now, f"date: {formatdate(now, usegmt=True)}\r\n".encode()
    return _dated[1]

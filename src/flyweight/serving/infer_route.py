"""The one route that must be quick, as a bare ASGI function: `POST /v2/models/{m}[/versions/{v}]/infer`."""

import logging
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import orjson

from flyweight.serving.answering import Answered, Desk
from flyweight.serving.answers import write_answer
from flyweight.serving.body import Disconnected, Receive, pack_body, read_body, unpack_body
from flyweight.serving.caller import REQUEST_ID, Caller, caller_of
from flyweight.serving.refusal import Refusal
from flyweight.serving.tensors import Tensors, read_tensors

Scope = Mapping[str, Any]
Lines = list[tuple[bytes, bytes]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
App = Callable[[Any, Any, Any], Awaitable[None]]
logger = logging.getLogger("flyweight.serving")
JSON, BINARY = b"application/json", b"application/octet-stream"
HEADER_LENGTH = b"inference-header-content-length"
FAULT = Refusal("A fault of the service; its log says more.", "failed")


def first_infer(desk: Desk, others: App) -> App:
    """Return an ASGI application that answers inference itself and hands on all else."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["method"] == "POST":
            target = infer_target(scope["path"])
            if target is not None:
                await _respond(desk, target, scope, receive, send)
                return
        await others(scope, receive, send)

    return app


def infer_target(path: str) -> tuple[str, str | None] | None:
    """Return model and version of an inference's path, None where it is another path.

    Example:
        >>> infer_target("/v2/models/ranker/versions/3/infer")
        ('ranker', '3')
    """
    if not (path.startswith("/v2/models/") and path.endswith("/infer")):
        return None
    parts = path.split("/")
    if len(parts) == 5:
        return parts[3], None
    return (parts[3], parts[5]) if len(parts) == 7 and parts[4] == "versions" else None


async def _respond(
    desk: Desk, target: tuple[str, str | None], scope: Scope, receive: Receive, send: Send
) -> None:
    headers = dict(scope["headers"])
    closing = desk.repository.draining
    caller = caller_of(headers)
    try:
        tensors = await _read(desk, target, headers, receive, caller)
        told = await desk.answer("http", target[0], target[1], tensors, caller)
    except Refusal as refusal:
        await send_refusal(send, refusal, closing=closing, request_id=caller.named())
        return
    except Disconnected:
        return
    except Exception:  # the last stop: whatever it is, the caller gets an answer of the protocol
        logger.exception("Inference failed", extra={"request_id": caller.named()})
        await send_refusal(send, FAULT, closing=closing, request_id=caller.named())
        return
    body, lines = answer_of(told, headers)
    await send_body(send, 200, body, lines, closing=closing)


async def _read(
    desk: Desk, target: tuple[str, str | None], headers: Mapping[bytes, bytes], receive: Receive, caller: Caller
) -> Tensors:
    """Return the tensors of a request once it has come whole."""
    settings = desk.repository.settings
    try:
        declared = whole_number(headers, b"content-length")
        body = await read_body(receive, declared, settings.max_body, settings.read_seconds)
        refusal = desk.full(*target)  # the queue may have filled while the body came
        if refusal is not None:
            raise refusal
        return tensors_of(body, headers, settings.max_body)
    except Refusal as refusal:
        desk.refuse("http", target[0], refusal, caller)
        raise


def tensors_of(body: bytes | memoryview, headers: Mapping[bytes, bytes], most: int) -> Tensors:
    """Return the tensors of a body that came as the headers say, unpacked to `most` bytes at most.

    Raises:
        Refusal: it is no request of the protocol.
    """
    if b"content-encoding" in headers:
        encoding = headers[b"content-encoding"].decode("latin-1").strip().lower()
        body = unpack_body(body, encoding, most)
    return read_tensors(body, whole_number(headers, HEADER_LENGTH))


def answer_of(told: Answered, headers: Mapping[bytes, bytes]) -> tuple[bytes, Lines]:
    """Return the body of an answer, and its headers but for the length, to a request with these headers."""
    assert told.scores is not None
    assert told.tensors is not None
    tensors = told.tensors
    body, header_length = write_answer(told.model, told.version, told.scores, tensors.id, binary=tensors.binary)
    lines = [(b"content-type", JSON if header_length is None else BINARY), (REQUEST_ID, told.request_id.encode())]
    if header_length is not None:
        lines.append((HEADER_LENGTH, b"%d" % header_length))
    if b"accept-encoding" in headers:
        body, packed = pack_body(body, headers[b"accept-encoding"].decode("latin-1"))
        if packed:
            lines.append((b"content-encoding", packed.encode()))
    lines.append((b"server-timing", _timing(told)))
    return body, lines


def whole_number(headers: Mapping[bytes, bytes], name: bytes) -> int | None:
    """Return a header's number, None where the header is not there.

    Raises:
        Refusal: it is no whole number.
    """
    text = headers.get(name)
    if text is None:
        return None
    if not text.isdigit() or len(text) > 18:
        raise Refusal(f"Header {name.decode()} must be a whole number of bytes; seen {text[:40].decode('latin-1')!r}.")
    return int(text)


async def send_refusal(send: Send, refusal: Refusal, *, closing: bool = False, request_id: str = "") -> None:
    """Send a refusal as the protocol has it, `{"error": ...}`, with a hint when to come again."""
    body, lines = refusal_of_protocol(refusal, request_id)
    # What is left of a body that was not read would be taken for the next request.
    unread = refusal.kind in ("too_large", "slow")
    await send_body(send, refusal.status.http, body, lines, closing=closing or unread)


def refusal_of_protocol(refusal: Refusal, request_id: str = "") -> tuple[bytes, Lines]:
    """Return the body of a refusal, and its headers but for the length."""
    lines = [(b"content-type", JSON)]
    if request_id:
        lines.append((REQUEST_ID, request_id.encode()))
    if refusal.retry_after is not None:
        lines += retry_headers(refusal.retry_after)
    if refusal.kind == "unauthorized":
        lines.append((b"www-authenticate", b'Bearer realm="flyweight"'))
    return orjson.dumps({"error": str(refusal)}), lines


def retry_headers(seconds: float) -> Iterable[tuple[bytes, bytes]]:
    """Return the hint in whole seconds, as HTTP has it, and in milliseconds, as clients of quick services need it."""
    return ((b"retry-after", b"%d" % math.ceil(seconds)), (b"retry-after-ms", b"%d" % math.ceil(seconds * 1e3)))


async def send_body(
    send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]], *, closing: bool
) -> None:
    """Send an answer whole; `closing` tells the caller to take another connection for the next request."""
    headers.append((b"content-length", b"%d" % len(body)))
    if closing:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _timing(told: Answered) -> bytes:
    """Return where the time went, in milliseconds, in the form that browsers and proxies read."""
    return b"queue;dur=%.3f, engine;dur=%.3f, total;dur=%.3f" % (
        told.queue_seconds * 1e3,
        told.engine_seconds * 1e3,
        told.seconds * 1e3,
    )

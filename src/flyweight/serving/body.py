"""A request's body, read whole: within a size, within a time, unpacked where it came packed."""

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from flyweight.serving.refusal import Refusal

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
#: What zlib is told to find out by itself whether data are gzip's or zlib's.
_EITHER = 32 + zlib.MAX_WBITS


class Disconnected(Exception):  # noqa: N818
    """The caller has gone: nobody is there to be told."""


async def read_body(receive: Receive, declared: int | None, most: int, seconds: float) -> bytes:
    """Return the body.

    Args:
        declared: what Content-Length says; None where it says nothing.
        most: bytes that are read.
        seconds: within which it must be there.

    Raises:
        Refusal: it is larger, or did not come in time.
        Disconnected: the caller has gone before it was whole.
    """
    if declared is not None and declared > most:
        raise _too_large(declared, most)
    end = asyncio.get_running_loop().time() + seconds
    message = await _timely(receive, end)
    if message is None:
        raise too_slow(0, declared, seconds)
    body: bytes = message.get("body", b"")
    if not message.get("more_body"):
        return _whole(body, most)
    parts, size = [body], len(body)
    while message.get("more_body"):
        message = await _timely(receive, end)
        if message is None:
            raise too_slow(size, declared, seconds)
        part: bytes = message.get("body", b"")
        size += len(part)
        if size > most:
            raise _too_large(size, most)
        parts.append(part)
    return b"".join(parts)


async def _timely(receive: Receive, end: float) -> Message | None:
    """Return the next part, None where it does not come in time."""
    try:
        async with asyncio.timeout_at(end):
            message = await receive()
    except TimeoutError:
        return None
    if message["type"] == "http.disconnect":
        raise Disconnected
    return message


def _whole(body: bytes, most: int) -> bytes:
    if len(body) > most:
        raise _too_large(len(body), most)
    return body


def too_slow(size: int, declared: int | None, seconds: float) -> Refusal:
    """Return why a body is not waited for any longer: `size` bytes came, of those that were declared."""
    due = "" if declared is None else f" of the {declared:,} that Content-Length says"
    return Refusal(
        f"The request's body did not come whole within {seconds:g} s (--read-timeout): {size:,} bytes{due} came.",
        "slow",
    )


def _too_large(size: int, most: int) -> Refusal:
    return Refusal(
        f"The request's body has {size:,} bytes or more; at most {most:,} are read (--max-body). Send it in parts.",
        "too_large",
    )


def unpack_body(body: bytes | memoryview, encoding: str, most: int) -> bytes | memoryview:
    """Return a body that came as Content-Encoding says; it is never unpacked further than `most` bytes.

    Raises:
        Refusal: the encoding is unknown, the data are not of it, or there are more.
    """
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise Refusal(f"Content-Encoding {encoding[:40]!r} is not read; send gzip, deflate or none.", "media_type")
    unpacking = zlib.decompressobj(_EITHER)
    try:
        found = unpacking.decompress(body, most + 1)
    except zlib.error as error:
        raise Refusal(f"The body is not {encoding}, as Content-Encoding says: {error}.") from None
    if len(found) > most:
        raise _too_large(len(found), most)
    if not unpacking.eof:
        raise Refusal(f"The body ends in the middle of its {encoding} data; it was cut off.")
    if unpacking.unused_data:
        more = len(unpacking.unused_data)
        raise Refusal(f"The body goes on for {more:,} bytes after the end of its {encoding} data.")
    return found


def pack_body(body: bytes, accepted: str) -> tuple[bytes, str]:
    """Return a body packed as the caller asked for, and the name of the packing, "" for none.

    Small ones are left: packing takes longer than sending them.
    """
    if len(body) < SMALL:
        return body, ""
    for name, bits in (("gzip", 16 + zlib.MAX_WBITS), ("deflate", zlib.MAX_WBITS)):
        if name in _names(accepted):
            packing = zlib.compressobj(1, zlib.DEFLATED, bits)
            return packing.compress(body) + packing.flush(), name
    return body, ""


SMALL = 1024


def _names(accepted: str) -> Iterable[str]:
    """Return the encodings of an Accept-Encoding header that are not refused by a quality of 0."""
    for part in accepted.split(","):
        name, _, quality = part.partition(";")
        if quality.strip().replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000"):
            yield name.strip().lower()

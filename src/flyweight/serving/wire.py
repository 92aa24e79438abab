"""Questions and answers between two processes of a service: lines of JSON over a pair of sockets, both ways."""

import asyncio
import itertools
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson

from flyweight.errors import FlyweightError
from flyweight.serving.refusal import Refusal, refusal_of

logger = logging.getLogger("flyweight.serving")
Handler = Callable[..., Awaitable[Any]]
#: Bytes of one line.
LONGEST = 16 * 2**20


class Wire:
    """One end.

    Args:
        handlers: what answers each verb that the other end may ask, with the question's values as keywords.
    """

    def __init__(self, handlers: Mapping[str, Handler]) -> None:
        self.handlers = dict(handlers)
        self._numbers = itertools.count()
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._answering: set[asyncio.Task[None]] = set()
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    @property
    def is_open(self) -> bool:
        """Whether the other end is there, as far as was noticed."""
        return self._writer is not None

    async def open(self, channel: socket.socket) -> None:
        """Take this end of the pair; `listen` comes next."""
        self._reader, self._writer = await asyncio.open_connection(sock=channel, limit=LONGEST)

    async def listen(self) -> None:
        """Answer questions until the other end is closed; what was asked and not answered by then fails."""
        assert self._reader is not None
        assert self._writer is not None
        reader = self._reader
        try:
            while line := await reader.readline():
                self._take(orjson.loads(line))
        except (ConnectionError, ValueError):  # the other end was killed, perhaps in the middle of a line
            pass
        finally:
            self._writer.close()
            self._writer = None
            for answer in self._asked.values():
                if not answer.done():
                    answer.set_exception(_gone())

    async def ask(self, verb: str, **values: Any) -> Any:
        """Return what the other end's handler of this verb returns.

        Raises:
            Refusal: what it raised there, or the other end is gone.
        """
        if self._writer is None:
            raise _gone()
        number = next(self._numbers)
        answer = self._asked[number] = asyncio.get_running_loop().create_future()
        try:
            await self._send(orjson.dumps({"asks": number, "verb": verb, "values": values}))
            return await answer
        finally:
            del self._asked[number]

    def _take(self, message: dict[str, Any]) -> None:
        if "asks" in message:
            task = asyncio.create_task(self._answer(message["asks"], message["verb"], message["values"]))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)
            return
        answer = self._asked.get(message["answers"])
        if answer is None or answer.done():
            return
        if "error" in message:
            answer.set_exception(Refusal(message["error"], message["kind"]))
        else:
            answer.set_result(message["value"])

    async def _answer(self, number: int, verb: str, values: dict[str, Any]) -> None:
        try:
            line = orjson.dumps({"answers": number, "value": await self.handlers[verb](**values)})
        except FlyweightError as error:
            line = _failure(number, str(error), refusal_of(error).kind)
        except Exception as error:  # a fault of ours must not leave the other end, and all that wait for it, waiting
            logger.exception("%s failed", verb)
            line = _failure(number, f"{verb} failed: {type(error).__name__}: {error}", "failed")
        await self._send(line)

    async def _send(self, line: bytes) -> None:
        if self._writer is not None:
            self._writer.write(line + b"\n")
            try:
                await self._writer.drain()
            except ConnectionError:
                return  # `listen` sees it too, and fails what was asked


class Gone(Refusal):
    """The other end was closed before it answered."""


def _failure(number: int, why: str, kind: str) -> bytes:
    # Names of files may hold bytes that are no UTF-8, which JSON has no letters for.
    words = why.encode(errors="backslashreplace").decode()
    return orjson.dumps({"answers": number, "error": words, "kind": kind})


def _gone() -> Gone:
    return Gone("The other process of the service is gone; try again.", "draining", 1.0)

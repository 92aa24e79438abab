"""Two ends of a wire: each question gets an answer, whatever happens at the other end."""

import asyncio
import socket
from typing import Any

import pytest

from flyweight.errors import InputError
from flyweight.serving.refusal import Refusal
from flyweight.serving.wire import Gone, Wire


async def fails(how: str) -> Any:
    if how == "wrong":
        raise InputError("no such thing")
    if how == "broken":
        raise RuntimeError("can't start new thread")
    return {"name": "caf\udce9.fly"}  # a file's name that is no UTF-8


@pytest.mark.parametrize(
    ("verb", "how", "kind", "words"),
    [
        ("fails", "wrong", "invalid", "^no such thing$"),
        ("fails", "broken", "failed", "^fails failed: RuntimeError: can't start new thread$"),
        ("fails", "odd name", "failed", "^fails failed: TypeError: .*surrogates"),
        ("unknown", "", "failed", "^unknown failed: KeyError: 'unknown'$"),
    ],
)
def test_every_failure_is_answered(verb: str, how: str, kind: str, words: str) -> None:
    async def story() -> None:
        ends = [Wire({}), Wire({"fails": fails})]
        listens = []
        for wire, end in zip(ends, socket.socketpair(), strict=True):
            await wire.open(end)
            listens.append(asyncio.create_task(wire.listen()))
        with pytest.raises(Refusal, match=words) as caught:
            await asyncio.wait_for(ends[0].ask(verb, how=how), 5)
        assert caught.value.kind == kind
        listens[1].cancel()
        with pytest.raises(Gone, match="is gone; try again"):
            await asyncio.wait_for(ends[0].ask(verb, how=how), 5)
        await listens[0]

    asyncio.run(story())

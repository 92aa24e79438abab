"""A body is read within one time, however its parts come."""

import asyncio
from typing import Any

import pytest

from flyweight.serving.body import read_body
from flyweight.serving.refusal import Refusal


def test_first_part_that_comes_late_leaves_the_rest_no_longer() -> None:
    parts = [(0.15, b"{"), (0.15, b"}")]

    async def receive() -> dict[str, Any]:
        seconds, part = parts.pop(0)
        await asyncio.sleep(seconds)
        return {"type": "http.request", "body": part, "more_body": bool(parts)}

    with pytest.raises(Refusal, match=r"within 0.2 s \(--read-timeout\): 1 bytes of the 2 that"):
        asyncio.run(read_body(receive, 2, 100, 0.2))

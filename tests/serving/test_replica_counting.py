"""The sum over replicas of what each has told, by a clock of the test's own."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from flyweight.serving.refusal import Refusal
from flyweight.serving.replicas.counting import Counting, Telling


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def told(requests: int) -> dict[str, Any]:
    """What a replica tells."""
    lasting = {"ranker": {"1": {"requests": {"http": requests}}}}
    return {"lasting": lasting, "now": {"workers": 1, "memory": {"pss": 5}, "waiting": {}, "recent": {}}}


def requests_of(total: dict[str, Any]) -> int:
    return int(total["lasting"]["ranker"]["1"]["requests"]["http"])


def test_counts_of_replicas_add_up_and_the_last_of_each_stands() -> None:
    counts = Counting(Clock())
    counts.note("a", told(3))
    counts.note("a", told(4))
    total = counts.total("b", told(10))
    assert (requests_of(total), total["now"]["workers"], total["now"]["memory"]) == (14, 2, {"pss": 10})


def test_a_replica_that_ended_stays_in_what_only_grows_and_never_counts_twice() -> None:
    clock = Clock()
    counts = Counting(clock)
    counts.note("a", told(3))
    clock.now = 11
    total = counts.total("b", told(10))
    assert (requests_of(total), total["now"]["workers"]) == (13, 1)
    counts.note("a", told(5))  # it was slow, not gone
    assert requests_of(counts.total("b", told(10))) == 15
    clock.now = 700
    assert requests_of(counts.total("c", told(1))) == 16
    assert requests_of(counts.total("c", told(2))) == 17  # others are held under no name by now, and still counted
    assert not counts.alone
    clock.now = 1400
    assert counts.alone


class Actor:
    """Stands for Ray's actor: each method is called by `remote`."""

    def __init__(self) -> None:
        self.counts = Counting(Clock())

    def __getattr__(self, verb: str) -> Any:
        async def call(*values: Any) -> Any:
            return getattr(self.counts, verb)(*values)

        return SimpleNamespace(remote=call)


def test_a_lost_actor_is_looked_for_again_and_no_lesser_sum_is_told(caplog: pytest.LogCaptureFixture) -> None:
    found: list[Any] = [ConnectionError("gone"), Actor()]

    async def own() -> dict[str, Any]:
        return told(7)

    def find() -> Any:
        one = found.pop(0)
        if isinstance(one, Exception):
            raise one
        return one

    async def ask() -> dict[str, Any]:
        telling = Telling("a", "10.0.0.7", own, find)
        with pytest.raises(Refusal, match="counts of all replicas are not to be had at this moment; ask again"):
            await telling.total()
        return await telling.total()

    total = asyncio.run(ask())
    assert (requests_of(total), total["now"]["nodes"]) == (7, {"10.0.0.7": 1})
    assert "The actor that adds up counts does not answer (ConnectionError)." in caplog.text

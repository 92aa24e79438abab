"""The sum over replicas of what each has told, by a clock of the test's own."""

import asyncio
from typing import Any

import pytest

from flyweight.serving.replicas import counting
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


def test_a_replica_tells_of_itself_where_no_sum_is_to_be_had(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(counting, "TELL_SECONDS", 60)

    async def own() -> dict[str, Any]:
        return told(7)

    def lost() -> Any:
        raise ConnectionError

    async def ask() -> dict[str, Any]:
        return await Telling("a", "10.0.0.7", own, lost).total()

    total = asyncio.run(ask())
    assert (requests_of(total), total["now"]["nodes"]) == (7, {"10.0.0.7": 1})
    assert "The sum over replicas is not to be had (ConnectionError)." in caplog.text

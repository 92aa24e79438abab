"""The queue before a model: what is joined, what is refused, what is not run any more."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import numpy as np
import pytest

from flyweight.serving import lane as lane_module
from flyweight.serving.call import Call
from flyweight.serving.lane import Lane, Limits
from flyweight.serving.refusal import Refusal


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Joined calls that may take long: here a call may be slow for what else the machine does."""
    monkeypatch.setattr(lane_module, "BATCH_SECONDS", 1000.0)


def call(rows: int, kind: tuple[Any, ...] | None = ()) -> Call:
    return Call({}, {"x": np.zeros(rows)}, rows, kind=kind)


class Engine:
    """Gives each call an array of as many zeros as it has rows, and keeps what came together."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.batches: list[list[int]] = []
        self.seconds = seconds

    def score(self, calls: Sequence[Call]) -> list[Any]:
        time.sleep(self.seconds)
        self.batches.append([one.rows for one in calls])
        return [np.zeros(one.rows) for one in calls]


def run(engine: Engine, body: Callable[[Lane], Awaitable[Any]], *, inline: bool = True, **limits: Any) -> Any:
    async def main() -> Any:
        lane = Lane(engine.score, Limits(**limits), inline=inline)
        try:
            return await asyncio.wait_for(body(lane), 10)
        finally:
            await lane.drain()
            lane.close()

    return asyncio.run(main())


async def lengths(lane: Lane, sizes: Sequence[int]) -> list[int]:
    tickets = [lane.submit(call(size)) for size in sizes]
    return [len(await ticket.answer) for ticket in tickets]  # type: ignore[arg-type]


@pytest.mark.parametrize("inline", [True, False])
def test_what_is_queued_at_one_moment_is_scored_together(inline: bool) -> None:
    engine = Engine()
    assert run(engine, lambda lane: lengths(lane, [3, 1, 2]), inline=inline) == [3, 1, 2]
    assert engine.batches == [[3, 1, 2]]


def test_batch_ends_at_its_candidates_and_at_its_requests() -> None:
    engine = Engine()
    run(engine, lambda lane: lengths(lane, [60, 30, 30, 200, 5, 5, 5, 5]), batch_candidates=100, batch_requests=4)
    assert engine.batches == [[60, 30, 5, 5], [30, 5, 5], [200]]


def test_calls_of_other_kinds_are_not_joined() -> None:
    engine = Engine()

    async def body(lane: Lane) -> None:
        kinds = [((5,),), ((9,),), ((5,),), None, None]
        await asyncio.gather(*(lane.submit(call(rows, kind)).answer for rows, kind in enumerate(kinds, 1)))

    run(engine, body)
    assert engine.batches == [[1, 3], [2], [4], [5]]


def test_wait_lets_a_later_request_join() -> None:
    engine = Engine()

    async def body(lane: Lane) -> None:
        first = lane.submit(call(1))
        await asyncio.sleep(0.01)
        await asyncio.gather(first.answer, lane.submit(call(2)).answer)

    run(engine, body, wait_us=200_000)
    assert engine.batches == [[1, 2]]


def test_full_batch_does_not_wait() -> None:
    engine = Engine()
    started = time.monotonic()
    run(engine, lambda lane: lengths(lane, [1, 1]), wait_us=5_000_000, batch_requests=2)
    assert time.monotonic() - started < 1


def test_full_queue_refuses_with_a_hint() -> None:
    async def body(lane: Lane) -> Refusal:
        for _ in range(2):
            lane.submit(call(1))
        with pytest.raises(Refusal, match=r"Too busy: 2 requests wait already, of at most 2 \(--queue\)") as told:
            lane.submit(call(1))
        return told.value

    refusal = run(Engine(), body, queue=2)
    assert refusal.status.http == 429
    assert refusal.status.grpc == "RESOURCE_EXHAUSTED"
    assert refusal.retry_after is not None


def test_request_that_would_come_too_late_is_refused_at_once() -> None:
    async def body(lane: Lane) -> Refusal:
        lane.load.pace.each = 0.01
        first = lane.submit(call(100))
        with pytest.raises(Refusal, match="1,000 ms of work are ahead of it, and it may wait 500 ms") as told:
            lane.submit(call(1))
        await first.answer
        return told.value

    assert run(Engine(), body, deadline_ms=500).retry_after == pytest.approx(1.0)


def test_standing_queue_is_kept_short_and_a_burst_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane_module, "BURST_SECONDS", 0.1)
    engine = Engine(seconds=0.05)

    async def body(lane: Lane) -> Refusal:
        first = lane.submit(call(1))
        await asyncio.sleep(0.01)  # it runs
        lane.load.pace.each = 0.05
        waits = [lane.submit(call(1)) for _ in range(9)]  # 0.5 s of work: all at once are taken
        while not lane._stands():
            await asyncio.sleep(0.01)
        words = r"more comes than can be answered; \d+ ms of work .* 100 \(--standing-ms\)"
        with pytest.raises(Refusal, match=words) as told:
            lane.submit(call(1))
        for one in (first, *waits):
            assert isinstance(await one.answer, np.ndarray)
        assert isinstance(await lane.submit(call(1)).answer, np.ndarray)
        return told.value

    limits = {"standing_ms": 100, "batch_requests": 1}
    assert run(engine, body, inline=False, **limits).status.http == 429


def test_joined_call_ends_where_it_would_take_too_long() -> None:
    engine = Engine()

    async def body(lane: Lane) -> list[int]:
        lane.load.engine.each = lane_module.BATCH_SECONDS / 10
        return await lengths(lane, [6, 3, 5, 4])

    assert run(engine, body) == [6, 3, 5, 4]
    assert engine.batches[0] == [6, 3]


def test_slow_start_of_calls_makes_no_queue_look_endless() -> None:
    async def body(lane: Lane) -> float:
        lane.load.engine.note(3_000, 0.02)
        lane.load.engine.each, lane.load.pace.start = 500.0, 0.002  # two rows fit into a joined call
        tickets = [lane.submit(call(3_000)) for _ in range(2)]
        ahead = lane.ahead
        for one in tickets:
            await one.answer
        return ahead

    assert run(Engine(), body) == pytest.approx(2 * 0.002)


def test_request_that_waited_too_long_is_not_scored() -> None:
    engine = Engine(seconds=0.1)

    async def body(lane: Lane) -> Any:
        first = lane.submit(call(1))
        await asyncio.sleep(0.02)
        late = lane.submit(call(2), seconds=0.03)
        await first.answer
        return await late.answer

    refusal = run(engine, body, inline=False)
    assert refusal.kind == "expired"
    assert "longer than it may, and was not scored" in str(refusal)
    assert engine.batches == [[1]]


def test_caller_that_gave_up_is_not_scored() -> None:
    engine = Engine()

    async def body(lane: Lane) -> None:
        gone, stays = lane.submit(call(1)), lane.submit(call(2))
        gone.answer.cancel()
        await stays.answer

    run(engine, body)
    assert engine.batches == [[2]]


def test_load_is_zero_when_all_is_answered() -> None:
    async def body(lane: Lane) -> tuple[int, int, int]:
        await lengths(lane, [5, 7])
        return lane.load.waiting_candidates, lane.load.running_candidates, lane.waiting

    assert run(Engine(), body) == (0, 0, 0)


def test_closed_lane_refuses_what_waits() -> None:
    async def body(lane: Lane) -> Any:
        waits = lane.submit(call(1))
        lane.close()
        return await waits.answer

    assert run(Engine(), body).kind == "draining"


def test_requests_of_one_moment_count_before_they_are_read() -> None:
    async def body(lane: Lane) -> None:
        lane.expect()
        assert lane.takes(1.0)
        lane.expect()
        assert not lane.takes(1.0)
        refusal = lane.refusal(1.0)
        assert refusal is not None
        assert "2 requests wait already, of at most 2" in str(refusal)
        await asyncio.sleep(0)
        assert lane.takes(1.0)

    run(Engine(), body, queue=2)

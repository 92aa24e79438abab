"""The queue before one model: requests that wait are joined, those that waited too long are not run, more are refused.

With a wait of 0, what stands in the queue when the engine gets free is scored together: no request waits for others to
come, and under load batches grow by themselves.

A queue has two uses. After a stall, or when many come at once, it holds what will be answered a little later, and
should be long. Where more comes than can be answered it is full all the time, and all that its length gives is that
everyone waits: then it should be short. Which of the two it is, is told by whether it was empty lately.

Source: Nichols and Jacobson, Controlling Queue Delay, ACM Queue 10(5), 2012; Maurer, Fail at Scale, ACM Queue 13(8),
2015.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from flyweight.errors import FlyweightError
from flyweight.serving.call import Call
from flyweight.serving.pace import Pace
from flyweight.serving.refusal import Refusal, refusal_of
from flyweight.serving.scoring import Outcome

#: Seconds of one call up to which it runs between two turns of the event loop: handing it to a thread costs more.
INLINE_SECONDS = 0.003
#: Seconds that the candidates of a joined call may take: where they take longer, joining gains nothing, and all of it
#: wait for the last.
BATCH_SECONDS = 0.002
#: Seconds that a queue may stand without being empty before it counts as one that more comes to than is answered.
BURST_SECONDS = 3.0


@dataclass(frozen=True)
class Limits:
    """What a lane holds and how long.

    Args:
        batch_candidates, batch_requests: of one joined call; a call that is larger alone runs alone.
        wait_us: microseconds that a request waits for others to join; 0 takes what is there.
        queue: requests that may wait, after a stall or when many come at once.
        deadline_ms: milliseconds after which a waiting request is not run any more.
        standing_ms: milliseconds of work that may wait in a queue that has not been empty for three seconds, beside one
            batch of requests.
    """

    batch_candidates: int = 4096
    batch_requests: int = 32
    wait_us: int = 0
    queue: int = 1024
    deadline_ms: float = 1000.0
    standing_ms: float = 50.0


@dataclass(slots=True)
class Ticket:
    """A call in a lane and what became of it.

    Args:
        call: what is to be scored.
        due: `time.monotonic()` after which it is not run.
        answer: resolved with the outcome.
        arrived, started, ended: `time.perf_counter()` of its way.
        batch: how many requests it was scored with, itself included.
    """

    call: Call
    due: float
    answer: "asyncio.Future[Outcome]"
    arrived: float
    started: float = 0.0
    ended: float = 0.0
    batch: int = 0


@dataclass
class Load:
    """How busy a lane is.

    Args:
        waiting_candidates, running_candidates: what waits and what runs.
        engine: how long calls take in the engine.
        pace: how long they take of the worker's time, with all that it does between two of them.
    """

    waiting_candidates: int = 0
    running_candidates: int = 0
    engine: Pace = field(default_factory=Pace)
    pace: Pace = field(default_factory=Pace)

    def seconds(self, calls: float) -> float:
        """Return how long what is there will take in so many calls."""
        return self.pace.seconds(self.waiting_candidates + self.running_candidates, calls)


class Lane:
    """The queue of one model in one process; all its methods are called on the event loop's thread.

    Args:
        score: scores calls of one kind together; it must not raise.
        limits: of the queue.
        inline: whether it runs on the event loop's own thread; else on one of its own.
    """

    def __init__(self, score: Callable[[Sequence[Call]], list[Outcome]], limits: Limits, *, inline: bool) -> None:
        self.limits = limits
        self.load = Load()
        self.turn = 0  # how often something was taken out of the queue
        self._score = score
        self._queue: deque[Ticket] = deque()
        self._armed: asyncio.Handle | None = None
        self._running = 0
        self._since = self._ended = 0.0  # when something came to an empty queue; when the last batch was done
        self._thread = None if inline else ThreadPoolExecutor(1, "flyweight-engine")
        self._expected = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def waiting(self) -> int:
        """How many calls wait."""
        return len(self._queue)

    @property
    def ahead(self) -> float:
        """Seconds that what runs and waits will take."""
        load, waiting = self.load, len(self._queue)
        by_rows = load.waiting_candidates / max(self._most_rows(), 1.0)
        calls = min(max(waiting / self.limits.batch_requests, by_rows), waiting)
        return load.seconds(calls + (self._running > 0))

    def _most_rows(self) -> float:
        """Return how many candidates are joined at most."""
        return min(self.limits.batch_candidates, self.load.engine.rows_in(BATCH_SECONDS))

    def submit(self, call: Call, seconds: float | None = None) -> Ticket:
        """Put a call into the queue; its `answer` is an array of scores or an error.

        Args:
            seconds: within which it must have started, if that is less than the lane's own limit.

        Raises:
            Refusal: the queue is full, or what is in it takes longer than the call may wait.
        """
        limit = self.limits.deadline_ms / 1e3
        allowed = limit if seconds is None else min(seconds, limit)
        refusal = self.refusal(allowed)
        if refusal is not None:
            raise refusal
        loop, now = asyncio.get_running_loop(), time.monotonic()
        if not self._queue:
            self._since = now
        ticket = Ticket(call, now + allowed, loop.create_future(), time.perf_counter())
        self._queue.append(ticket)
        self.load.waiting_candidates += call.rows
        self._idle.clear()
        self._arm(loop)
        return ticket

    def expect(self) -> None:
        """Note a request that will be handed in when what has come at this moment is read.

        Hundreds may come in one turn of the event loop, before the first of them stands in the queue: without this
        all of them would be read, and most then refused.
        """
        if not self._expected:
            asyncio.get_running_loop().call_soon(self._forget)  # before those that it notes are read
        self._expected += 1

    def _forget(self) -> None:
        self._expected = 0

    async def drain(self) -> None:
        """Return when every call in the queue has its answer."""
        await self._idle.wait()

    def close(self) -> None:
        """End the lane's thread; calls that still wait are refused."""
        while self._queue:
            refusal = Refusal("The model was unloaded; send the request again.", "draining", 1.0)
            self._resolve(self._queue.popleft(), refusal)
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)

    def takes(self, allowed: float) -> bool:
        """Return whether a call that may wait so many seconds would be taken now."""
        if len(self._queue) + self._expected >= self.limits.queue:
            return False
        ahead = self.ahead
        return ahead <= allowed and (ahead <= self.limits.standing_ms / 1e3 or not self._stands())

    def _stands(self) -> bool:
        """Return whether more comes than is answered; a batch may always wait, however long it takes."""
        waiting = len(self._queue)
        return waiting >= self.limits.batch_requests and time.monotonic() - self._since > BURST_SECONDS

    def refusal(self, allowed: float) -> Refusal | None:
        """Return why a call that may wait so many seconds would be refused now, None where it would not."""
        if self.takes(allowed):
            return None
        ahead, waiting, limits = self.ahead, len(self._queue) + self._expected, self.limits
        if ahead > allowed:
            why = f"{ahead * 1e3:,.0f} ms of work are ahead of it, and it may wait {allowed * 1e3:,.0f} ms"
        elif waiting >= limits.queue:
            who = "1 request waits" if waiting == 1 else f"{waiting:,} requests wait"
            why = f"{who} already, of at most {limits.queue:,} (--queue)"
        else:
            why = (
                f"more comes than can be answered; {ahead * 1e3:,.0f} ms of work are ahead of it, of at most "
                f"{limits.standing_ms:,.0f} (--standing-ms)"
            )
        return Refusal(f"Too busy: {why}. Try again later.", "busy", max(ahead, 0.001))

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        """See to it that the queue is looked at: once whoever else sent something at this moment has been heard."""
        limits = self.limits
        full = len(self._queue) >= limits.batch_requests or self.load.waiting_candidates >= limits.batch_candidates
        if self._running:
            return
        if self._armed is None:
            self._armed = loop.call_soon(self._flush) if full or not limits.wait_us else loop.call_later(
                limits.wait_us / 1e6, self._flush
            )  # fmt: skip
        elif full and isinstance(self._armed, asyncio.TimerHandle):
            self._armed.cancel()
            self._armed = loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Score the next batch."""
        self._armed = None
        self.turn += 1
        batch = self._next_batch()
        if batch:
            self._running = len(batch)
            self.load.running_candidates = sum(ticket.call.rows for ticket in batch)
            calls = [ticket.call for ticket in batch]
            started = time.perf_counter()
            if self._thread is None:
                self._finish(batch, started, self._score(calls), time.perf_counter())
            else:
                self._start(batch, calls)
        elif not self._queue:
            self._idle.set()

    def _start(self, batch: list[Ticket], calls: list[Call]) -> None:
        loop = asyncio.get_running_loop()

        def work() -> None:
            started = time.perf_counter()
            outcomes = self._score(calls)
            ended = time.perf_counter()
            loop.call_soon_threadsafe(self._finish, batch, started, outcomes, ended)

        assert self._thread is not None
        self._thread.submit(work)

    def _finish(self, batch: list[Ticket], started: float, outcomes: list[Outcome], ended: float) -> None:
        rows = self.load.running_candidates
        self._running = self.load.running_candidates = 0
        # Where this batch waited for the one before, the time between the two is a part of what a candidate takes.
        waited = batch[0].arrived < self._ended
        begun, self._ended = self._ended if waited else started, time.perf_counter()
        self.load.pace.note(rows, self._ended - begun)
        self.load.engine.note(rows, ended - started)
        for ticket, outcome in zip(batch, outcomes, strict=True):
            ticket.started, ticket.ended, ticket.batch = started, ended, len(batch)
            self._resolve(ticket, outcome)
        if self._queue:
            self._armed = asyncio.get_running_loop().call_soon(self._flush)
        else:
            self._idle.set()

    def _next_batch(self) -> list[Ticket]:
        """Take the oldest call that is still in time, and those behind it that can be joined to it, in their order."""
        batch: list[Ticket] = []
        left: deque[Ticket] = deque()
        rows, now, queue, limits = 0, time.monotonic(), self._queue, self.limits
        most = self._most_rows()
        while queue:
            ticket = queue.popleft()
            if ticket.answer.done() or now > ticket.due:  # its caller has gone, or waited too long
                self._expire(ticket)
                continue
            kind, size = ticket.call.kind, rows + ticket.call.rows
            joins = not batch or (kind is not None and kind == batch[0].call.kind and size <= most)
            if not joins:
                left.append(ticket)
                if len(left) >= limits.batch_requests:
                    break
                continue
            batch.append(ticket)
            rows = size
            if rows >= most or len(batch) >= limits.batch_requests:
                break
        queue.extendleft(reversed(left))
        self.load.waiting_candidates -= rows
        return batch

    def _expire(self, ticket: Ticket) -> None:
        self.load.waiting_candidates -= ticket.call.rows
        waited = (time.perf_counter() - ticket.arrived) * 1e3
        message = f"The request waited {waited:,.0f} ms, longer than it may, and was not scored. Try again later."
        self._resolve(ticket, Refusal(message, "expired", max(self.ahead, 0.001)))

    def _resolve(self, ticket: Ticket, outcome: Outcome) -> None:
        if not ticket.answer.done():
            ticket.answer.set_result(refusal_of(outcome) if isinstance(outcome, FlyweightError) else outcome)

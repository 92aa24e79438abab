"""Scoring with a second version what the first has answered, and comparing: after the answer, beside it, or not at all.

The answer is on its way before the shadow begins. The shadow scores on a thread of its own, one call at a time, and
only while nothing waits for the version that answers: what cannot be compared then is counted as shed. The thread keeps
its priority: one of lower priority that holds the interpreter's lock would hold up the answers when processors are
short.
"""

import asyncio
import logging
import random
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from flyweight.errors import FlyweightError
from flyweight.serving.agreement_of_scores import Difference, compare_scores
from flyweight.serving.call import Call
from flyweight.serving.drift import Drift
from flyweight.serving.lane import Lane
from flyweight.serving.rollout import Shadow
from flyweight.serving.scoring import score_call
from flyweight.serving.served import Served

logger = logging.getLogger("flyweight.serving")
#: Answered calls that may wait for the shadow; each keeps its tensors in memory.
DEPTH = 8


@dataclass(frozen=True, slots=True)
class Pending:
    """An answered call that the shadow is to score.

    Args:
        call: what was scored.
        scores: what was answered.
        lane: the queue of the version that answered.
    """

    call: Call
    scores: NDArray[Any]
    lane: Lane


class Shadowing:
    """The shadow of one model in one process; its methods are called on the event loop's thread.

    Args:
        shadow: which part of the calls, and how they are compared.
        served: the version that is the shadow.
    """

    def __init__(self, shadow: Shadow, served: Served) -> None:
        self.shadow = shadow
        self.drift = Drift()
        self._served = served
        self._pending: deque[Pending] = deque()
        self._runs: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, "flyweight-shadow")

    def offer(self, call: Call, scores: NDArray[Any], lane: Lane) -> None:
        """Take an answered call for comparing, where it is drawn and there is room."""
        if self.shadow.percent < 100 and random.random() * 100 >= self.shadow.percent:
            return
        if len(self._pending) >= DEPTH or lane.waiting:
            self.drift.shed += 1
            return
        self._pending.append(Pending(call, scores, lane))
        if self._runs is None:
            self._runs = asyncio.get_running_loop().create_task(self._run())

    async def settle(self) -> None:
        """Return when nothing is under way."""
        while self._runs is not None:
            await asyncio.shield(self._runs)

    async def stop(self) -> None:
        """Compare no more; returns when the shadow's engine is at rest."""
        self._pending.clear()
        await self.settle()
        self._thread.shutdown(wait=False)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._pending:
                pending = self._pending.popleft()
                if pending.lane.waiting:
                    self.drift.shed += 1
                    await asyncio.sleep(0)
                    continue
                outcome = await loop.run_in_executor(self._thread, self._compare, pending)
                if isinstance(outcome, Difference):
                    self.drift.add(outcome)
                else:
                    self.drift.fail(outcome)
        finally:
            self._runs = None

    def _compare(self, pending: Pending) -> Difference | str:
        """Return how the shadow's scores differ, or why it has none."""
        call = pending.call
        try:
            scores = score_call(self._served.opened.ranker, call)
            ranks = bool(call.offered) and call.kind is not None
            return compare_scores(pending.scores, scores, call.offsets, self.shadow.top, ranks=ranks)
        except (FlyweightError, ValueError) as error:
            return str(error)
        except Exception as error:  # whatever an engine raises, the answers go on
            logger.exception("The shadow failed")
            return f"{type(error).__name__}: {error}"

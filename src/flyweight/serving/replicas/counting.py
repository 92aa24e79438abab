"""Adding up what all replicas counted: one actor holds each one's last counts, whichever replica is asked for the sum.

A replica cannot ask the others: Ray hands a call to whichever is free. So each tells its counts every second, and those
that ended stay in what only grows, as with workers (`gathering`).
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from flyweight.serving.gathering import EMPTY, Snapshot, added
from flyweight.serving.refusal import Refusal

logger = logging.getLogger("flyweight.serving")
#: The actor's name, and the namespace that it is found in from any job of the cluster.
NAME, NAMESPACE = "flyweight-counting", "flyweight"
#: Seconds between two tellings of a replica; until one that is silent is no more; until its counts lose its name; and
#: until the actor, told nothing by anyone, ends.
TELL_SECONDS, GONE_SECONDS, FORGOTTEN_SECONDS, ALONE_SECONDS = 1.0, 10.0, 600.0, 600.0
#: Seconds that a replica waits for the sum, fewer than what scrapes it.
ANSWER_SECONDS = 5.0


class Counting:
    """The sum over replicas.

    Args:
        clock: seconds, for tests.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: dict[str, tuple[float, Snapshot]] = {}
        self._forgotten: dict[str, Any] = {}
        self._told = clock()

    def note(self, replica: str, snapshot: Snapshot) -> None:
        """Take a replica's counts."""
        self._told = self._clock()
        self._last[replica] = self._told, snapshot

    def total(self, replica: str, snapshot: Snapshot) -> Snapshot:
        """Take a replica's counts and return the sum over all; of those that ended, what only grows."""
        self.note(replica, snapshot)
        self._forget()
        total: Snapshot = {**EMPTY, "lasting": self._forgotten}
        for since, one in self._last.values():
            gone = self._told - since > GONE_SECONDS
            total = added(total, {**EMPTY, "lasting": one["lasting"]} if gone else one)
        return total

    @property
    def alone(self) -> bool:
        """Whether no replica has told anything for so long that there is none any more."""
        return self._clock() - self._told > ALONE_SECONDS

    def _forget(self) -> None:
        """Add up those that ended long ago, so that memory does not grow with replicas that come and go."""
        for replica, (since, one) in list(self._last.items()):
            if self._told - since > FORGOTTEN_SECONDS:
                self._forgotten = added(self._forgotten, one["lasting"])
                del self._last[replica]


class CountingActor:
    """The sum as an actor of Ray, which ends by itself when there are no replicas any more."""

    def __init__(self) -> None:
        self._counting = Counting()
        self._ending: asyncio.Task[None] | None = None

    async def note(self, replica: str, snapshot: Snapshot) -> None:
        """Take a replica's counts."""
        if self._ending is None:
            self._ending = asyncio.create_task(self._end_alone())
        self._counting.note(replica, snapshot)

    async def total(self, replica: str, snapshot: Snapshot) -> Snapshot:
        """Take a replica's counts and return the sum over all."""
        return self._counting.total(replica, snapshot)

    async def _end_alone(self) -> None:
        while not self._counting.alone:
            await asyncio.sleep(GONE_SECONDS)
        import ray

        ray.actor.exit_actor()


def counting_actor() -> Any:
    """Return the cluster's one actor; made where it is not there, on the head, which the cluster cannot lose anyhow."""
    import ray

    made = ray.remote(CountingActor).options(
        name=NAME,
        namespace=NAMESPACE,
        lifetime="detached",
        get_if_exists=True,
        num_cpus=0,
        max_restarts=-1,
        resources={"node:__internal_head__": 0.001},
    )
    return made.remote()


def end_counting() -> None:
    """End the actor, if it is there."""
    import ray

    try:
        ray.kill(ray.get_actor(NAME, NAMESPACE))
    except ValueError:  # Ray's word for a name that it does not know
        return


class Telling:
    """What one replica tells the actor.

    Args:
        replica: its name.
        node: the address of its node.
        snapshot: gives its counts.
        find: `counting_actor`, or what stands for it.
    """

    def __init__(
        self, replica: str, node: str, snapshot: Callable[[], Awaitable[Snapshot]], find: Callable[[], Any]
    ) -> None:
        self._replica, self._node = replica, node
        self._snapshot = snapshot
        self._find = find
        self._actor: Any = None
        self._telling = asyncio.create_task(self._tell())

    async def total(self) -> Snapshot:
        """Return the sum over all replicas.

        Raises:
            Refusal: it is not to be had now. Any other number would be less, and seen as counters that began anew.
        """
        found = await self._ask("total", await self._own())
        if found is None:
            raise Refusal("The counts of all replicas are not to be had at this moment; ask again.", "draining", 1.0)
        return found

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(TELL_SECONDS)
            await self._ask("note", await self._own())

    async def _own(self) -> Snapshot:
        told = await self._snapshot()
        return {**told, "now": {**told["now"], "nodes": {self._node: 1}}}

    async def _ask(self, verb: str, own: Snapshot) -> Snapshot | None:
        """Return what the actor answers, None where it does not; each telling holds all that those before it did."""
        try:
            if self._actor is None:
                self._actor = self._find()
            async with asyncio.timeout(ANSWER_SECONDS):
                found: Snapshot | None = await getattr(self._actor, verb).remote(self._replica, own)
                return found
        except Exception as error:  # Ray raises what it likes: for a dead actor, one that is starting, a lost node
            self._actor = None
            logger.warning("The actor that adds up counts does not answer (%s).", type(error).__name__)
            return None

"""A ranker whose large tables lie with servers: the same calls, the same scores."""

import threading
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

from numpy.typing import NDArray

from flyweight.bundle.ranker import Ranker
from flyweight.bundle.shards.asking import Asking
from flyweight.bundle.shards.client import Client, Due, WrongShardError
from flyweight.bundle.shards.gather import Gather
from flyweight.bundle.shards.read import Front
from flyweight.engines.engine import Prepared
from flyweight.errors import InputError, ShardError

Missing = Literal["refuse", "degrade"]
Arrays = dict[str, NDArray[Any]]


class Joined:
    """A front's model with its lookups: takes what the bundle's own graph took.

    Args:
        front: of the sharded bundle.
        prepared: its model in an engine.
        gather: the shards.
    """

    def __init__(self, front: Front, prepared: Prepared, gather: Gather) -> None:
        self._front = front
        self._prepared = prepared
        self._gather = gather
        self._asking = Asking(front.lookups, [one.places for one in front.plan.lookups])
        self._rows = [one.rows for one in front.plan.lookups]
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._here = threading.local()

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the inputs, in the manifest's order."""
        return self._front.bundle.graph.inputs

    def run(self, inputs: Arrays) -> NDArray[Any]:
        """Return the scores of a batch.

        Raises:
            ShardError: a shard is away, and the ranker was loaded to refuse that.
            EngineError: the engine failed.
        """
        self._here.degraded = 0
        gathered = self._gather.rows(self._asking.places(inputs))
        own = {name: value for name, value in inputs.items() if name in self._front.taken}
        scores = self._prepared.run({**own, **dict(zip(self._rows, gathered.rows, strict=True))})
        if gathered.degraded:
            self._here.degraded = gathered.degraded.total()
            with self._lock:
                self._counts.update(gathered.degraded)
        return scores

    @property
    def shards(self) -> int:
        """How many there are."""
        return len(self._gather.clients)

    @property
    def degraded(self) -> dict[str, int]:
        """How many rows were stood in for, by table."""
        with self._lock:
            return dict(self._counts)

    @property
    def last_degraded(self) -> int:
        """How many in this thread's last call."""
        return int(getattr(self._here, "degraded", 0))

    @property
    def away(self) -> dict[int, str]:
        """Which shards are away, and why."""
        return {client.due.shard: why for client in self._gather.clients if (why := client.away) is not None}

    def close(self) -> None:
        """Free the engine's memory and end all connections."""
        self._prepared.close()
        self._asking.close()
        self._gather.close()


class ShardedRanker(Ranker):
    """A ranker over shards; see `Ranker` for its calls.

    Args:
        front: of the sharded bundle.
        joined: its model and its shards.
        engine: the engine's name.
    """

    def __init__(self, front: Front, joined: Joined, engine: str) -> None:
        super().__init__(front.bundle, joined, engine)
        self._joined = joined

    @property
    def shards(self) -> int:
        """How many there are."""
        return self._joined.shards

    @property
    def degraded(self) -> dict[str, int]:
        """How many rows, by table, a stand-in was scored for since loading, as their shard was away."""
        return self._joined.degraded

    @property
    def last_degraded(self) -> int:
        """How many rows a stand-in was scored for in the last call of this thread; 0: the scores are exact."""
        return self._joined.last_degraded

    @property
    def away(self) -> dict[int, str]:
        """Which shards are away now, and why; those that come back leave it by themselves."""
        return self._joined.away


def join_shards(
    front: Front, prepared: Prepared, engine: str, addresses: Sequence[str], missing: Missing, timeout: float
) -> ShardedRanker:
    """Connect a front to its shards.

    Raises:
        ShardError: a shard is away and `missing` is "refuse"; another shard is served at an address.
    """
    plan = front.plan
    clients = [
        Client(Due(front.hash, shard, plan.shards, plan.files[shard].sha256), address, timeout)
        for shard, address in enumerate(addresses)
    ]
    gather = Gather(plan, clients, timeout, degrade=missing == "degrade")
    try:
        for client in clients:
            _reach(client, timeout, missing)
        return ShardedRanker(front, Joined(front, prepared, gather), engine)
    except BaseException:
        gather.close()
        prepared.close()
        raise


def check_servers(front: Front, addresses: object, missing: str, timeout: float) -> None:
    """Check what a caller says of the servers of a sharded bundle.

    Raises:
        InputError: there are more or fewer addresses than shards, one stands twice, or a setting is unknown.
    """
    shards = front.plan.shards
    if missing not in ("refuse", "degrade"):
        raise InputError(f"missing must be 'refuse' or 'degrade'; seen {missing!r}.")
    if not 0 < timeout < float("inf"):
        raise InputError(f"timeout is in seconds, above 0; seen {timeout!r}.")
    if isinstance(addresses, str) or not isinstance(addresses, Sequence) or len(addresses) != shards:
        seen = f"{len(addresses)}: {list(addresses)}" if isinstance(addresses, (list, tuple)) else repr(addresses)
        raise InputError(
            f"{front.bundle.path} has {shards} shards: give their addresses in order, shards=['host:port', ...] "
            f"(--shard HOST:PORT, once for each); seen {seen}."
        )
    twice = sorted(address for address, times in Counter(addresses).items() if times > 1)
    if twice:
        raise InputError(f"The address {twice[0]} stands for two shards; each has a server of its own.")


def _reach(client: Client, timeout: float, missing: Missing) -> None:
    try:
        client.give(client.take(time.monotonic() + timeout))
    except WrongShardError:
        raise
    except ShardError as error:
        if missing == "refuse":
            raise
        warnings.warn(f"{error} It is stood in for until it answers.", stacklevel=5)

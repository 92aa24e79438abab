"""Ranks of one group on the nodes of a Ray cluster: an actor each, which meet at the first one's address over gloo.

Ray Train would do the same, but keeps checkpoints on a file system that all nodes share. Here the driver fetches the
first rank's checkpoint as bytes while it trains, and hands it to all when they begin again.
"""

import os
import shutil
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flyweight.distillation.checkpoint import write_checkpoint_bytes
from flyweight.errors import EngineError, InputError
from flyweight.parallel.launch import RankLostError, joined

#: Seconds between two looks at the first rank's checkpoint, until every rank must have a core, and for which the end of
#: the others is waited for once one has failed.
LOOK, PLACED, OTHERS = 1.0, 120.0, 10.0


class _Rank:
    """One rank; Ray runs it in a process of its own, on whichever node has a core."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="flyweight-rank-")
        self._kept = Path(self._folder.name, "training")

    def place(self) -> tuple[str, str, str]:
        """Return where the others can meet this one, its node, and its folder there."""
        import ray

        host = ray.util.get_node_ip_address()
        with socket.socket() as one:
            one.bind(("", 0))
            meeting = f"tcp://{host}:{one.getsockname()[1]}"
        return meeting, ray.get_runtime_context().get_node_id(), self._folder.name

    def checkpoint(self, known: int) -> tuple[int, bytes] | None:
        """Return the checkpoint and the time it was written, unless it is the one that is known."""
        if not self._kept.exists() or self._kept.stat().st_mtime_ns == known:
            return None
        return self._kept.stat().st_mtime_ns, self._kept.read_bytes()

    def run(
        self, work: Callable[[Path], bytes], rank: int, ranks: int, meeting: str, start: bytes | None
    ) -> tuple[bytes, bytes] | None:
        """Join the others and work; the first returns what came of it, and the last checkpoint."""
        import torch

        torch.set_num_threads(1)
        if meeting.startswith(("tcp://127.", "tcp://localhost")):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        if start is not None:
            self._kept.write_bytes(start)
        try:
            with joined(rank, ranks, meeting, gpus=False):
                found = work(self._kept)
            return None if rank else (found, self._kept.read_bytes())
        finally:
            self._folder.cleanup()


def run_on_cluster(work: Callable[[Path], bytes], ranks: int, kept: Path) -> bytes:
    """Run a function in as many ranks, and return what the first made.

    Args:
        work: is given the file to take checkpoints from, and to write them to.
        kept: where the last one is kept on this machine.

    Raises:
        RankLostError: one was killed, or its node.
        EngineError: one failed; with its traceback.
        InputError: the cluster has fewer free cores than ranks.
    """
    import ray

    actor = ray.remote(num_cpus=1, max_restarts=0, max_concurrency=2, scheduling_strategy="SPREAD")(_Rank)
    actors = [actor.remote() for _ in range(ranks)]
    places: list[tuple[str, str, str]] = []
    try:
        placed = [one.place.remote() for one in actors]
        done, waiting = ray.wait(placed, num_returns=ranks, timeout=PLACED)
        if waiting:
            raise InputError(
                f"{ranks} ranks need a core each, and the cluster had only {len(done)} free for {PLACED:.0f} s; ask "
                "for fewer, or wait until others are done."
            )
        start = kept.read_bytes() if kept.exists() else None
        places += ray.get(placed)
        meeting = places[0][0]
        sent = ray.put(work), ray.put(start)
        runs = [one.run.remote(sent[0], rank, ranks, meeting, sent[1]) for rank, one in enumerate(actors)]
        return _watched(actors[0], runs, kept)
    finally:
        for one in actors:
            ray.kill(one)
        _clear(places)


def _clear(places: list[tuple[str, str, str]]) -> None:
    """Remove the folders of ranks that were killed, each on its node; a node that is gone took its own along."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(num_cpus=0, max_retries=0)(_remove)
    on = [(NodeAffinitySchedulingStrategy(node, soft=False), folder) for _, node, folder in places]
    asked = [task.options(scheduling_strategy=node).remote(folder) for node, folder in on]
    if asked:
        ray.wait(asked, num_returns=len(asked), timeout=OTHERS)


def _remove(folder: str) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _watched(first: Any, runs: list[Any], kept: Path) -> bytes:
    """Wait for all ranks, and keep the first one's checkpoint meanwhile."""
    import ray

    left, known = list(runs), 0
    while left:
        done, left = ray.wait(left, num_returns=1, timeout=LOOK)
        for one in done:
            _check(one, left)
        try:
            new = ray.get(first.checkpoint.remote(known), timeout=60) if runs[0] in left else None
        except ray.exceptions.RayError:  # it is gone; its run will say so
            new = None
        if new is not None:
            known = new[0]
            write_checkpoint_bytes(kept, new[1])
    found: tuple[bytes, bytes] = ray.get(runs[0])
    write_checkpoint_bytes(kept, found[1])
    return found[0]


def _check(one: Any, others: list[Any]) -> None:
    """Raise what a rank failed of: the death of another, where that is why.

    Raises:
        RankLostError, EngineError.
    """
    import ray

    try:
        ray.get(one)
    except ray.exceptions.RayActorError as error:
        raise _lost(error) from error
    except ray.exceptions.RayTaskError as error:
        for other in ray.wait(others, num_returns=len(others), timeout=OTHERS)[0] if others else ():
            try:
                ray.get(other)
            except ray.exceptions.RayActorError as killed:
                raise _lost(killed) from killed
            except ray.exceptions.RayTaskError:  # it waited too
                continue
        if isinstance(error.cause, InputError):
            raise error.cause from error
        raise EngineError(f"A rank failed; the others were stopped.\n{error}") from error


def _lost(error: Exception) -> RankLostError:
    first = str(error).strip().splitlines()[0]
    return RankLostError(f"A rank was killed, probably for want of memory; the others were stopped ({first}).")

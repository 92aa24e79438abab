"""A function run on many values by the workers of a Ray cluster, one value a task.

Ray gives a task whose worker or node died to another. What all tasks share is put into the object store once.
"""

import sys
import sysconfig
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from flyweight.errors import EngineError
from flyweight.task.progress import teller
from flyweight.task.runner import RETRIES, Done, WorkerLostError, pickled

G = TypeVar("G")
R = TypeVar("R")
#: Seconds without any result after which it is looked whether the cluster has a core free, and told if not.
QUIET = 30.0


@dataclass(frozen=True)
class RayTasks:
    """The workers of a cluster that this process is connected to.

    Args:
        workers: values worked on at once, a core each.
        address: of the cluster.
    """

    workers: int
    address: str
    local: bool = False

    def packed(self, value: Any) -> bytes:
        """Return a value as bytes; classes of the user's own files go with it, which other nodes may not have."""
        import ray.cloudpickle as cloudpickle

        own = own_modules()
        for module in own:
            cloudpickle.register_pickle_by_value(module)
        try:
            return pickled(value, cloudpickle.dumps)
        finally:
            for module in own:
                cloudpickle.unregister_pickle_by_value(module)

    def each(
        self, work: Callable[[G], R], given: Iterable[G], *, most: int | None = None, retries: int = RETRIES
    ) -> Generator[Done[G, R], None, None]:
        """Yield each value with what came of it, as they come.

        Raises:
            EngineError: the cluster went away.
        """
        import ray

        task = ray.remote(num_cpus=1, max_retries=retries)(_work)
        shared = ray.put(work)
        values, under_way = iter(given), dict[Any, G]()
        # One more for each waits at hand, unless cores that were not asked for would take it at once.
        every = self.workers >= ray.cluster_resources().get("CPU", 0)
        most = most or (2 * self.workers if every else self.workers)
        try:
            while True:
                while len(under_way) < most:
                    try:
                        one = next(values)
                    except StopIteration:
                        break
                    under_way[task.remote(shared, one)] = one
                if not under_way:
                    return
                for ref in _some_done(list(under_way), self.address):
                    yield under_way.pop(ref), _outcome(ref, retries)
        except (ConnectionError, ray.exceptions.RaySystemError) as error:
            raise EngineError(
                f"The cluster at {self.address} went away ({error}). What was done stays; begin again once it is back."
            ) from error
        finally:
            for ref in under_way:  # one failed, or the user stopped it
                ray.cancel(ref, force=True)


def own_modules() -> list[ModuleType]:
    """Return the modules of the user's own: single files that no package manager has installed."""
    installed = [Path(sysconfig.get_path(one)).resolve() for one in ("stdlib", "purelib", "platlib")]
    found = []
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file is None or "." in name or name == "__main__" or hasattr(module, "__path__"):
            continue
        if not any(Path(file).resolve().is_relative_to(folder) for folder in installed):
            found.append(module)
    return found


def _some_done(refs: list[Any], address: str) -> list[Any]:
    """Wait for a result; say once that none comes where every core is taken."""
    import ray

    told = False
    while True:
        done, _ = ray.wait(refs, num_returns=1, timeout=QUIET)
        if done:
            return list(done)
        if not told and ray.available_resources().get("CPU", 0.0) < 1:
            told = True
            teller()(f"No result for {QUIET:.0f} s: every core of {address} is taken, by this work or by others'.")


def _work(work: Callable[[Any], Any], one: Any) -> Any:
    """Work on one value: what Ray runs on a worker."""
    import torch

    torch.set_num_threads(1)
    return work(one)


def _outcome(ref: Any, retries: int) -> "Future[Any]":
    """Return what came of a task as a future that is done."""
    import ray

    done: Future[Any] = Future()
    try:
        done.set_result(ray.get(ref))
    except ray.exceptions.RayTaskError as error:  # it threw: as if it had been run here
        done.set_exception(error.cause if isinstance(error.cause, Exception) else error)
    except (
        ray.exceptions.WorkerCrashedError,
        ray.exceptions.NodeDiedError,
        ray.exceptions.OutOfMemoryError,
        ray.exceptions.ObjectLostError,
        ray.exceptions.LocalRayletDiedError,
    ) as error:
        first = str(error).strip().splitlines()[0]
        done.set_exception(
            WorkerLostError(
                f"The worker that had it died {retries + 1} times, probably for want of memory ({first}). What was done"
                " stays, and the same call goes on."
            )
        )
    return done

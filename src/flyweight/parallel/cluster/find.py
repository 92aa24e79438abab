"""What `--cluster` names: processes of this machine, or the workers of a Ray cluster, checked before any work."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flyweight.cost.hardware import allowed_cores
from flyweight.errors import InputError
from flyweight.parallel.cluster.join import NotLetInError, before_ray, join_in_time
from flyweight.parallel.cluster.ray_tasks import RayTasks
from flyweight.parallel.cluster.versions import check_versions
from flyweight.task.processes import Processes
from flyweight.task.progress import teller
from flyweight.task.runner import Here, Runner

#: Seconds until a cluster must have answered, and until it must have let this process in.
ANSWER, JOIN = 5.0, 60.0
#: The name of no cluster, and that of whichever is found.
LOCAL, AUTO = "local", "auto"


@contextmanager
def find_cluster(name: str = AUTO, workers: int | None = None) -> Iterator[Runner]:
    """Connect to what a name stands for, and let go of it when the block ends.

    Args:
        name: "local" for processes of this machine; "auto" for the Ray cluster that `RAY_ADDRESS` names or that runs on
            this machine, and processes where there is none; "ray://host:port" for a cluster elsewhere; "host:port" for
            the one that this machine is a node of.
        workers: at once; None takes one for each core.

    Raises:
        InputError: no cluster answers there in time, it has no core, Ray is not installed, or versions differ; names
            them.

    Example:
        >>> with find_cluster("local", workers=2) as runner:
        ...     list(in_order(runner, math.factorial, range(4)))  # doctest: +SKIP
        [1, 1, 2, 6]
    """
    if workers is not None and workers < 1:
        raise InputError(f"workers must be at least 1; seen {workers}.")
    if name == LOCAL:
        yield _processes(workers)
        return
    address = (os.environ.get("RAY_ADDRESS") or AUTO) if name == AUTO else name  # set to nothing: not set
    if address != AUTO:
        _check_form(address)
    ray = _ray(needed=address != AUTO)
    if ray is None:
        teller()("Ray is not installed: this machine's processes do the work.")
        yield _processes(workers)
        return
    if address != AUTO:
        _check_answers(address)
    mine = not ray.is_initialized()
    if not mine:
        _check_same(ray, address)
    if mine and not _connect(ray, address):
        teller()("No Ray cluster runs here: this machine's processes do the work.")
        yield _processes(workers)
        return
    try:
        yield _tasks(ray, address, workers)
    finally:
        if mine:
            ray.shutdown()


def _processes(workers: int | None) -> Runner:
    count = workers or allowed_cores()
    return Processes(count) if count > 1 else Here()


def _tasks(ray: Any, address: str, workers: int | None) -> RayTasks:
    """Return the workers of the cluster that this process is connected to.

    Raises:
        InputError: it has no core, or other versions than this process.
    """
    cores = int(ray.cluster_resources().get("CPU", 0))
    if cores < 1:
        raise InputError(f"The cluster at {address} has no core to work with; add a node (`ray start --address=...`).")
    check_versions(address)
    return RayTasks(min(workers or cores, cores), address)


def _check_form(address: str) -> None:
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not host or not port.isdigit():
        raise InputError(
            f"--cluster {address!r} is unknown; use auto, local, ray://host:port (10001 unless changed), or host:port "
            "of the head of the cluster that this machine is a node of."
        )


def _ray(*, needed: bool) -> Any:
    """Return Ray; None where it is not installed and need not be.

    Raises:
        InputError: it is needed; says what installs it.
    """
    before_ray()
    try:
        import ray
    except ImportError as error:
        if needed:
            raise InputError(
                f"A Ray cluster needs Ray ({error}): pip install 'flyweight[ray]', or use --cluster local."
            ) from error
        return None
    return ray


def _connect(ray: Any, address: str) -> bool:
    """Join a cluster; return whether there is one where none was named.

    Raises:
        InputError: it does not answer, or will not have this process; with its reason.
    """
    try:
        join_in_time(ray, address, JOIN)
    except NotLetInError:
        raise InputError(
            f"The cluster at {address} answers, but has not let this process in after {JOIN:.0f} s. Is this machine one"
            " of its nodes? If not, name it as ray://host:10001."
        ) from None
    except Exception as error:  # Ray raises what it likes
        if address == AUTO and isinstance(error, ConnectionError):
            return False
        raise InputError(_in_words(address, error)) from error
    return True


def _check_answers(address: str) -> None:
    """Ask whether anything that could be Ray listens; Ray itself would wait for minutes, or forever.

    Raises:
        InputError: nothing does.
    """
    import grpc

    with grpc.insecure_channel(address.removeprefix("ray://")) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=ANSWER)
        except grpc.FutureTimeoutError:
            raise InputError(
                f"No Ray cluster answers at {address} within {ANSWER:.0f} s. Is it running (`ray status`), and its port"
                " open from here (10001 for ray://, 6379 otherwise)?"
            ) from None


def _check_same(ray: Any, address: str) -> None:
    """Refuse a cluster other than the one that this process has joined: Ray knows one at a time.

    Raises:
        InputError: with both addresses.
    """
    joined = ray.get_runtime_context().gcs_address
    host, _, port = address.rpartition(":")
    here = host in ("127.0.0.1", "localhost") and port == joined.rpartition(":")[2]  # Ray calls this machine otherwise
    if address != AUTO and not address.startswith("ray://") and address != joined and not here:
        raise InputError(f"This process has joined the cluster at {joined}; leave it (`ray.shutdown()`) for {address}.")


def _in_words(address: str, error: BaseException) -> str:
    said = " ".join(str(error).split())
    if "ersion" in said:  # Ray names both versions of itself and of Python
        return f"The cluster at {address} runs other versions than this process: {said}"
    return f"The cluster at {address} cannot be joined ({type(error).__name__}: {said[:500]})."

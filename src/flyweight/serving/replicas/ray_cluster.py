"""The Ray cluster that replicas run on: one that is there, joined within a time limit, or one of this machine alone."""

import contextlib
import importlib.util
import logging
import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flyweight.cost.hardware import allowed_cores
from flyweight.errors import EngineError, InputError
from flyweight.parallel.cluster.join import QUIET, NotLetInError, before_ray, join_in_time

#: Seconds until something must listen at a cluster's address, and until the cluster must have let this process in.
ANSWER_SECONDS, JOIN_SECONDS = 5.0, 30.0
#: The cluster that runs on this machine, whichever it is.
AUTO = "auto"
#: Bytes of Ray's own store; requests and scores do not go through it.
STORE_BYTES = 100_000_000
NEEDS = "Serving on Ray needs Ray with Serve ({}): pip install 'flyweight[ray]'"


@contextlib.contextmanager
def join_cluster(address: str | None) -> Iterator[None]:
    """Be connected to a cluster until the block ends.

    Args:
        address: "host:port" of the head of the cluster that this machine is a node of; "auto" for the one that runs on
            this machine; None for a new cluster of this machine, which ends with the block.

    Raises:
        InputError: Ray is not installed, or no cluster answers there in time, or it will not have this process.
    """
    require_ray()
    if address is None:
        with _own_cluster():
            yield
        return
    _check_form(address)
    ray = _import_ray()
    if address != AUTO:
        _check_listens(address)
    _connect(ray, address)
    try:
        yield
    finally:
        ray.shutdown()


def require_ray() -> None:
    """Refuse to go on without Ray, before anything else takes time.

    Raises:
        InputError: Ray is not installed; says what installs it.
    """
    if importlib.util.find_spec("ray") is None:
        raise InputError(NEEDS.format("No module named 'ray'"))


def _import_ray() -> Any:
    """Return Ray, told to send no statistics of its use.

    Raises:
        InputError: Ray Serve is not installed with it; says what installs it.
    """
    before_ray()
    try:
        import ray
        import ray.serve
    except ImportError as error:
        raise InputError(NEEDS.format(error)) from error
    logging.getLogger("ray.serve").setLevel(logging.ERROR)  # it tells of its own inside; what matters is told here
    return ray


@contextlib.contextmanager
def _own_cluster() -> Iterator[None]:
    folder = tempfile.mkdtemp(prefix="fw-ray-")  # a short name: sockets lie in it
    try:
        _guard(Path(folder))
        ray = _import_ray()
        try:
            ray.init(
                address="local",
                num_cpus=allowed_cores(),
                include_dashboard=False,
                object_store_memory=STORE_BYTES,
                _temp_dir=folder,
                **QUIET,
            )
        except Exception as error:  # Ray raises what it likes: RuntimeError, ValueError, errors of its own
            said = " ".join(str(error).split())[:500]
            raise EngineError(f"No Ray cluster could be started here ({type(error).__name__}: {said}).") from error
        try:
            yield
        finally:
            ray.shutdown()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _guard(folder: Path) -> None:
    """Let only who has a new secret into the cluster, unless the user has settled that otherwise.

    Ray's ports run what they are sent. Ray would keep a secret of its own making in the user's home, where it changes
    the clusters that are started later. Ray reads this when it is imported.
    """
    if any(name in os.environ for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")):
        return
    secret = folder / "token"
    secret.touch(mode=0o600)
    secret.write_text(secrets.token_hex(32))
    os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=str(secret))


def _check_form(address: str) -> None:
    """Refuse what is no address of a cluster that this machine is a node of.

    Raises:
        InputError: says which addresses there are.
    """
    if address.startswith("ray://"):
        raise InputError(
            f"--ray-address {address}: Ray's client does not deploy services. Run this on a node of the cluster, with "
            "--ray-address HOST:PORT of its head (6379 unless changed), or as a job: ray job submit -- flyweight serve "
            "--ray ..."
        )
    host, colon, port = address.rpartition(":")
    if address != AUTO and not (colon and host and port.isdigit() and int(port) < 2**16):
        raise InputError(f"--ray-address {address!r} is unknown; use auto, or HOST:PORT of the cluster's head.")


def _check_listens(address: str) -> None:
    """Ask whether anything listens; Ray itself would wait for much longer.

    Raises:
        InputError: nothing does.
    """
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS).close()
    except OSError as error:
        raise InputError(
            f"No Ray cluster answers at {address} within {ANSWER_SECONDS:g} s ({error.strerror or error}). Is it "
            "running (`ray status`), and its port open from here?"
        ) from None


def _connect(ray: Any, address: str) -> None:
    """Join a cluster.

    Raises:
        InputError: it does not let this process in, with its reason.
    """
    where = "on this machine" if address == AUTO else f"at {address}"
    try:
        join_in_time(ray, address, JOIN_SECONDS)
    except NotLetInError:
        raise InputError(
            f"What answers {where} has not let this process in within {JOIN_SECONDS:g} s. Is it the head of a Ray "
            "cluster, and this machine one of its nodes?"
        ) from None
    except Exception as error:  # Ray raises what it likes
        said = " ".join(str(error).split())[:500]
        raise InputError(
            f"No Ray cluster {where} can be joined ({type(error).__name__}: {said}). Is this machine one of its "
            "nodes, with the cluster's RAY_AUTH_MODE and token?"
        ) from error

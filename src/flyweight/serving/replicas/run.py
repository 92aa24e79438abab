"""`flyweight serve --ray`: deploy, say where, tell what becomes of the replicas, take them down when told to end."""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from flyweight.cost.hardware import allowed_cores
from flyweight.errors import InputError
from flyweight.serving.bound_port import bind_socket
from flyweight.serving.replicas.deployment import (
    check_bundles,
    deploy,
    is_there,
    replicas,
    state,
    take_down,
    wait_until_answering,
)
from flyweight.serving.replicas.node_check import check_nodes
from flyweight.serving.replicas.ray_cluster import join_cluster, require_ray
from flyweight.serving.replicas.scaling import Scaling
from flyweight.serving.settings import Settings

logger = logging.getLogger("flyweight.serving")
#: Seconds until the replicas must be ready.
READY_SECONDS = 300.0
LOOK_SECONDS = 2.0


def serve_on_ray(
    settings: Settings, scaling: Scaling, address: str | None, say_ready: Callable[[Settings], None], *, detach: bool
) -> None:
    """Serve until told to end, or until another deployment takes this one's place.

    Args:
        address: as in `ray_cluster.join_cluster`; None takes what `RAY_ADDRESS` says, if anything.
        say_ready: called once every replica is warm, with the port that was taken.
        detach: leave the replicas running, and return.

    Raises:
        FlyweightError: a bundle is bad, the port is taken, the cluster is not to be had, a node lacks a bundle, a
            replica cannot start.
    """
    check_alone(settings)
    address = address or os.environ.get("RAY_ADDRESS") or None
    if address is None:
        _check_own(scaling, detach=detach)
        bind_socket(settings.host, settings.port).close()  # a taken one is told in one line here
    require_ray()
    settings = check_bundles(settings if settings.port else replace(settings, port=_free_port(settings.host)))
    with join_cluster(address), told_to_end() as told:  # Ray takes the signals when it is joined
        if address is not None:
            check_nodes(settings)
        replacing = is_there()
        mark = deploy(settings, scaling)
        wait_until_answering(settings, READY_SECONDS, told, replacing=replacing)
        say_ready(settings)
        if detach:
            return
        if _watch(told, mark):
            take_down(settings.drain_seconds, mark)


def check_alone(settings: Settings) -> None:
    """Refuse what a service on Ray does otherwise, or not.

    Raises:
        InputError: names the option, and the one to use.
    """
    if settings.grpc_port is not None:
        raise InputError("--grpc-port: replicas on Ray answer over HTTP only; leave it out.")
    if settings.workers != 1:
        raise InputError("--workers: a replica on Ray is one process; use --min-replicas and --max-replicas.")
    if settings.security.tls is not None:
        raise InputError("--certificate: Ray's proxy answers in plain HTTP; put TLS before it, and leave it out here.")
    if settings.state is not None:
        raise InputError("--state: what replicas on Ray serve is what they were deployed with; leave it out.")


def _check_own(scaling: Scaling, *, detach: bool) -> None:
    if detach:
        raise InputError("--detach needs a cluster that stays: start one (`ray start --head`), give --ray-address.")
    needed, here = scaling.least * scaling.cores, allowed_cores()
    if needed > here:
        raise InputError(
            f"{scaling.least} replicas of {scaling.cores:g} cores need {needed:g}; this machine has {here}. "
            "Take fewer, or name a cluster of more machines by --ray-address."
        )


@contextmanager
def told_to_end() -> Iterator[threading.Event]:
    """Note SIGTERM and Ctrl-C instead of ending in the middle; a second one, a second later, ends at once."""
    told = threading.Event()
    first = [0.0]

    def note(number: int, frame: Any) -> None:
        now = time.monotonic()
        if told.is_set() and now - first[0] > 1:  # what ends a service may signal its process and its group
            raise KeyboardInterrupt
        first[0] = first[0] or now
        told.set()

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _watch(told: threading.Event, mark: str) -> bool:
    """Log what becomes of the replicas until told to end; return whether they are still this deployment's."""
    seen: object = None
    while not told.wait(LOOK_SECONDS):
        if not is_there(mark):
            logger.warning("Another deployment has taken this one's place, or it was deleted; its replicas are left.")
            return False
        now = (state()[1], replicas())
        if now != seen and seen is not None:
            counts = ", ".join(f"{count} {name.lower()}" for name, count in now[1].items() if count)
            logger.info("Replicas: %s%s", counts or "none", f" ({now[0]})" if now[0] else "")
        seen = now
    return True


def _free_port(host: str) -> int:
    with bind_socket(host, 0) as one:
        return int(one.getsockname()[1])

"""Joining a Ray cluster: told beforehand what Ray looks at once, and given up in time, which Ray does not."""

import os
import threading
from pathlib import Path
from typing import Any

#: How a process of Flyweight is in a cluster.
QUIET: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False, "namespace": "flyweight"}


class NotLetInError(Exception):
    """A cluster answers, but has not let this process in."""


def before_ray() -> None:
    """Set what Ray reads when it is imported: no statistics of its use, and this machine's token where there is one.

    `ray start` asks for that token, if it is there; a process that joins must be told before its first call.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if Path(os.environ.get("RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token")).expanduser().exists():
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def join_in_time(ray: Any, address: str, seconds: float) -> None:
    """Join the cluster at an address, or the one of this machine ("auto").

    Raises:
        NotLetInError: it took longer.
        Exception: what Ray raises.
    """
    failed: list[BaseException] = []

    def join() -> None:
        try:
            ray.init(address, **QUIET)
        except BaseException as error:  # handed to the thread that waits
            failed.append(error)

    # Ray waits for as long as it takes; this thread does not, and is the only one that Ctrl-C reaches.
    joining = threading.Thread(target=join, daemon=True)
    joining.start()
    joining.join(seconds)
    if joining.is_alive():
        raise NotLetInError
    if failed:
        raise failed[0]

"""What a service does while a server of a sharded bundle is away, and which servers a command line names."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from flyweight.bundle.load import TIMEOUT
from flyweight.bundle.shards.ranker import Missing
from flyweight.errors import InputError


@dataclass(frozen=True)
class ShardPolicy:
    """How requests are scored whose rows lie with servers.

    Args:
        missing: "refuse" requests while a server is away, or "degrade": score with stand-ins, and say so.
        timeout: seconds that a call waits for all servers together.

    Raises:
        InputError: either is none.
    """

    missing: Missing = "refuse"
    timeout: float = TIMEOUT

    def __post_init__(self) -> None:
        if self.missing not in ("refuse", "degrade"):
            raise InputError(f"--missing must be refuse or degrade; seen {self.missing!r}.")
        if not 0 < self.timeout < 3600:
            raise InputError(f"--shard-timeout is in seconds, above 0; seen {self.timeout:g}.")


def shards_by_model(given: Iterable[str], models: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return the servers that a command line names, each `HOST:PORT` or `NAME=HOST:PORT`, by model and in order.

    Raises:
        InputError: it is open which model is meant, or there is none of that name.

    Example:
        >>> shards_by_model(["10.0.0.7:7400", "10.0.0.8:7400"], ["ranker"])
        {'ranker': ('10.0.0.7:7400', '10.0.0.8:7400')}
    """
    known, found = list(models), dict[str, tuple[str, ...]]()
    for text in given:
        name, equals, address = text.rpartition("=")
        if not equals and len(known) != 1:
            raise InputError(
                f"--shard {text} is of one of {len(known)} models; say of which: {known[0]}={text}, for one."
            )
        model = name if equals else known[0]
        if model not in known:
            raise InputError(f"--shard {text} is of model {model!r}, which is not served; there is {', '.join(known)}.")
        found[model] = (*found.get(model, ()), address)
    return found


def checked_addresses(given: Any) -> tuple[str, ...]:
    """Return the servers that a request to load a bundle names.

    Raises:
        InputError: they are no list of texts.
    """
    if not isinstance(given, (list, tuple)) or not all(isinstance(one, str) for one in given):
        raise InputError(f"'shards' must be a list of \"host:port\", one for each shard; seen {str(given)[:60]!r}.")
    return tuple(given)

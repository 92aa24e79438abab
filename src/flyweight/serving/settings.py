"""What a service is told when it starts, checked once, and sent to each worker as JSON."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from flyweight.errors import InputError
from flyweight.serving.lane import Limits
from flyweight.serving.security import Security
from flyweight.serving.shard_policy import ShardPolicy, shards_by_model
from flyweight.serving.watching_settings import Watching


@dataclass(frozen=True)
class Source:
    """A bundle to serve.

    Args:
        model: the name that requests give.
        path: of the bundle.
        version: the name of this version.
        digest: its `identity.identity_of`: hash of the bundle's manifest, which holds the hashes of all else, and of
            the vocabulary's file where there is one; "" before it was opened.
        shards: of a sharded bundle, the address of each shard's server in order.
    """

    model: str
    path: str
    version: str = "1"
    digest: str = ""
    shards: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "shards", tuple(self.shards))  # JSON made a list of it

    def where_it_lies(self) -> "Source":
        """Return it with the path of the folder itself, which stays when a link to it is moved to another bundle."""
        return replace(self, path=os.path.realpath(self.path))


@dataclass(frozen=True)
class Settings:
    """How bundles are served.

    Args:
        sources: the bundles.
        host, port: for HTTP; port 0 takes a free one.
        grpc_port: for gRPC; None serves none, 0 takes a free one.
        workers: processes.
        threads, engine: as in `fw.load`.
        limits: of each model's queue in each worker.
        max_candidates: that one request may have.
        max_body: bytes of one request, also after it was unpacked.
        read_seconds: within which a request must have come whole.
        drain_seconds: how long requests are still answered after SIGTERM, while readiness says no.
        vocabulary: path of a file of raw values, see `vocabulary`.
        security: tokens and TLS.
        watching: logs and traces.
        keep: versions of a model that answered before and stay in memory for going back.
        state: folder that keeps what is served over a restart; None keeps nothing.
        shard_policy: what is done while a server of a sharded bundle is away.
    """

    sources: tuple[Source, ...]
    host: str = "127.0.0.1"
    port: int = 8000
    grpc_port: int | None = None
    workers: int = 1
    threads: int | None = None
    engine: str | None = None
    limits: Limits = field(default_factory=Limits)
    max_candidates: int = 10_000
    max_body: int = 16 * 2**20
    read_seconds: float = 10.0
    drain_seconds: float = 1.0
    vocabulary: str | None = None
    security: Security = field(default_factory=Security)
    watching: Watching = field(default_factory=Watching)
    keep: int = 1
    state: str | None = None
    shard_policy: ShardPolicy = field(default_factory=ShardPolicy)

    def __post_init__(self) -> None:
        least: dict[str, tuple[Any, float]] = {
            "workers": (self.workers, 1),
            "max-candidates": (self.max_candidates, 1),
            "max-body": (self.max_body, 1024),
            "read-timeout": (self.read_seconds, 0.1),
            "drain": (self.drain_seconds, 0),
            "max-batch": (self.limits.batch_candidates, 1),
            "max-batch-requests": (self.limits.batch_requests, 1),
            "max-wait-us": (self.limits.wait_us, 0),
            "queue": (self.limits.queue, 1),
            "deadline-ms": (self.limits.deadline_ms, 1),
            "standing-ms": (self.limits.standing_ms, 1),
            "keep": (self.keep, 0),
            "threads": (1 if self.threads is None else self.threads, 1),
        }
        for name, (value, low) in least.items():
            if not low <= value < 2**40:
                raise InputError(f"--{name} must be {low:g} or more; seen {value}.")
        for name, port in (("port", self.port), ("grpc-port", self.grpc_port)):
            if port is not None and not 0 <= port < 2**16:
                raise InputError(f"--{name} must be from 0 (any free one) to 65535; seen {port}.")


def sources_of(given: Sequence[str], shards: Sequence[str] = ()) -> tuple[Source, ...]:
    """Return the bundles named on a command line, each `PATH` or `NAME=PATH`; the name is the folder's otherwise.

    Args:
        given: the bundles.
        shards: servers of those that are sharded, as in `shard_policy.shards_by_model`.

    Raises:
        InputError: none is given, a name is empty or odd, a path is no UTF-8, or two have one name.

    Example:
        >>> sources_of(["a/ranker.fly", "old=b/ranker.fly"])[1].model
        'old'
    """
    if not given:
        raise InputError("Give at least one bundle: flyweight serve ranker.fly")
    found: dict[str, Source] = {}
    for text in given:
        name, equals, path = text.partition("=")
        if not equals or "/" in name:
            name, path = Path(os.path.abspath(text)).name.removesuffix(".fly"), text
        if not path or not _fits_url(name):
            raise InputError(
                f"{text!r} names no model that a URL can hold; give NAME=PATH, NAME of letters, digits, '-', '_', '.'."
            )
        whole = os.path.abspath(path)  # a link stays one: it may be moved to another bundle
        if whole != whole.encode(errors="ignore").decode():
            raise InputError(f"{whole!r} is no UTF-8, and is told to processes and callers as text; rename it.")
        if name in found:
            raise InputError(
                f"Two bundles are called {name!r}: {found[name].path} and {path}. Name one: OTHER={path}."
            )
        found[name] = Source(name, whole)
    servers = shards_by_model(shards, found)
    return tuple(replace(one, shards=servers.get(model, ())) for model, one in found.items())


def address_of(host: str, port: int) -> str:
    """Return host and port as URLs and gRPC write them.

    Example:
        >>> address_of("::1", 8000)
        '[::1]:8000'
    """
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def check_name(name: str) -> str:
    """Return a model's or version's name if a URL can hold it.

    Raises:
        InputError: it cannot.
    """
    if not _fits_url(name):
        raise InputError(f"{name[:80]!r} is no name: give up to 64 letters, digits, '-', '_', '.'.")
    return name


def _fits_url(name: str) -> bool:
    return len(name) <= 64 and name.replace("-", "").replace("_", "").replace(".", "").isalnum()


def settings_to_json(settings: Settings) -> str:
    """Return settings as a line of JSON."""
    return json.dumps(asdict(settings))


def settings_from_json(text: str) -> Settings:
    """Return the settings that `settings_to_json` wrote."""
    values = json.loads(text)
    assert set(values) == {one.name for one in fields(Settings)}
    parts = {"limits": Limits, "security": Security, "watching": Watching, "shard_policy": ShardPolicy}
    built = {name: kind(**values[name]) for name, kind in parts.items()}
    return Settings(**{**values, **built, "sources": tuple(Source(**one) for one in values["sources"])})

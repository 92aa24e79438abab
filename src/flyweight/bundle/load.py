"""Loading a bundle: read, checked, and started in the engine that was fastest or the next one that runs."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from flyweight.bundle.ranker import Ranker
from flyweight.bundle.read import Bundle, read_bundle
from flyweight.bundle.shards.ranker import Missing, check_servers, join_shards
from flyweight.bundle.shards.read import is_sharded, read_front
from flyweight.bundle.verify import agreements
from flyweight.cost.hardware import allowed_cores
from flyweight.engines.engine import Prepared
from flyweight.engines.registry import FALLBACKS, KNOWN, find_engine
from flyweight.engines.threads import checked_threads
from flyweight.errors import EngineError, FlyweightError, InputError

#: Makes a ranker of a bundle's model in an engine.
Make = Callable[[Prepared, str], Ranker]
#: Seconds that a call waits for the servers of a sharded bundle.
TIMEOUT = 1.0


def load(
    path: str | Path,
    *,
    engine: str | None = None,
    threads: int | None = None,
    unknown: Literal["map", "refuse"] = "map",
    shards: Sequence[str] | None = None,
    missing: Missing = "refuse",
    timeout: float = TIMEOUT,
) -> Ranker:
    """Read a bundle, check it and start its model in an engine.

    Args:
        engine: a name from `flyweight.engines.registry`; None takes the one that was fastest when the bundle was made,
            or, where that is missing here, the first available one that gives the stored requests their scores, with a
            warning.
        threads: threads the engine may use; None takes as many as it was fastest with, if this machine has them,
            0 leaves it to the engine.
        unknown: ids outside of a vocabulary are taken for its field's id of unknown values and counted
            (`Ranker.unknown_ids`), or refused; fields without such an id refuse them anyhow.
        shards: of a sharded bundle, the address of each shard's server in order, "host:port".
        missing: a request for rows of a shard that is away is an error ("refuse"), or is scored with stand-ins
            ("degrade": `ShardedRanker.degraded` counts them). Either way the shard is used again once it answers.
        timeout: seconds that a call waits for the shards.

    Raises:
        BundleError: the bundle is damaged, altered, incomplete, newer or not to be trusted.
        InputError: the engine's name, or the policy, is unknown; threads are negative, or far more than cores.
        EngineError: the engine asked for is not installed, or no engine can run the bundle with its scores.
        ShardError: a shard is away and `missing` is "refuse", or another one is served at an address.

    Example:
        >>> fw.load("ranker.fly").score({"user_id": 7}, {"item_id": [3, 5]}).shape  # doctest: +SKIP
        (2,)
    """
    threads = None if threads is None else checked_threads(threads)
    if unknown not in ("map", "refuse"):
        raise InputError(f"unknown must be 'map' or 'refuse'; seen {unknown!r}.")
    bundle, make = _opened(path, shards, missing, timeout)
    ranker = _start_first(bundle, make, threads) if engine is None else _start(bundle, make, engine, threads)
    ranker.maps_unknown = unknown == "map"
    return ranker


def _opened(path: str | Path, shards: Sequence[str] | None, missing: Missing, timeout: float) -> tuple[Bundle, Make]:
    """Read a bundle, or the front of a sharded one, and return how a ranker is made of it."""
    if not is_sharded(path):
        bundle = read_bundle(path)
        if shards is not None:
            raise InputError(f"{path} is not sharded; load it without shards=, or split it: fw.shard(...).")
        return bundle, lambda prepared, engine: Ranker(bundle, prepared, engine)
    front = read_front(path)
    check_servers(front, shards, missing, timeout)
    addresses = tuple(shards or ())
    return front.bundle, lambda prepared, engine: join_shards(front, prepared, engine, addresses, missing, timeout)


def _start_first(bundle: Bundle, make: Make, threads: int | None) -> Ranker:
    """Start the recorded engine or, where that cannot be had, the first that runs, with a warning."""
    recorded = bundle.timing.engine
    known = recorded in KNOWN
    reasons: list[str] = [] if known else [f"{recorded} is unknown here"]
    for name in [recorded] * known + [name for name in FALLBACKS if name != recorded]:
        try:
            ranker = _start(bundle, make, name, threads)
        except EngineError as error:
            reasons.append(str(error))
            continue
        if name != recorded:
            why = _wrong(ranker)
            if why is not None:
                ranker.close()
                reasons.append(f"{name}: {why}")
                continue
            warnings.warn(f"{bundle.path} was timed in {recorded}; using {name} ({reasons[0]}).", stacklevel=3)
        return ranker
    raise EngineError(f"No engine here can run {bundle.path} ({'; '.join(reasons)}). pip install onnxruntime.")


def _wrong(ranker: Ranker) -> str | None:
    """Return why an engine that nobody chose for this bundle cannot stand in, or None where it is right.

    The stored requests say so, scored here; where there are none, what was seen when the bundle was made.
    """
    bundle = ranker.bundle
    if not bundle.samples:
        return next((one.why for one in bundle.timing.engines if one.name == ranker.engine and one.why), None)
    try:
        bad = next((one for one in agreements(ranker) if not one.ok), None)
    except FlyweightError as error:
        return str(error)
    return None if bad is None else f"its scores of the stored requests are not the model's: {bad.words}"


def _start(bundle: Bundle, make: Make, engine: str, threads: int | None) -> Ranker:
    chosen = find_engine(engine)
    why = chosen.available()
    if why is not None:
        raise EngineError(why)
    count = _threads(bundle, engine) if threads is None else threads
    return make(chosen.prepare(bundle.model, count), engine)


def _threads(bundle: Bundle, engine: str) -> int:
    """Return what was measured to be best, for the engine that it was measured in and where there are as many cores."""
    best = bundle.timing.threads or 0
    fits = engine == bundle.timing.engine and best <= allowed_cores()
    return best if fits else 0

"""One version of a model, ready in an engine behind its queue."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flyweight.bundle.load import load
from flyweight.bundle.ranker import Ranker
from flyweight.bundle.shards.ranker import ShardedRanker
from flyweight.cost.hardware import allowed_cores
from flyweight.errors import BundleError, EngineError
from flyweight.serving.call import Call, Takes, takes_of
from flyweight.serving.identity import identity_of, what_differs
from flyweight.serving.lane import INLINE_SECONDS, Lane
from flyweight.serving.metadata import describe_model
from flyweight.serving.scoring import Outcome, score_calls
from flyweight.serving.settings import Settings, Source
from flyweight.serving.vocabulary import Vocabularies, read_vocabularies
from flyweight.serving.warming import Warmth, warm_up

logger = logging.getLogger("flyweight.serving")


@dataclass(frozen=True)
class Opened:
    """A bundle that was read, started, compared with its stored scores, and timed."""

    source: Source
    ranker: Ranker
    takes: Takes
    warmth: Warmth

    @property
    def digest(self) -> str:
        """Identity of the version; the hash of the manifest was checked when that was read."""
        manifest = self.ranker.bundle.timing.files["manifest.json"].sha256
        return identity_of(manifest, self.takes.vocabularies.digest)


@dataclass(frozen=True)
class Served:
    """A version that takes requests.

    Args:
        opened: its bundle in an engine.
        lane: its queue in this process.
    """

    opened: Opened
    lane: Lane

    @property
    def model(self) -> str:
        """The model's name."""
        return self.opened.source.model

    @property
    def version(self) -> str:
        """The version's name."""
        return self.opened.source.version

    def describe(self, versions: list[str]) -> dict[str, Any]:
        """Return the model's metadata, as the protocol v2 has it."""
        return describe_model(self.model, versions, self.opened.ranker, self.opened.takes.vocabularies.sizes)

    async def retire(self) -> None:
        """Answer what waits, then free the engine's memory."""
        await self.lane.drain()
        self.lane.close()
        self.opened.ranker.close()


def open_bundle(source: Source, settings: Settings) -> Opened:
    """Read a bundle, start it and warm it up; takes seconds, so never on the event loop's thread.

    Raises:
        BundleError: the bundle is damaged, not to be trusted, or not the one that the source's digest is of; or the
            vocabulary is not.
        EngineError: no engine runs it with its scores.
        InputError: an engine, a number of threads or a vocabulary that is none.
    """
    vocabularies = read_vocabularies(Path(settings.vocabulary)) if settings.vocabulary else Vocabularies()
    ranker = _started(source, settings)
    try:
        takes = takes_of(source.model, ranker, settings.max_candidates, vocabularies)
        if both := sorted(vocabularies.ids.keys() & ranker.bundle.vocabularies.keys()):
            logger.info("%s: --vocabulary goes before the bundle's own for %s", source.model, ", ".join(both))
        manifest = ranker.bundle.timing.files["manifest.json"].sha256
        _check_digest(source, identity_of(manifest, vocabularies.digest))
        return Opened(source, ranker, takes, warm_up(ranker, takes))
    except BaseException:
        ranker.close()
        raise


def _started(source: Source, settings: Settings) -> Ranker:
    """Return a bundle in its engine; of several workers none takes more than its part of the cores, unless told to."""
    ranker = _loaded(source, settings, settings.threads)
    part = max(1, allowed_cores() // settings.workers)
    if settings.threads is not None or settings.workers == 1 or 1 <= (ranker.bundle.timing.threads or 0) <= part:
        return ranker
    ranker.close()
    return _loaded(source, settings, part)


def _loaded(source: Source, settings: Settings, threads: int | None) -> Ranker:
    policy = settings.shard_policy
    return load(
        source.path,
        engine=settings.engine,
        threads=threads,
        shards=source.shards or None,
        missing=policy.missing,
        timeout=policy.timeout,
    )


def _check_digest(source: Source, seen: str) -> None:
    if source.digest and source.digest != seen:
        raise BundleError(
            f"{source.path} is not the bundle any more that version {source.version!r} was loaded from: "
            f"{what_differs(source.digest, seen)}. Load it as a new version."
        )


def serve_opened(opened: Opened, settings: Settings) -> Served:
    """Return the version behind a queue; quick engines run on the event loop's own thread.

    A sharded one never does: while a server is away a call may wait for it, and health and refusals with it.
    """

    def score(calls: Sequence[Call]) -> list[Outcome]:
        try:
            return score_calls(opened.ranker, calls)
        except Exception as error:  # a fault of ours must not leave callers without an answer, nor stop the queue
            logger.exception("Scoring failed")
            return [EngineError(f"Scoring failed: {type(error).__name__}: {error}")] * len(calls)

    inline = opened.warmth.seconds <= INLINE_SECONDS and not isinstance(opened.ranker, ShardedRanker)
    lane = Lane(score, settings.limits, inline=inline)
    lane.load.engine.each = lane.load.pace.each = opened.warmth.seconds / opened.warmth.candidates
    return Served(opened, lane)

"""What a service begins with: the bundles of its command line, or what it served when it ended last."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from flyweight.bundle.manifest import MANIFEST
from flyweight.serving.identity import hash_of_file, identity_of
from flyweight.serving.rollout import Rollout, begun_with
from flyweight.serving.settings import Source

logger = logging.getLogger("flyweight.serving")


def begin_rollouts(
    given: Sequence[Source], kept: Mapping[str, Rollout], vocabulary: str = ""
) -> dict[str, Rollout]:
    """Return the rollout of each model; what was put aside, and why, is logged.

    What was kept holds as long as the command line names the same bundle as before; who names another one, or replaces
    it in its place, means that one. Models that were added to the running service stay.

    Args:
        given: the bundles of the command line.
        kept: rollouts by model, as they were when the service ended.
        vocabulary: hash of the file of raw values; "" for none.
    """
    rollouts = {source.model: _of_given(source, kept.get(source.model), vocabulary) for source in given}
    for model, rollout in kept.items():
        if model in rollouts:
            continue
        if rollout.begun is not None:
            logger.warning("Model %r is not on the command line any more and is not served.", model)
            continue
        held = _without_lost(rollout, vocabulary)
        if held.answering is None and rollout.answering is not None:
            logger.error("Model %r is not served: none of its bundles is as it was.", model)
        else:
            rollouts[model] = held
    return rollouts


def digest_of(path: str, vocabulary: str = "") -> str | None:
    """Return the identity of a bundle with a vocabulary of this hash, None where there is no bundle."""
    manifest = hash_of_file(Path(path) / MANIFEST)
    return None if manifest is None else identity_of(manifest, vocabulary)


def _of_given(source: Source, kept: Rollout | None, vocabulary: str) -> Rollout:
    if kept is None:
        return begun_with(source)
    kept = _with_servers(kept, source)
    begun, now = kept.begun, digest_of(source.path, vocabulary)
    names = {one.digest: one.version for one in (begun or source, kept.source, *kept.held)}
    if begun is None or begun.path != source.path:
        return _fresh(source, kept, None, "names another bundle than before")
    # What was put there and loaded since then has a name: a restart must not undo that it was gone back from.
    if now is not None and now not in names:
        return _fresh(source, kept, None, "names a bundle or a vocabulary that is new")
    held = _without_lost(kept, vocabulary)
    if held.answering is None and kept.answering is not None:
        return _fresh(source, kept, names.get(now or begun.digest), "is all that is left")
    return held


def _with_servers(rollout: Rollout, given: Source) -> Rollout:
    """Return a rollout with the servers that the command line names for its bundle: they may have moved."""

    paths = {given.path, given.where_it_lies().path}

    def moved(one: Source) -> Source:
        return replace(one, shards=given.shards) if one.path in paths else one

    begun = None if rollout.begun is None else moved(rollout.begun)
    return replace(rollout, source=moved(rollout.source), held=tuple(map(moved, rollout.held)), begun=begun)


def _fresh(source: Source, kept: Rollout, version: str | None, why: str) -> Rollout:
    """Return the rollout of a bundle that answers everything.

    Args:
        version: the name that it had; None counts on.
    """
    newest = max(kept.newest, 1)
    named = replace(source, version=str(newest + 1) if version is None else version)
    logger.warning(
        "The command line %s for model %r: its bundle is served as version %s, and what was kept is left.",
        why,
        source.model,
        named.version,
    )
    fresh = begun_with(named)
    return replace(fresh, newest=max(newest, fresh.newest))


def _without_lost(rollout: Rollout, vocabulary: str) -> Rollout:
    """Return a rollout without the versions whose bundle is gone or another one, or whose vocabulary is."""
    lost = [source for source in rollout.held if digest_of(source.path, vocabulary) != source.digest]
    for source in lost:
        logger.error(
            "Version %r of model %r is not served: %s is gone or another bundle, or the vocabulary is another.",
            source.version,
            source.model,
            source.path,
        )
    return rollout.without(source.version for source in lost)

"""Changing what is served in all processes together: each opens what is new, then all let it answer, then all free the
old; what fails in one is undone in all.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol

from flyweight.errors import FlyweightError
from flyweight.serving.drift import sum_drifts
from flyweight.serving.refusal import Refusal, refusal_of
from flyweight.serving.rollout import Canary, Rollout, Shadow
from flyweight.serving.settings import Source, check_name
from flyweight.serving.shard_policy import checked_addresses
from flyweight.serving.state_folder import StateFolder
from flyweight.serving.wire import Gone

logger = logging.getLogger("flyweight.serving")


class Process(Protocol):
    """A process that takes the steps of `following.Follower`."""

    async def ask(self, verb: str, **values: Any) -> Any:
        """Take a step; returns what it returns, raises what it raises, `Gone` where the process ended."""
        ...


class Changes:
    """What is served, for all processes, and the ways to change it.

    Args:
        rollouts: of each model; kept up to date.
        processes: returns those that take requests; one that starts meanwhile waits for `lock` and is told then.
        keep: how many versions that answered before stay in memory.
        state: keeps the rollouts on disk; None keeps nothing.
    """

    def __init__(
        self,
        rollouts: dict[str, Rollout],
        processes: Callable[[], Sequence[Process]],
        keep: int,
        state: StateFolder | None = None,
    ) -> None:
        self.rollouts = rollouts
        self.lock = asyncio.Lock()
        self._processes = processes
        self._keep = keep
        self._state = state
        self._verbs: Mapping[str, Callable[..., Awaitable[Any]]] = {
            "load": self.load,
            "unload": self.unload,
            "activate": self.activate,
            "retire": self.retire,
            "rollback": self.go_back,
            "canary": self.set_canary,
            "shadow": self.set_shadow,
            "drift": self.drift,
        }

    async def change(self, change: str, model: str, values: Mapping[str, Any]) -> Any:
        """Make a change by its name, as it comes over a wire."""
        return await self._verbs[change](model, **values)

    async def load(
        self,
        model: str,
        path: str | None = None,
        version: str | None = None,
        activate: bool = True,
        shards: Sequence[str] | None = None,
    ) -> dict[str, Any]:
        """Load a bundle as a new version; one that is held already under another name is not loaded twice.

        Args:
            path: of the bundle, or of a link to it; None takes the path that was loaded last. With a path, the model
                may be a new one.
            version: its name; None counts on.
            activate: whether it answers from now on, or waits for a part.
            shards: of a sharded bundle, the addresses of its servers; None takes those of the bundle loaded last where
                the path is its.

        Raises:
            FlyweightError: the bundle is bad in one process, or cannot follow the version that answers; nothing has
                changed.
        """
        async with self.lock:
            before = self._before_loading(model, path)
            given = _next_source(before, path, version, shards)
            source = given.where_it_lies()
            try:
                digest = await self._prepare(source)
                found = _recognised(before, replace(source, digest=digest), named=version is not None)
                after = before if found.version in before.versions else before.holding(found, given.path)
                if activate:
                    after = after.activating(found.version, self._keep)
            except FlyweightError as error:
                await self._tell_all("discard", model=model)
                refusal = _unchanged(error, before)
                if path is not None and refusal.kind in ("failed", "away"):
                    raise Refusal(str(refusal)) from error  # the path came with the request
                raise refusal from error
            await self._bring(before, after)
            return asdict(self.rollouts[model])

    async def unload(self, model: str) -> dict[str, Any]:
        """Take a model out of service once what was accepted is answered."""
        return await self._set(model, Rollout.unloaded)

    async def activate(self, model: str, version: str) -> dict[str, Any]:
        """Let a version that is held answer all requests that name none and are not the canary's."""
        return await self._set(model, lambda before: before.activating(version, self._keep))

    async def retire(self, model: str, version: str) -> dict[str, Any]:
        """Free a version that has no part."""
        return await self._set(model, lambda before: before.retiring(version))

    async def go_back(self, model: str) -> dict[str, Any]:
        """Let the version before answer again, and free the one that answered."""
        return await self._set(model, Rollout.going_back)

    async def set_canary(self, model: str, canary: Mapping[str, Any] | None) -> dict[str, Any]:
        """Let a version answer a part of the requests; None ends the canary."""
        return await self._set(
            model, lambda before: replace(before, canary=None if canary is None else Canary(**canary))
        )

    async def set_shadow(self, model: str, shadow: Mapping[str, Any] | None) -> dict[str, Any]:
        """Let a version score beside the one that answers; None ends the shadow and forgets what it showed."""
        return await self._set(
            model, lambda before: replace(before, shadow=None if shadow is None else Shadow(**shadow))
        )

    async def drift(self, model: str) -> dict[str, Any]:
        """Return what the shadow has shown in all processes since it began in each."""
        shadow = self._known(model).shadow
        if shadow is None:
            raise Refusal(f"Model {model!r} has no shadow; set one first.", "conflict")
        told = [one for one in await self._ask_all("drift", model=model) if not isinstance(one, Gone)]
        return {"model": model, **asdict(shadow), **sum_drifts(told).describe()}

    async def began(self, model: str, digests: Mapping[str, str], failed: Mapping[str, str]) -> None:
        """Note what a process that has just begun found: the bundles' digests, and versions that it could not open.

        Those are taken out of all processes, so that all serve the same. `lock` is held.
        """
        before = self.rollouts[model]
        for version, why in failed.items():
            logger.error("Version %r of model %r is not served any more: %s", version, model, why)
        after = before.recording(digests).without(failed)
        if after == before:
            return
        self.rollouts[model] = after
        try:
            await self._save()
        except FlyweightError as error:
            logger.error("%s", error)
        if failed:
            await self._tell_all("apply", rollout=asdict(after))
            await self._tell_all("settle", model=model)

    async def _set(self, model: str, wanted: Callable[[Rollout], Rollout]) -> dict[str, Any]:
        async with self.lock:
            before = self._known(model)
            await self._bring(before, wanted(before))
            return asdict(self.rollouts[model])

    async def _bring(self, before: Rollout, after: Rollout) -> None:
        """Bring all processes from one rollout to another; to neither of both where one cannot follow."""
        model = after.model
        new = model not in self.rollouts
        self.rollouts[model] = after
        try:
            await self._save()
        except FlyweightError as error:
            self._restore(before, new=new)
            await self._tell_all("discard", model=model)
            raise _unchanged(Refusal(str(error), "draining", 1.0), before) from error
        try:
            await self._ask_all("apply", rollout=asdict(after))
        except FlyweightError as error:
            self._restore(before, new=new)
            await self._undo(before)
            raise _unchanged(error, before) from error
        await self._tell_all("settle", model=model)
        logger.info("Model %r: %s%s", model, after.words, after.parts)

    def _restore(self, before: Rollout, *, new: bool) -> None:
        self.rollouts[before.model] = before
        if new:
            del self.rollouts[before.model]

    async def _undo(self, before: Rollout) -> None:
        await self._tell_all("apply", rollout=asdict(before))
        await self._tell_all("settle", model=before.model)
        try:
            await self._save()
        except FlyweightError as error:
            logger.error("%s", error)

    async def _prepare(self, source: Source) -> str:
        """Return the digest of the bundle that every process has opened."""
        digests = await self._ask_all("prepare", source=asdict(source))
        if not digests:
            raise Refusal("No worker takes requests at this moment; try again.", "draining", 1.0)
        for gone in digests:
            if isinstance(gone, Gone):
                raise Refusal(f"A worker ended while it opened {source.path}.", "conflict")
        if len(set(digests)) != 1:
            raise Refusal(f"{source.path} was changed while it was opened; load it again.", "conflict", 1.0)
        return str(digests[0])

    async def _ask_all(self, verb: str, **values: Any) -> list[Any]:
        """Return what every process answers; `Gone` for those that ended, which begin again with what holds then.

        Raises:
            FlyweightError: what the first one raised, once all have answered.
        """
        answers = await asyncio.gather(
            *(process.ask(verb, **values) for process in self._processes()), return_exceptions=True
        )
        for answer in answers:
            if isinstance(answer, BaseException) and not isinstance(answer, Gone):
                raise answer
        return answers

    async def _tell_all(self, verb: str, **values: Any) -> None:
        """Let every process take a step that a sound one cannot fail in; a failure is logged."""
        try:
            await self._ask_all(verb, **values)
        except FlyweightError as error:
            logger.error("A worker could not %s: %s", verb, error)

    async def _save(self) -> None:
        if self._state is not None:
            await asyncio.to_thread(self._state.write, dict(self.rollouts))

    def _before_loading(self, model: str, path: str | None) -> Rollout:
        if model in self.rollouts or path is None:
            return self._known(model)
        return Rollout(check_name(model), Source(model, path))

    def _known(self, model: str) -> Rollout:
        rollout = self.rollouts.get(model)
        if rollout is None:
            raise Refusal(f"Model {model[:80]!r} is not served here.", "not_found")
        return rollout


def _next_source(before: Rollout, path: str | None, version: str | None, shards: Sequence[str] | None) -> Source:
    """Return the bundle to load under its new version's name."""
    if path is not None and not Path(path).is_absolute():
        raise Refusal(f"path must be absolute, as the service may run in another folder; seen {path[:200]!r}.")
    if path is not None and "\0" in path:
        raise Refusal(f"path must be one; seen {path[:200]!r}.")
    name = str(before.newest + 1) if version is None else check_name(version)
    path = before.source.path if path is None else path
    if shards is None:
        shards = before.source.shards if path == before.source.path else ()
    return Source(before.model, path, name, shards=checked_addresses(shards))


def _recognised(before: Rollout, source: Source, *, named: bool) -> Source:
    """Return the version that a bundle just opened is: one that is held, the one loaded last, or a new one.

    Raises:
        Refusal: it was given the name of another bundle's version, or another name than it is held under.
    """
    held = next((one for one in before.held if one.digest == source.digest), None)
    if held is not None and named and held.version != source.version:
        raise Refusal(f"{source.path} is held already, as version {held.version!r}; activate that.", "conflict")
    if held is not None and held.shards != source.shards:
        raise Refusal(
            f"{source.path} is held already, as version {held.version!r} with the servers {', '.join(held.shards)}; a "
            "version never changes. Start the servers there, or restart the service with others (--shard).",
            "conflict",
        )
    if held is not None:
        return held
    if source.version in before.versions:
        raise Refusal(
            f"Version {source.version!r} is another bundle; a version never changes: give a new name, or none.",
            "conflict",
        )
    again = not named and before.source.digest == source.digest
    return replace(source, version=before.source.version) if again else source


def _unchanged(error: FlyweightError, before: Rollout) -> Refusal:
    """Return why a change failed, and what goes on."""
    refusal = refusal_of(error)
    on = "the model stays unloaded" if before.answering is None else f"version {before.answering!r} goes on answering"
    return Refusal(f"{str(refusal).rstrip('.')}. Nothing was changed: {on}.", refusal.kind, refusal.retry_after)

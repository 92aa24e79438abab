"""What one process does so that all serve the same: the steps of a change, asked for by name."""

import contextlib
from collections.abc import Mapping
from typing import Any

from flyweight.errors import FlyweightError
from flyweight.serving.drift import Drift
from flyweight.serving.repository import Repository
from flyweight.serving.rollout import Rollout, rollout_of
from flyweight.serving.settings import Source
from flyweight.serving.wire import Handler


class Follower:
    """Takes the steps for one repository.

    Args:
        repository: the process's models.
    """

    def __init__(self, repository: Repository) -> None:
        self.repository = repository

    def handlers(self) -> dict[str, Handler]:
        """Return what answers each step's name."""
        return {
            "prepare": self.prepare,
            "discard": self.discard,
            "apply": self.apply,
            "settle": self.settle,
            "drift": self.drift,
        }

    async def ask(self, verb: str, **values: Any) -> Any:
        """Take a step by its name, as over a wire."""
        return await self.handlers()[verb](**values)

    async def open(self, rollout: Rollout) -> None:
        """Open all that a rollout holds, before it is known whether that is what will hold in the end."""
        for source in rollout.held:
            with contextlib.suppress(FlyweightError):  # told by `begin`
                await self.repository.prepare(source)

    async def begin(self, rollout: Rollout, *, first: bool) -> dict[str, Any]:
        """Open all that a rollout holds, and let it answer without the versions that cannot be opened.

        Args:
            first: whether no other process serves it, so that the version before may answer instead, or a model that
                was added to the running service be left unloaded.

        Returns:
            The digest of each version, under "digests", and under "failed" why others could not be opened.

        Raises:
            FlyweightError: the version that answers cannot be opened, and no other may answer instead.
        """
        digests: dict[str, str] = {}
        failed: dict[str, str] = {}
        for source in rollout.held:
            try:
                digests[source.version] = await self.repository.prepare(source)
            except FlyweightError as error:
                failed[source.version] = str(error)
                # A model of the command line must be there; one that was added later must not keep the others away.
                spared = rollout.without(failed).answering is not None or rollout.begun is None
                if source.version == rollout.answering and not (first and spared):
                    raise
        self.repository.apply(rollout.recording(digests).without(failed))
        self.repository.discard(rollout.model)  # what was opened beforehand, and is not held any more
        return {"digests": digests, "failed": failed}

    async def prepare(self, source: Mapping[str, Any]) -> str:
        """Open a bundle beside what is served; returns its digest."""
        return await self.repository.prepare(Source(**source))

    async def discard(self, model: str) -> None:
        """Forget what was prepared."""
        self.repository.discard(model)

    async def apply(self, rollout: Mapping[str, Any]) -> None:
        """Let a rollout answer."""
        self.repository.apply(rollout_of(rollout))

    async def settle(self, model: str) -> None:
        """Free what is no longer held."""
        await self.repository.settle(model)

    async def drift(self, model: str) -> dict[str, Any]:
        """Return what this process's shadow has shown."""
        shadowing = self.repository.entry(model).shadowing
        return (Drift() if shadowing is None else shadowing.drift).to_json()

"""Which models are here, in which versions, and which version answers a request: looked up once a request."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from flyweight.errors import FlyweightError
from flyweight.serving.refusal import Refusal
from flyweight.serving.served import Opened, Served, open_bundle, serve_opened
from flyweight.serving.settings import Settings, Source


@dataclass
class Model:
    """A model's versions.

    Args:
        source: the bundle that it was served from last.
        versions: those in memory, by name.
        answering: the version that answers requests that name none; None where the model is not ready.
        reason: why it is not.
    """

    source: Source
    versions: dict[str, Served] = field(default_factory=dict)
    answering: str | None = None
    reason: str = "not loaded yet"

    def choose(self, inputs: Mapping[str, NDArray[Any]]) -> Served | None:
        """Return the version that answers a request with these inputs."""
        return None if self.answering is None else self.versions[self.answering]


class Repository:
    """The models of one process; all its methods are called on the event loop's thread.

    Args:
        settings: with the bundles that it begins with.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.models = {source.model: Model(source) for source in settings.sources}
        self.draining = False
        self._prepared: dict[str, Opened] = {}

    @property
    def ready(self) -> bool:
        """Whether requests are welcome: every model is loaded or was unloaded on purpose, and no end was asked for."""
        return not self.draining and all(model.answering or model.reason == UNLOADED for model in self.models.values())

    def answerer(self, model: str, version: str | None, inputs: Mapping[str, NDArray[Any]]) -> Served:
        """Return the version that answers.

        Raises:
            Refusal: no such model or version, or it is not ready.
        """
        entry = self.entry(model)
        if version is None:
            served = entry.choose(inputs)
            if served is None:
                raise Refusal(f"Model {model!r} is not ready: {entry.reason}.", "draining", 1.0)
            return served
        found = entry.versions.get(version)
        if found is None:
            raise Refusal(
                f"Model {model!r} has no version {version[:40]!r} here; there is {_listed(entry.versions)}.",
                "not_found",
            )
        return found

    def entry(self, model: str) -> Model:
        """Return what is known of a model.

        Raises:
            Refusal: there is none of that name.
        """
        entry = self.models.get(model)
        if entry is None:
            raise Refusal(f"Model {model[:80]!r} is not served here; there is {_listed(self.models)}.", "not_found")
        return entry

    async def prepare(self, source: Source) -> None:
        """Open a bundle beside what is served; it takes no requests until `switch` says so.

        Raises:
            FlyweightError: the bundle is bad; what was served goes on being served.
        """
        entry = self.models.setdefault(source.model, Model(source))
        try:
            opened = await asyncio.to_thread(open_bundle, source, self.settings)
        except FlyweightError as error:
            if entry.answering is None:
                entry.reason = str(error)
            raise
        self.discard(source.model)
        self._prepared[source.model] = opened

    async def switch(self, model: str) -> None:
        """Let the prepared version answer from the next request on, and retire the one before it."""
        opened = self._prepared.pop(model, None)
        if opened is None:
            raise Refusal(f"Model {model!r} has no version that is prepared.", "conflict")
        entry, source = self.models[model], opened.source
        old = entry.versions.get(source.version)
        entry.versions[source.version] = serve_opened(opened, self.settings)
        entry.answering, entry.source, entry.reason = source.version, source, ""
        if old is not None:
            await old.retire()

    def discard(self, model: str) -> None:
        """Free what was prepared and is not wanted."""
        opened = self._prepared.pop(model, None)
        if opened is not None:
            opened.ranker.close()

    async def unload(self, model: str) -> None:
        """Take a model out of service once what it accepted is answered.

        Raises:
            Refusal: there is none of that name.
        """
        entry = self.entry(model)
        old, entry.versions = list(entry.versions.values()), {}
        entry.answering, entry.reason = None, UNLOADED
        for served in old:
            await served.retire()

    def index(self, *, ready_only: bool = False) -> list[dict[str, str]]:
        """Return every model with its state, as the protocol's repository index."""
        rows = []
        for name, entry in sorted(self.models.items()):
            for version in entry.versions:
                rows.append({"name": name, "version": version, "state": "READY", "reason": ""})
            if not entry.versions and not ready_only:
                rows.append({"name": name, "version": "", "state": "UNAVAILABLE", "reason": entry.reason})
        return rows

    async def drain(self) -> None:
        """Return when no queue holds a request."""
        for entry in self.models.values():
            for served in entry.versions.values():
                await served.lane.drain()


UNLOADED = "unloaded"


def _listed(names: Mapping[str, Any]) -> str:
    shown = ", ".join(map(repr, sorted(names)[:8]))
    return (shown or "none") + (f" and {len(names) - 8} more" if len(names) > 8 else "")

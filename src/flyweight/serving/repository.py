"""Which models are here, in which versions, and which version answers a request: looked up once a request."""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from numpy.typing import NDArray

from flyweight.errors import FlyweightError
from flyweight.serving.refusal import Refusal
from flyweight.serving.rollout import Rollout
from flyweight.serving.served import Opened, Served, open_bundle, serve_opened
from flyweight.serving.settings import Settings, Source
from flyweight.serving.shadowing import Shadowing
from flyweight.serving.splitting import takes_canary
from flyweight.serving.succession import check_succession


@dataclass
class Model:
    """A model's versions.

    Args:
        rollout: which versions are wanted, and their parts.
        versions: those in memory, by name; for a moment also some that are retired.
        reason: why the model is not ready; "" where it is.
        begun: whether a rollout was ever applied, so that a model of which none answers is unloaded on purpose.
        shadowing: compares the shadow's scores, where there is one.
    """

    rollout: Rollout
    versions: dict[str, Served] = field(default_factory=dict)
    reason: str = "not loaded yet"
    shadowing: Shadowing | None = None
    begun: bool = False

    @property
    def answering(self) -> str | None:
        """The version that answers requests that name none; None where the model is not ready."""
        return self.rollout.answering

    @property
    def source(self) -> Source:
        """The bundle that was loaded last."""
        return self.rollout.source

    def choose(self, inputs: Mapping[str, NDArray[Any]]) -> Served | None:
        """Return the version that answers a request with these inputs."""
        rollout = self.rollout
        if rollout.answering is None:
            return None
        if rollout.canary is not None and takes_canary(rollout.model, rollout.canary, inputs):
            return self.versions[rollout.canary.version]
        return self.versions[rollout.answering]

    def may_answer(self, version: str | None) -> list[Served]:
        """Return the versions of which one answers a request that names this version, or none; those held for going
        back answer none that did not ask for them.
        """
        canary = self.rollout.canary
        names = [self.answering, canary and canary.version] if version is None else [version]
        return [self.versions[name] for name in names if name is not None and name in self.versions]


class Repository:
    """The models of one process; all its methods are called on the event loop's thread.

    A change takes three steps, so that processes can take each together: `prepare` opens what is new beside what is
    served, `apply` lets it answer at once, `settle` frees what is no longer wanted. Until `settle`, an earlier rollout
    can be applied again.

    Args:
        settings: with the bundles that it begins with.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.models = {source.model: Model(Rollout(source.model, source)) for source in settings.sources}
        self.draining = False
        self._prepared: dict[tuple[str, str], Opened] = {}  # by model and digest
        self._stopping: list[Shadowing] = []

    @property
    def ready(self) -> bool:
        """Whether requests are welcome: every model is loaded or was unloaded on purpose, and no end was asked for."""
        return not self.draining and all(model.answering or model.begun for model in self.models.values())

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

    async def prepare(self, source: Source) -> str:
        """Open a bundle beside what is served and return its digest; it takes no requests until a rollout holds it.

        Raises:
            FlyweightError: the bundle is damaged, does not give its stored requests their scores, is not the one that
                the digest is of, or takes other inputs than the version that answers; what was served goes on.
        """
        if source.digest and (source.model, source.digest) in self._prepared:
            return source.digest
        entry = self.models.get(source.model)
        try:
            opened = await asyncio.to_thread(open_bundle, source, self.settings)
        except FlyweightError as error:
            if entry is not None and entry.answering is None:
                entry.reason = str(error)
            raise
        if entry is not None and entry.answering is not None:
            try:
                check_succession(entry.versions[entry.answering].opened.ranker, opened.ranker)
            except FlyweightError:
                opened.ranker.close()
                raise
        self._forget([(source.model, opened.digest)])
        self._prepared[source.model, opened.digest] = opened
        return opened.digest

    def apply(self, rollout: Rollout) -> None:
        """Let a rollout's versions answer from the next request on; those that it does not hold stay until `settle`.

        Raises:
            Refusal: a version was not prepared, or a canary's field is no input of a request; nothing was changed.
        """
        model = rollout.model
        entry = self.models.get(model) or Model(rollout)
        fresh = [one for one in rollout.held if one.version not in entry.versions]
        lost = next((one.version for one in fresh if (model, one.digest) not in self._prepared), None)
        if lost is not None:
            raise Refusal(f"Model {model!r}: version {lost!r} is not prepared.", "conflict")
        self._check_field(rollout)
        for source in fresh:
            opened = replace(self._prepared.pop((model, source.digest)), source=source)
            entry.versions[source.version] = serve_opened(opened, self.settings)
        self.models[model] = entry
        self._set_shadow(entry, rollout)
        entry.rollout, entry.reason, entry.begun = rollout, UNLOADED if rollout.answering is None else "", True

    async def settle(self, model: str) -> None:
        """Answer what versions that are no longer held have accepted, then free their memory."""
        self.discard(model)
        stopping, self._stopping = self._stopping, []
        for shadowing in stopping:
            await shadowing.stop()
        entry = self.entry(model)
        for version in [one for one in entry.versions if one not in entry.rollout.versions]:
            await entry.versions.pop(version).retire()

    def discard(self, model: str) -> None:
        """Free what was prepared and is not wanted."""
        self._forget([key for key in self._prepared if key[0] == model])

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
        for entry in list(self.models.values()):  # a change that is under way may free versions meanwhile
            for served in list(entry.versions.values()):
                await served.lane.drain()
            if entry.shadowing is not None:
                await entry.shadowing.stop()

    def _set_shadow(self, entry: Model, rollout: Rollout) -> None:
        shadow, running = rollout.shadow, entry.shadowing
        # What it showed beside one version says nothing of how it compares with another.
        if running is not None and running.shadow == shadow and rollout.answering == entry.rollout.answering:
            return
        if running is not None:
            self._stopping.append(running)
        entry.shadowing = None if shadow is None else Shadowing(shadow, entry.versions[shadow.version])

    def _check_field(self, rollout: Rollout) -> None:
        if rollout.canary is None or rollout.canary.field is None or rollout.answering is None:
            return
        entry = self.models.get(rollout.model)
        served = None if entry is None else entry.versions.get(rollout.answering)
        digest = rollout.versions[rollout.answering].digest
        takes = self._prepared[rollout.model, digest].takes if served is None else served.opened.takes
        if rollout.canary.field not in takes.asked:
            raise Refusal(
                f"The canary's field {rollout.canary.field[:80]!r} is no input of a request of model "
                f"{rollout.model!r}; it takes {_listed(takes.asked)}."
            )

    def _forget(self, keys: Iterable[tuple[str, str]]) -> None:
        for key in keys:
            opened = self._prepared.pop(key, None)
            if opened is not None:
                opened.ranker.close()


UNLOADED = "unloaded"


def _listed(names: Mapping[str, Any]) -> str:
    shown = ", ".join(map(repr, sorted(names)[:8]))
    return (shown or "none") + (f" and {len(names) - 8} more" if len(names) > 8 else "")

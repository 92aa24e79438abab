"""Which versions of a model are held and which of them answers: one value, told to every worker and kept on disk."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from flyweight.errors import InputError
from flyweight.serving.settings import Source

#: Versions of one model that may be held at once: each has an engine's memory of its own in every worker.
MOST_HELD = 8


@dataclass(frozen=True)
class Canary:
    """A version that answers a part of the requests.

    Args:
        version: its name.
        percent: of the requests that name no version, from 0 to 100.
        field: a request's input; equal values always get the same version. None draws for each request by itself.
    """

    version: str
    percent: float
    field: str | None = None

    def __post_init__(self) -> None:
        _check_percent("The canary", self.percent)


@dataclass(frozen=True)
class Shadow:
    """A version that scores what another one answers, for comparing.

    Args:
        version: its name.
        percent: of the answered requests, drawn at random.
        top: how many of the best candidates are compared as a set.
    """

    version: str
    percent: float = 100.0
    top: int = 20

    def __post_init__(self) -> None:
        _check_percent("The shadow", self.percent)
        if not 1 <= self.top <= 10_000:
            raise InputError(f"The shadow's top must be a whole number from 1 to 10,000; seen {self.top}.")


@dataclass(frozen=True)
class Rollout:
    """What is held of a model and who answers.

    Args:
        model: its name.
        source: the bundle that was loaded last, at the path that was given, perhaps a link's; loading without a path
            takes what lies there then.
        held: the versions in memory, in the order in which they were loaded, at the paths where they lie.
        answering: the version that answers; None where the model is unloaded.
        before: versions that answered before and are held for going back, latest first.
        canary, shadow: the versions with these parts.
        newest: the highest number that was given to a version; no number is given twice.
        begun: the bundle of the command line; None where the model was added to the running service.

    Raises:
        InputError: a part is given to a version that is not held, or two parts that exclude each other to one.
    """

    model: str
    source: Source
    held: tuple[Source, ...] = ()
    answering: str | None = None
    before: tuple[str, ...] = ()
    canary: Canary | None = None
    shadow: Shadow | None = None
    newest: int = 0
    begun: Source | None = None

    def __post_init__(self) -> None:
        if len(self.versions) != len(self.held):
            raise InputError(f"Model {self.model!r}: two versions have one name; seen {list(self.versions)}.")
        named = dict.fromkeys(self.before, "answered before")
        named |= {part.version: f"is the {name}" for name, part in self._parts.items()}
        if self.answering is not None:
            named[self.answering] = "answers"
        for version, does in named.items():
            if version not in self.versions:
                raise InputError(f"Model {self.model!r} holds no version {version[:64]!r}, which {does}; {self.words}.")
        for name, part in self._parts.items():
            if part.version == self.answering:
                raise InputError(f"Version {self.answering!r} answers, so it cannot be the {name}; {self.words}.")
        if self.answering is None and self.held:
            raise InputError(f"Model {self.model!r} holds versions and none answers.")

    @property
    def versions(self) -> dict[str, Source]:
        """The bundles that are held, by their versions."""
        return {source.version: source for source in self.held}

    @property
    def _parts(self) -> dict[str, Canary | Shadow]:
        """The parts that versions have beside answering."""
        found = {"canary": self.canary, "shadow": self.shadow}
        return {name: part for name, part in found.items() if part is not None}

    @property
    def words(self) -> str:
        """What is held, for errors."""
        listed = ", ".join(map(repr, self.versions)) or "no version"
        return f"there is {listed}" + ("" if self.answering is None else f", and {self.answering!r} answers")

    @property
    def parts(self) -> str:
        """Who else gets requests, for logs; "" where nobody does."""
        canary, shadow = self.canary, self.shadow
        by = f" by {canary.field!r}" if canary is not None and canary.field else ""
        told = [] if canary is None else [f"{canary.version!r} is the canary of {canary.percent:g} %{by}"]
        told += [] if shadow is None else [f"{shadow.version!r} the shadow of {shadow.percent:g} %"]
        return "".join(f", {one}" for one in told)

    def holding(self, source: Source, given: str | None = None) -> "Rollout":
        """Return it with one more version, which has no part yet unless it is the first.

        Args:
            given: the path by which it was asked for, where that is another one than where it lies.

        Raises:
            InputError: as many are held as may be.
        """
        if len(self.held) >= MOST_HELD:
            raise InputError(
                f"Model {self.model!r} holds {len(self.held)} versions, the most that it may; retire one first: "
                f"{self.words}."
            )
        number = source.version.isdecimal() and len(source.version) < 16  # what JSON's numbers hold
        newest = max(self.newest, int(source.version) if number else 0)
        answering = source.version if self.answering is None else self.answering
        asked = replace(source, path=given or source.path)
        return replace(self, source=asked, held=(*self.held, source), answering=answering, newest=newest)

    def recording(self, digests: Mapping[str, str]) -> "Rollout":
        """Return it with the digests of versions that have been opened."""
        held = tuple(replace(one, digest=digests.get(one.version, one.digest)) for one in self.held)
        seen = {one.version: one.digest for one in held}
        source = replace(self.source, digest=seen.get(self.source.version, self.source.digest))
        begun = self.begun
        if begun is not None and not begun.digest:
            begun = replace(begun, digest=seen.get(begun.version, ""))
        return replace(self, source=source, held=held, begun=begun)

    def activating(self, version: str, keep: int) -> "Rollout":
        """Return it with another version answering, and `keep` of those that answered before held for going back.

        Raises:
            InputError: the version is not held.
        """
        if version == self.answering:
            return self
        old = () if self.answering is None else (self.answering,)
        history = tuple(one for one in (*old, *self.before) if one != version)
        wanted = replace(self._holding(version).ending(version), answering=version, before=history[:keep])
        return wanted._free(history[keep:])

    def going_back(self) -> "Rollout":
        """Return it with the version before answering all requests; the one that answered, and a canary, end.

        Raises:
            InputError: no version from before is held.
        """
        if not self.before:
            raise InputError(f"Model {self.model!r} has no version from before to go back to; {self.words}.")
        back, rolled = self.before[0], self.answering
        wanted = replace(self.ending(back), answering=back, before=self.before[1:], canary=None)
        return wanted._free([rolled] if rolled is not None else [])

    def ending(self, version: str) -> "Rollout":
        """Return it without the canary or shadow that is this version."""
        canary = None if self.canary is not None and self.canary.version == version else self.canary
        shadow = None if self.shadow is not None and self.shadow.version == version else self.shadow
        return replace(self, canary=canary, shadow=shadow)

    def retiring(self, version: str) -> "Rollout":
        """Return it without a version.

        Raises:
            InputError: it is not held, or it has a part that must end first.
        """
        self._holding(version)
        if version == self.answering:
            raise InputError(f"Version {version!r} answers; let another one answer first. {self.words}.")
        for name, part in self._parts.items():
            if part.version == version:
                raise InputError(f"Version {version!r} is the {name}; end that first.")
        return self.without([version])

    def without(self, lost: Iterable[str]) -> "Rollout":
        """Return it without versions that are no more, whatever their parts; the one before answers where need be."""
        gone = set(lost)
        before = tuple(one for one in self.before if one not in gone)
        answering = self.answering
        if answering in gone:
            answering, before = (before[0], before[1:]) if before else (None, ())
        held = tuple(source for source in self.held if source.version not in gone) if answering is not None else ()
        kept = {source.version for source in held} - {answering}
        canary = self.canary if self.canary is not None and self.canary.version in kept else None
        shadow = self.shadow if self.shadow is not None and self.shadow.version in kept else None
        return replace(self, held=held, answering=answering, before=before, canary=canary, shadow=shadow)

    def unloaded(self) -> "Rollout":
        """Return it with nothing held."""
        return replace(self, held=(), answering=None, before=(), canary=None, shadow=None)

    def _holding(self, version: str) -> "Rollout":
        """Return it, if it holds a version."""
        if version not in self.versions:
            raise InputError(f"Model {self.model!r} holds no version {version[:64]!r}; {self.words}.")
        return self

    def _free(self, versions: Iterable[str]) -> "Rollout":
        """Return it without versions that have no part."""
        parts = {part.version for part in self._parts.values()}
        return self.without(version for version in versions if version not in parts)


def rollout_of(values: Mapping[str, Any]) -> Rollout:
    """Return the rollout that `dataclasses.asdict` made these values of.

    Raises:
        InputError: the parts do not fit each other.
        TypeError, KeyError: the values are not a rollout's.
    """
    canary, shadow, begun = values["canary"], values["shadow"], values["begun"]
    told: dict[str, Any] = {
        **values,
        "source": Source(**values["source"]),
        "held": tuple(Source(**one) for one in values["held"]),
        "before": tuple(values["before"]),
        "canary": None if canary is None else Canary(**canary),
        "shadow": None if shadow is None else Shadow(**shadow),
        "begun": None if begun is None else Source(**begun),
    }
    return Rollout(**told)


def begun_with(source: Source) -> Rollout:
    """Return what holds when a service begins with a bundle of its command line."""
    return Rollout(source.model, source, begun=source).holding(source.where_it_lies(), source.path)


def _check_percent(whose: str, percent: float) -> None:
    if not 0 <= percent <= 100:
        raise InputError(f"{whose}'s percent must be from 0 to 100; seen {percent}.")

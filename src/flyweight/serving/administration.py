"""Changing what is served in every worker: what one worker is asked for, all of them do."""

from collections.abc import Mapping
from typing import Any, Protocol

from flyweight.serving.changes import Changes
from flyweight.serving.following import Follower
from flyweight.serving.json_body import kind_of
from flyweight.serving.refusal import Refusal
from flyweight.serving.repository import Repository
from flyweight.serving.wire import Wire


class Administration(Protocol):
    """Changes what is served."""

    async def load(self, model: str, parameters: Mapping[str, Any]) -> None:
        """Load a model, or load it again from its path.

        Raises:
            FlyweightError: there is none of that name, or its bundle is bad; what was served goes on being served.
        """
        ...

    async def unload(self, model: str) -> None:
        """Take a model out of service once what was accepted is answered."""
        ...

    async def change(self, change: str, model: str, values: Mapping[str, Any]) -> Any:
        """Make one of the changes of `changes.Changes` and return what it returns.

        Raises:
            FlyweightError: it cannot be made; nothing was changed.
        """
        ...


class OwnAdministration:
    """Changes what this process serves, and no other.

    Args:
        repository: its models.
    """

    def __init__(self, repository: Repository) -> None:
        follower = Follower(repository)
        rollouts = {name: entry.rollout for name, entry in repository.models.items()}
        self._changes = Changes(rollouts, lambda: [follower], repository.settings.keep)

    async def load(self, model: str, parameters: Mapping[str, Any]) -> None:
        """Load a model from the path that it had."""
        refuse_parameters(parameters)
        await self.change("load", model, {})

    async def unload(self, model: str) -> None:
        """Unload a model."""
        await self.change("unload", model, {})

    async def change(self, change: str, model: str, values: Mapping[str, Any]) -> Any:
        """Make a change in this process."""
        return await self._changes.change(change, model, values)


class AskedAdministration:
    """Changes what all workers serve, by asking the process above them.

    Args:
        wire: to the process above.
    """

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def load(self, model: str, parameters: Mapping[str, Any]) -> None:
        """Load a model in every worker, or in none."""
        refuse_parameters(parameters)
        await self.change("load", model, {})

    async def unload(self, model: str) -> None:
        """Unload a model in every worker."""
        await self.change("unload", model, {})

    async def change(self, change: str, model: str, values: Mapping[str, Any]) -> Any:
        """Make a change in every worker, or in none."""
        return await self._wire.ask("change", change=change, model=model, values=dict(values))


def refuse_parameters(parameters: Any) -> None:
    """Refuse what Triton's clients may send and a bundle has no use for.

    Raises:
        Refusal: a configuration or files are in the parameters.
    """
    if not isinstance(parameters, Mapping):
        raise Refusal(f"parameters must be an object; seen {kind_of(parameters)}.")
    odd = next((name for name in parameters if name != "unload_dependents"), None)
    if odd is not None:
        raise Refusal(f"Parameter {str(odd)[:60]!r} is not taken: a bundle carries its own configuration and files.")

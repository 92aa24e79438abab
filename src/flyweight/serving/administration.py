"""Loading and unloading models in every worker: what one worker is asked for, all of them do."""

from collections.abc import Mapping
from typing import Any, Protocol

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


class OwnAdministration:
    """Changes what this process serves, and no other."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository

    async def load(self, model: str, parameters: Mapping[str, Any]) -> None:
        """Load a model from the path that it had."""
        refuse_parameters(parameters)
        await self._repository.prepare(self._repository.entry(model).source)
        await self._repository.switch(model)

    async def unload(self, model: str) -> None:
        """Unload a model."""
        await self._repository.unload(model)


class AskedAdministration:
    """Changes what all workers serve, by asking the process above them.

    Args:
        repository: of this worker, which knows the models' names.
        wire: to the process above.
    """

    def __init__(self, repository: Repository, wire: Wire) -> None:
        self._repository = repository
        self._wire = wire

    async def load(self, model: str, parameters: Mapping[str, Any]) -> None:
        """Load a model in every worker, or in none."""
        refuse_parameters(parameters)
        self._repository.entry(model)
        await self._wire.ask("load", model=model)

    async def unload(self, model: str) -> None:
        """Unload a model in every worker."""
        self._repository.entry(model)
        await self._wire.ask("unload", model=model)


def refuse_parameters(parameters: Any) -> None:
    """Refuse what Triton's clients may send and a bundle has no use for.

    Raises:
        Refusal: a configuration or files are in the parameters.
    """
    if not isinstance(parameters, Mapping):
        raise Refusal(f"parameters must be an object; seen {type(parameters).__name__}.")
    odd = next((name for name in parameters if name != "unload_dependents"), None)
    if odd is not None:
        raise Refusal(f"Parameter {str(odd)[:60]!r} is not taken: a bundle carries its own configuration and files.")

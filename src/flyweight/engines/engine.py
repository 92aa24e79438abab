"""The contract of an engine: prepare a model file, run it on arrays, say what cannot be run."""

from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from numpy.typing import NDArray


@runtime_checkable
class Prepared(Protocol):
    """A model that an engine holds ready."""

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the inputs, in the model's order."""
        ...

    def run(self, inputs: dict[str, NDArray[Any]]) -> NDArray[Any]:
        """Return the scores of a batch, shape (rows,) or (rows, columns), as an array of the caller's own.

        Raises:
            InputError: a name, type or shape is not the model's.
            EngineError: the engine failed, or the model is closed.
        """
        ...

    def close(self) -> None:
        """Free the engine's memory; running afterwards is an error, closing again is not."""
        ...


@runtime_checkable
class Engine(Protocol):
    """A way to run ONNX files."""

    @property
    def name(self) -> str:
        """The name in reports, bundles and on the command line."""
        ...

    def available(self) -> str | None:
        """Return None if the engine can be used here, else why not and what to install."""
        ...

    def cannot_run(self, path: Path) -> str | None:
        """Return None if the engine takes the model, else which of its operators it does not, or what it said."""
        ...

    def prepare(self, path: Path, threads: int = 0) -> Prepared:
        """Load a model; `threads` is how many it may use for one call, 0 leaves it to the engine.

        Raises:
            EngineError: the engine is missing or refuses the model; its name and its first line.
        """
        ...

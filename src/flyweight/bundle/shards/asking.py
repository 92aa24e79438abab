"""Which rows a call asks for: the graph of places, run in ONNX Runtime, which every install has."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from flyweight.engines.complaint import complaint
from flyweight.engines.inputs import read_signature
from flyweight.engines.onnx_runtime import OnnxRuntime, session_options
from flyweight.errors import EngineError

Arrays = Mapping[str, NDArray[Any]]


class Asking:
    """Works out the places of a call's lookups.

    Args:
        path: of `lookups.onnx`.
        outputs: the places wanted, by name.
    """

    def __init__(self, path: Path, outputs: list[str]) -> None:
        self._session: Any = OnnxRuntime().open(path, session_options(path, 1))
        self._outputs = outputs
        signature = read_signature(path)
        self._inputs = [*signature.names, *(one.name for one in signature.optional)]

    def places(self, inputs: Arrays) -> list[NDArray[Any]]:
        """Return the places of each lookup, whole numbers of any shape, for inputs as a ranker hands them to an engine.

        Raises:
            EngineError: ONNX Runtime failed, or this was closed.
        """
        session = self._session
        if session is None:
            raise EngineError("The lookups are closed; load the bundle again.")
        given = {name: inputs[name] for name in self._inputs if name in inputs}
        try:
            found: list[NDArray[Any]] = session.run(self._outputs, given)
        except Exception as error:  # its exceptions have no parent of their own; only its call stands in this block
            raise complaint("onnxruntime", "could not work out which rows are asked for", error) from error
        return found

    def close(self) -> None:
        """Free the session."""
        self._session = None

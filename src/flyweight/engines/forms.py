"""A prepared model that an engine compiles anew for each set of optional inputs that calls give."""

import threading
from collections.abc import Callable, Mapping
from typing import Any

from numpy.typing import NDArray

from flyweight.engines.complaint import complaint
from flyweight.engines.inputs import Signature
from flyweight.errors import EngineError

#: Runs fitted arrays.
Run = Callable[[Mapping[str, NDArray[Any]]], NDArray[Any]]
#: Compiles a model for calls that give the optional inputs of these names; the others are constants to it.
Compile = Callable[[tuple[str, ...]], Run]


class PreparedForms:
    """A model in an engine, compiled at once for calls without optional inputs and, when first given, for those with.

    Several threads may call it.

    Args:
        compile_form: compiles it for some optional inputs.
        signature: what it takes.
        name: the engine's, for errors.
    """

    def __init__(self, compile_form: Compile, signature: Signature, name: str) -> None:
        self._compile = compile_form
        self._signature = signature
        self._name = name
        self._compiling = threading.Lock()
        self._forms: dict[tuple[str, ...], Run] | None = {(): compile_form(())}

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the inputs, in the model's order."""
        return self._signature.names

    def run(self, inputs: dict[str, NDArray[Any]]) -> NDArray[Any]:
        """Return the scores of a batch."""
        forms = self._forms
        if forms is None:
            raise EngineError(f"{self._name}: the model is closed; prepare it again.")
        arrays = self._signature.fit(inputs)
        given = self._signature.given(arrays)
        if given not in forms:
            with self._compiling:  # it may take a minute: once is enough, and other forms go on being called
                if given not in forms:
                    forms[given] = self._compile(given)
        try:
            return forms[given](arrays)
        except Exception as error:  # engines raise what they like; only their call stands in this block
            raise complaint(self._name, "failed", error) from error

    def close(self) -> None:
        """Free the engine's memory."""
        self._forms = None

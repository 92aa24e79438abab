"""OpenVINO on the processor: an extra, imported when first used."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from flyweight.engines.complaint import complaint
from flyweight.engines.four_bits import crashing_weights
from flyweight.engines.inputs import Input, fit_inputs, read_inputs
from flyweight.errors import EngineError

NAME = "openvino"
MISSING = f"{NAME} is not installed: pip install 'flyweight[openvino]'"


class OpenVino:
    """Runs ONNX files with `openvino`.

    Args:
        precision: what is not quantised is computed in "f32", or in "bf16", which keeps eight bits of each number and
            needs a processor that has it. Left to itself, OpenVINO takes bfloat16 without a word.
    """

    def __init__(self, precision: Literal["f32", "bf16"] = "f32") -> None:
        self.name = NAME if precision == "f32" else f"{NAME}-{precision}"
        self._precision = precision

    def available(self) -> str | None:
        """Return None if `openvino` is installed and the processor has the precision, else what is missing."""
        if not find_spec("openvino"):
            return MISSING
        if self._precision == "bf16" and "BF16" not in _capabilities():
            return f"{self.name}: this processor does not compute in bfloat16"
        return None

    def cannot_run(self, path: Path) -> str | None:
        """Return None if its processor plug-in supports every operator of the model, else which it does not."""
        openvino = _import()
        core = openvino.Core()
        try:
            crashing = crashing_weights(path)
            if crashing is not None:
                return self._refusal(crashing)
            model = core.read_model(str(path))
            supported = core.query_model(model, "CPU")
        except Exception as error:  # openvino raises plain RuntimeErrors, and others for broken files
            return str(complaint(self.name, f"refused {path.name}", error))
        lacking = sorted(
            {op.get_type_name() for op in model.get_ordered_ops() if op.get_friendly_name() not in supported}
        )
        return f"{NAME} has no {', '.join(lacking)} for this model" if lacking else None

    def prepare(self, path: Path, threads: int = 0) -> "PreparedNetwork":
        """Read a model and compile it for the processor."""
        return PreparedNetwork(self.compile(path, threads), read_inputs(path))

    def compile(self, path: Path, threads: int = 0) -> Any:
        """Return OpenVINO's own compiled model.

        Raises:
            EngineError: OpenVINO is missing or refuses the model.
        """
        openvino = _import()
        settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": self._precision,
            "PERFORMANCE_HINT": "LATENCY",
            # Beside integer weights it would round float32 activations too, which the file does not ask for.
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
        }
        if threads:
            settings["INFERENCE_NUM_THREADS"] = threads
        try:
            crashing = crashing_weights(path)
            if crashing is not None:
                raise EngineError(self._refusal(crashing))
            return openvino.Core().compile_model(str(path), "CPU", settings)
        except EngineError:
            raise
        except Exception as error:  # as above
            raise complaint(self.name, f"refused {path.name}", error) from error

    def _refusal(self, weights: str) -> str:
        return f"{self.name} divides by zero on 4-bit weights with a scale for each input, as {weights[:80]!r} has"


class PreparedNetwork:
    """A compiled network of OpenVINO, with one request to run it by."""

    def __init__(self, compiled: Any, inputs: tuple[Input, ...]) -> None:
        self._request = compiled.create_infer_request()
        self._inputs = inputs
        # Ports by place: one name may stand for several.
        self._ports = [port.get_node().get_friendly_name() for port in compiled.inputs]

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the inputs, in the model's order."""
        return tuple(one.name for one in self._inputs)

    def run(self, inputs: dict[str, NDArray[Any]]) -> NDArray[Any]:
        """Return the scores of a batch."""
        if self._request is None:
            raise EngineError(f"{NAME}: the model is closed; prepare it again.")
        arrays = fit_inputs(self._inputs, inputs)
        try:
            ports = {place: arrays[name] for place, name in enumerate(self._ports)}
            # Inputs are only read during the call; the output is copied, because the next call writes over it.
            outputs = self._request.infer(ports, share_inputs=True, share_outputs=True)
        except Exception as error:  # as above
            raise complaint(NAME, "failed", error) from error
        return np.array(outputs[0])

    def close(self) -> None:
        """Free the network."""
        self._request = None


@cache
def _capabilities() -> frozenset[str]:
    return frozenset(_import().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


def _import() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise EngineError(MISSING) from error
    return openvino

"""OpenVINO on the processor: an extra, imported when first used."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyweight.engines.complaint import complaint
from flyweight.engines.inputs import Input, fit_inputs, read_inputs
from flyweight.errors import EngineError

NAME = "openvino"
MISSING = f"{NAME} is not installed: pip install 'flyweight[openvino]'"


class OpenVino:
    """Runs ONNX files with `openvino`, in float32: its own choice would be bfloat16 where the processor has it."""

    name = NAME

    def available(self) -> str | None:
        """Return None if `openvino` is installed, else what to install."""
        return None if find_spec("openvino") else MISSING

    def cannot_run(self, path: Path) -> str | None:
        """Return None if its processor plug-in supports every operator of the model, else which it does not."""
        openvino = _import()
        core = openvino.Core()
        try:
            model = core.read_model(str(path))
            supported = core.query_model(model, "CPU")
        except Exception as error:  # openvino raises plain RuntimeErrors, and others for broken files
            return str(complaint(NAME, f"refused {path.name}", error))
        lacking = sorted(
            {op.get_type_name() for op in model.get_ordered_ops() if op.get_friendly_name() not in supported}
        )
        return f"{NAME} has no {', '.join(lacking)} for this model" if lacking else None

    def prepare(self, path: Path, threads: int = 0) -> "PreparedNetwork":
        """Read a model and compile it for the processor."""
        openvino = _import()
        settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        if threads:
            settings["INFERENCE_NUM_THREADS"] = threads
        try:
            compiled = openvino.Core().compile_model(str(path), "CPU", settings)
        except Exception as error:  # as above
            raise complaint(NAME, f"refused {path.name}", error) from error
        return PreparedNetwork(compiled, read_inputs(path))


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


def _import() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise EngineError(MISSING) from error
    return openvino

"""OpenVINO on the processor: an extra, imported when first used."""

import threading
from collections.abc import Mapping
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from flyweight.engines.complaint import complaint
from flyweight.engines.forms import PreparedForms, Run
from flyweight.engines.four_bits import crashing_weights
from flyweight.engines.inputs import read_signature
from flyweight.engines.rounded_indices import rounded_index
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
        _import()
        try:
            core = _core()
            crashing = crashing_weights(path)
            if crashing is not None:
                return self._refusal(crashing)
            index = rounded_index(path) if self._precision == "bf16" else None
            if index is not None:
                return f"{self.name} would round the floats that {index!r} makes whole numbers of"
            model = core.read_model(str(path))
            supported = core.query_model(model, "CPU")
        except Exception as error:  # openvino raises plain RuntimeErrors, and others for broken files
            return str(complaint(self.name, f"refused {path.name}", error))
        lacking = sorted(
            {op.get_type_name() for op in model.get_ordered_ops() if op.get_friendly_name() not in supported}
        )
        return f"{NAME} has no {', '.join(lacking)} for this model" if lacking else None

    def prepare(self, path: Path, threads: int = 0) -> PreparedForms:
        """Read a model and compile it for the processor."""

        def form(given: tuple[str, ...]) -> Run:
            return partial(_run, _OfThread(self.compile(path, threads, given)))

        first = form(())  # refuses a damaged file
        return PreparedForms(lambda given: form(given) if given else first, read_signature(path), self.name)

    def compile(
        self, path: Path, threads: int = 0, given: tuple[str, ...] = (), *, counters: bool = False
    ) -> Any:
        """Return OpenVINO's own compiled model.

        Args:
            given: optional inputs that calls will give; the others are taken for constants, and worked out once.
            counters: let it time each operator.

        Raises:
            EngineError: OpenVINO is missing or refuses the model.
        """
        _import()
        settings = plugin_settings(self._precision)
        if counters:
            settings["PERF_COUNT"] = True
        if threads:
            settings["INFERENCE_NUM_THREADS"] = threads
        try:
            crashing = crashing_weights(path)
            if crashing is not None:
                raise EngineError(self._refusal(crashing))
            core = _core()
            if not given:
                return core.compile_model(str(path), "CPU", settings)
            return core.compile_model(_opened(core.read_model(str(path)), given), "CPU", settings)
        except EngineError:
            raise
        except Exception as error:  # as above
            raise complaint(self.name, f"refused {path.name}", error) from error

    def _refusal(self, weights: str) -> str:
        return f"{self.name} divides by zero on 4-bit weights with a scale for each input, as {weights[:80]!r} has"


def plugin_settings(precision: Literal["f32", "bf16"]) -> dict[str, Any]:
    """Return what its processor plug-in is told: to answer one call soon, and no less exactly than asked."""
    return {
        "INFERENCE_PRECISION_HINT": precision,
        "PERFORMANCE_HINT": "LATENCY",
        # Beside integer weights it would round float32 activations too, which the file does not ask for.
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
    }


class _OfThread(threading.local):
    """An infer request for each thread that calls.

    One request holds one set of inputs and outputs, and says nothing where a second thread writes over them: each gets
    the scores of the other.
    """

    def __init__(self, compiled: Any) -> None:
        self.request = compiled.create_infer_request()


def _run(own: _OfThread, arrays: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    request = own.request
    placed = by_place(request.model_inputs, arrays)
    # Inputs are only read during the call; the output is copied, because the next call writes over it.
    return np.array(request.infer(placed, share_inputs=True, share_outputs=True)[0])


def by_place(ports: Any, arrays: Mapping[str, NDArray[Any]]) -> dict[int, NDArray[Any]]:
    """Return the arrays by the place of the port that takes each: one name may stand for several ports."""
    return {place: arrays[port.get_node().get_friendly_name()] for place, port in enumerate(ports)}


def note_of(node: Any, name: str) -> str:
    """Return what OpenVINO notes of an operator that it runs; older versions wrap it."""
    value = node.get_rt_info()[name]
    return str(value.astype(str) if hasattr(value, "astype") else value)


def _opened(model: Any, given: tuple[str, ...]) -> Any:
    """Make inputs of the constants that OpenVINO has read optional inputs as; every shape is worked out again."""
    from openvino import PartialShape, opset13

    constants = {
        op.get_friendly_name(): op for op in model.get_ordered_ops() if op.get_friendly_name() in given
    }
    for name in given:
        if name not in constants:  # nothing reads it: the model gives the same scores without
            continue
        old = constants[name].output(0)
        new = opset13.parameter(PartialShape([-1] * len(old.get_shape())), old.get_element_type(), name=name)
        old.replace(new.output(0))
        model.add_parameters([new])
    model.validate_nodes_and_infer_types()
    return model


@cache
def _core() -> Any:
    """Return the one `openvino.Core` of the process, which lives as long.

    A Core gives the thread that makes it a stack for signals, and puts back the one before when it goes; two that go in
    the order in which they came leave a stack that has been freed, and the next Ctrl-C is a segmentation fault.
    """
    return _import().Core()


@cache
def _capabilities() -> frozenset[str]:
    return frozenset(_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


def _import() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise EngineError(MISSING) from error
    return openvino

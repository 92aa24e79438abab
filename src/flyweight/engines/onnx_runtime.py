"""ONNX Runtime on the processor: the default engine."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from flyweight.engines.complaint import complaint
from flyweight.engines.inputs import Input, fit_inputs, read_inputs
from flyweight.engines.operators import operator_counts
from flyweight.errors import EngineError

NAME = "onnxruntime"


class OnnxRuntime:
    """Runs ONNX files with `onnxruntime`, which the core install brings."""

    name = NAME

    def available(self) -> str | None:
        """Return None if `onnxruntime` is installed, else what to install."""
        return None if find_spec("onnxruntime") else f"{NAME} is not installed: pip install onnxruntime"

    def cannot_run(self, path: Path) -> str | None:
        """Return None if a session takes the model, else its complaint."""
        try:
            _session(path, threads=1, optimise=False)
        except EngineError as error:
            return str(error)
        return None

    def prepare(self, path: Path, threads: int = 0) -> "PreparedSession":
        """Load a model into a session."""
        return PreparedSession(_session(path, threads, optimise=True), read_inputs(path))


class PreparedSession:
    """A session of ONNX Runtime."""

    def __init__(self, session: Any, inputs: tuple[Input, ...]) -> None:
        self._session = session
        self._inputs = inputs
        self._outputs = [session.get_outputs()[0].name]

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the inputs, in the model's order."""
        return tuple(one.name for one in self._inputs)

    def run(self, inputs: dict[str, NDArray[Any]]) -> NDArray[Any]:
        """Return the scores of a batch."""
        if self._session is None:
            raise EngineError(f"{NAME}: the model is closed; prepare it again.")
        arrays = fit_inputs(self._inputs, inputs)
        try:
            scores: NDArray[Any] = self._session.run(self._outputs, arrays)[0]
        except Exception as error:  # its exceptions have no parent of their own; only its call stands in this block
            raise complaint(NAME, "failed", error) from error
        return scores

    def close(self) -> None:
        """Free the session."""
        self._session = None


def session_options(path: Path, threads: int) -> Any:
    """Return what a session of this file is made with: all optimisations, and weights unpacked once where that is all.

    A file with integer weights and no integer activations computes in float32. ONNX Runtime would unpack them again in
    each call, or round the activations as well (MatMulNBits); folded while loading, they run as float32 weights do.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # its warnings are about its own optimiser
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")  # multiply in float32
    counts = operator_counts(path)
    if "DequantizeLinear" in counts and "QuantizeLinear" not in counts:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    return options


def _session(path: Path, threads: int, *, optimise: bool) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise EngineError(f"{NAME} is not installed: pip install onnxruntime") from error
    try:
        options = session_options(path, threads)
        if not optimise:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # as in run
        raise complaint(NAME, f"refused {path.name}", error) from error

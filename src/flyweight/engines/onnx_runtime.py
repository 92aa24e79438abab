"""ONNX Runtime: the default engine on the processor, and on a GPU where its package has the CUDA provider."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from flyweight.engines.complaint import complaint
from flyweight.engines.cuda_device import no_cuda_device
from flyweight.engines.inputs import Signature, read_signature
from flyweight.engines.operators import operator_counts
from flyweight.errors import EngineError

NAME = "onnxruntime"
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class OnnxRuntime:
    """Runs ONNX files with `onnxruntime`, which the core install brings.

    Args:
        device: "cpu", or "cuda" for its CUDA provider, which the package `onnxruntime-gpu` brings.
    """

    def __init__(self, device: Literal["cpu", "cuda"] = "cpu") -> None:
        self.name = NAME if device == "cpu" else f"{NAME}-{device}"
        self._provider = PROVIDERS[device]

    def available(self) -> str | None:
        """Return None if `onnxruntime` is installed and has the provider and its device, else what is missing."""
        if not find_spec(NAME):
            return f"{NAME} is not installed: pip install onnxruntime"
        return None if self._provider == PROVIDERS["cpu"] else _lacks_cuda(self.name)

    def cannot_run(self, path: Path) -> str | None:
        """Return None if a session takes the model, else its complaint."""
        try:
            self._session(path, threads=1, optimise=False)
        except EngineError as error:
            return str(error)
        return None

    def prepare(self, path: Path, threads: int = 0) -> "PreparedSession":
        """Load a model into a session."""
        return PreparedSession(self._session(path, threads, optimise=True), read_signature(path), self.name)

    def _session(self, path: Path, threads: int, *, optimise: bool) -> Any:
        onnxruntime = _import()
        try:
            options = session_options(path, threads)
        except Exception as error:  # a damaged file
            raise complaint(self.name, f"refused {path.name}", error) from error
        if not optimise:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        return self.open(path, options)

    def open(self, path: Path, options: Any) -> Any:
        """Return ONNX Runtime's own session of a file.

        Args:
            options: as `session_options` makes them.

        Raises:
            EngineError: the provider is missing, or refuses the model.
        """
        onnxruntime = _import()
        lacking = None if self._provider == PROVIDERS["cpu"] else _lacks_cuda(self.name)
        if lacking is not None:
            raise EngineError(lacking)
        try:
            session = onnxruntime.InferenceSession(str(path), options, providers=[self._provider])
        except Exception as error:  # as in run
            raise complaint(self.name, f"refused {path.name}", error) from error
        if self._provider not in session.get_providers():  # it falls back to the processor without an error
            raise EngineError(f"{self.name} refused {path.name}: it could not start {self._provider}.")
        return session


class PreparedSession:
    """A session of ONNX Runtime."""

    def __init__(self, session: Any, signature: Signature, name: str = NAME) -> None:
        self._session = session
        self._signature = signature
        self._name = name
        self._outputs = [session.get_outputs()[0].name]

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the inputs, in the model's order."""
        return self._signature.names

    def run(self, inputs: dict[str, NDArray[Any]]) -> NDArray[Any]:
        """Return the scores of a batch."""
        session = self._session
        if session is None:
            raise EngineError(f"{self._name}: the model is closed; prepare it again.")
        arrays = self._signature.fit(inputs)
        try:
            scores: NDArray[Any] = session.run(self._outputs, arrays)[0]
        except Exception as error:  # its exceptions have no parent of their own; only its call stands in this block
            raise complaint(self._name, "failed", error) from error
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
    # Threads wait for the next call in a loop that takes a core from all else the process runs, for up to 50 ms:
    # PyTorch beside it took 6.4 ms for a request instead of 2.4. Waiting within a call alone, a call takes 5% longer.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")  # multiply in float32
    counts = operator_counts(path)
    if "DequantizeLinear" in counts and "QuantizeLinear" not in counts:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    return options


def _lacks_cuda(name: str) -> str | None:
    if PROVIDERS["cuda"] not in _import().get_available_providers():
        return f"{name}: this onnxruntime has no CUDA provider: pip install onnxruntime-gpu in place of onnxruntime"
    why = no_cuda_device()
    return None if why is None else f"{name}: {why}"


def _import() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise EngineError(f"{NAME} is not installed: pip install onnxruntime") from error
    return onnxruntime

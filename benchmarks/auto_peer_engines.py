"""Files as ONNX Runtime and OpenVINO run them with their own defaults, by arrays of the inputs' names.

    python benchmarks/auto_peer_engines.py FILE ENGINE PRECISION ARRAYS.npz     # one call, for a try in a process apart

OpenVINO 2026.4 stops the process on some 4-bit weights, which no `except` sees: such files are tried here first.
"""

import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]
#: Seconds that a file may take to load and answer one call.
PROBE_SECONDS = 120


class OrtFile:
    """An ONNX file in ONNX Runtime: every optimisation, so many threads, all else as it comes."""

    def __init__(self, path: Path, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4  # what goes wrong is raised
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.input_names = tuple(one.name for one in self._session.get_inputs())

    def run(self, inputs: Arrays) -> NDArray[Any]:
        """Return the scores of a batch."""
        scores: NDArray[Any] = self._session.run(None, {name: inputs[name] for name in self.input_names})[0]
        return scores


class OpenVinoFile:
    """A file in OpenVINO, for latency, with a hint for what is not quantised: "f32" or "bf16"."""

    def __init__(self, path: Path, threads: int, precision: str) -> None:
        settings = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
        compiled = core().compile_model(str(path), "CPU", {**settings, "INFERENCE_NUM_THREADS": threads})
        self._request = compiled.create_infer_request()
        self.input_names = tuple(port.get_any_name() for port in compiled.inputs)

    def run(self, inputs: Arrays) -> NDArray[Any]:
        """Return the scores of a batch."""
        return np.array(self._request.infer([inputs[name] for name in self.input_names], share_inputs=True)[0])


Running = OrtFile | OpenVinoFile


@cache
def core() -> Any:
    """Return the one `openvino.Core` of the process."""
    import openvino

    return openvino.Core()


def open_file(path: Path, engine: str, precision: str, threads: int) -> Running:
    """Return a file running in "onnxruntime" or "openvino"."""
    return OrtFile(path, threads) if engine == "onnxruntime" else OpenVinoFile(path, threads, precision)


def probe(path: Path, engine: str, precision: str, arrays: Path) -> str | None:
    """Return what goes wrong when a process of its own loads a file and makes one call; None if nothing does."""
    words = [sys.executable, __file__, str(path), engine, precision, str(arrays)]
    try:
        run = subprocess.run(words, capture_output=True, text=True, timeout=PROBE_SECONDS)
    except subprocess.TimeoutExpired:
        return f"no answer to one call in {PROBE_SECONDS} s"
    if run.returncode < 0:
        return f"{engine} stopped the process (signal {-run.returncode})"
    return (run.stderr.strip().splitlines() or ["failed"])[-1] if run.returncode else None


if __name__ == "__main__":
    file, in_engine, hint, rows = sys.argv[1:]
    with np.load(rows) as given:
        open_file(Path(file), in_engine, hint, 1).run({name: given[name] for name in given.files})

"""Running what was written as the server will, and comparing its answers with the reference model's scores."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from flyweight.engines.agreement import Agreement, agreement
from flyweight.engines.complaint import complaint
from flyweight.engines.onnx_runtime import NAME, OnnxRuntime
from flyweight.engines.openvino import OpenVino, by_place
from flyweight.engines.registry import tolerance_in
from flyweight.errors import EngineError
from flyweight.serving.repositories.openvino_model_server import precision
from flyweight.serving.repositories.served_model import ServedModel
from flyweight.serving.repositories.stored_calls import Arrays, score_sample
from flyweight.task.progress import stage

Run = Callable[[Arrays], NDArray[Any]]


def confirm_scores(path: Path, model: ServedModel, engine: Literal["onnxruntime", "openvino"]) -> Agreement:
    """Score the bundle's stored requests with a file that was written for a server, and return the worst agreement.

    Args:
        path: the ONNX file.
        engine: that the server runs it with; it gets the settings that the server's configuration gives it.

    Raises:
        EngineError: the engine is missing, cannot run the file, or gives other scores.
    """
    run = _on_onnx_runtime(path, model) if engine == "onnxruntime" else _on_openvino(path, model)
    name = engine_name(model, engine)
    samples = model.bundle.samples
    found = []
    with stage(f"Checking the stored requests in {name}", total=len(samples)) as work:
        for sample in samples:
            due = sample.scores.astype(model.signature.output.dtype)
            scores = score_sample(sample, model.signature, run)
            found.append(agreement(due.reshape(scores.shape), scores, tolerance_in(name), noise=sample.noise))
            work.advance()
    bad = next((one for one in found if not one.ok), None)
    if bad is not None:
        raise EngineError(
            f"{name} does not give the scores of {model.bundle.path}: {bad.words}. Write it for a server with another "
            "engine (--to), or serve it with flyweight serve."
        )
    return max(found, key=lambda one: one.max_rel)


def engine_name(model: ServedModel, engine: Literal["onnxruntime", "openvino"]) -> str:
    """Return the engine's name with the precision that the server is told to compute in."""
    return OpenVino(precision(model)).name if engine == "openvino" else engine


def _on_onnx_runtime(path: Path, model: ServedModel) -> Run:
    """Return how to run a file with the settings that Triton's backend gives a session: none but the threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = model.bundle.timing.threads or 0
    options.log_severity_level = 3
    session = OnnxRuntime().open(path, options)

    def run(arrays: Arrays) -> NDArray[Any]:
        try:
            scores: NDArray[Any] = session.run([model.signature.output.name], arrays)[0]
        except Exception as error:  # its exceptions have no parent of their own; only its call stands in this block
            raise complaint(NAME, "failed", error) from error
        return scores

    return run


def _on_openvino(path: Path, model: ServedModel) -> Run:
    engine = OpenVino(precision(model))
    why = engine.available() or engine.cannot_run(path)
    if why is not None:
        raise EngineError(f"{model.bundle.path} cannot be written for OpenVINO Model Server: {why}.")
    request = engine.compile(path).create_infer_request()

    def run(arrays: Arrays) -> NDArray[Any]:
        try:
            return np.array(request.infer(by_place(request.model_inputs, arrays))[0])
        except Exception as error:  # OpenVINO raises plain RuntimeErrors
            raise complaint(engine.name, "failed", error) from error

    return run

"""What a benchmark calls: a file in an engine or a module, given flat batches whether or not it is hoisted."""

import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx
from numpy.typing import NDArray

from flyweight.engines.engine import Prepared
from flyweight.engines.registry import find_engine
from flyweight.errors import EngineError
from flyweight.planning.artefact import artefact_scores, one_request
from flyweight.task.field import REQUEST_INDEX, REQUESTS
from flyweight.task.scores import Scores
from flyweight.task.task import Task

ENGINES = ("onnxruntime", "openvino")


class Running(Protocol):
    """A model that can be called: what `flyweight.engines` prepares, or a peer's own."""

    def run(self, inputs: dict[str, NDArray[Any]]) -> NDArray[Any]:
        """Return the scores of a batch."""
        ...


Open = Callable[[Path, int], Mapping[str, Running]]


def open_onnx(folder: Path, threads: int, engines: tuple[str, ...] = ENGINES) -> dict[str, Running]:
    """Return `model.onnx` of a folder in every engine that takes it, by the engine's name."""
    path = folder / "model.onnx"
    requests = requests_of(path)
    found: dict[str, Running] = {}
    for name in engines:
        engine = find_engine(name)
        if engine.available() is None and engine.cannot_run(path) is None:
            try:
                prepared = engine.prepare(path, threads)
            except EngineError as error:  # compilers find out late
                say(f"{folder.name} not in {name}: {str(error)[:200]}")
                continue
            found[name] = Hoisted(prepared, requests) if requests else prepared
    return found


def requests_of(path: Path) -> frozenset[str]:
    """Return the inputs of a file that have a row for each request, none where it takes flat batches."""
    graph = onnx.load(path, load_external_data=False).graph
    dims = {value.name: value.type.tensor_type.shape.dim for value in graph.input}
    return frozenset(name for name, sizes in dims.items() if len(sizes) and sizes[0].dim_param == REQUESTS)


class Hoisted:
    """A hoisted file, given flat batches: each row as a request of its own, or all rows as candidates of one."""

    def __init__(self, prepared: Prepared, requests: frozenset[str]) -> None:
        self.prepared, self.requests = prepared, requests
        self.input_names = prepared.input_names

    def run(self, inputs: dict[str, NDArray[Any]]) -> NDArray[Any]:
        """Return the scores of a batch whose rows may be of different requests."""
        rows = max(len(value) for value in inputs.values())
        return self.prepared.run({**inputs, REQUEST_INDEX: np.arange(rows, dtype=np.int64)})

    def served(self, inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return a flat batch of one request as it is served: the request's fields once."""
        return one_request(inputs, self.requests)


def caller(running: Running, arrays: dict[str, NDArray[Any]]) -> Callable[[], object]:
    """Return a call that scores one request, given as a flat batch, in the form that the model is served in."""
    wanted = _wanted(running, arrays)
    if isinstance(running, Hoisted):
        return partial(running.prepared.run, running.served(wanted))
    return partial(running.run, wanted)


def say(words: str) -> None:
    """Print progress to the terminal."""
    print(f"[{time.strftime('%H:%M:%S')}] {words}", file=sys.stderr, flush=True)


def scores_of(task: Task, running: Any) -> Scores:
    """Return what a model scores on the test split."""
    return artefact_scores(task, _Named(running, tuple(task.inputs)), "test")


class _Named:
    """Says what a model reads where it does not say so itself: everything."""

    def __init__(self, running: Running, names: tuple[str, ...]) -> None:
        self.running = running
        self.input_names = getattr(running, "input_names", names)

    def run(self, inputs: dict[str, NDArray[Any]]) -> NDArray[Any]:
        return np.asarray(self.running.run(inputs))


def _wanted(running: Running, arrays: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    names = getattr(running, "input_names", None)
    return arrays if names is None else {name: arrays[name] for name in names}

"""Loading a bundle and scoring requests with it: NumPy and an engine, no PyTorch."""

import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyweight.bundle.manifest import Manifest
from flyweight.bundle.read import Bundle, read_bundle
from flyweight.bundle.request import batched, check_names, flat_batch, same_length, single
from flyweight.engines.engine import Prepared
from flyweight.engines.registry import ENGINES, ROUNDING, find_engine
from flyweight.errors import EngineError, InputError


class Ranker:
    """A bundle's model, ready in an engine. Use it as a context manager, or `close()` it.

    Args:
        bundle: as `read_bundle` returned it.
        prepared: its model in an engine.
        engine: the engine's name.
    """

    def __init__(self, bundle: Bundle, prepared: Prepared, engine: str) -> None:
        self.bundle = bundle
        self.engine = engine
        self._prepared: Prepared | None = prepared
        self._maps = {name: np.asarray(ids, dtype=np.int64) for name, ids in bundle.manifest.id_maps.items()}

    @property
    def manifest(self) -> Manifest:
        """What the bundle says of itself."""
        return self.bundle.manifest

    def score(
        self, request: Mapping[str, Any] | None = None, candidates: Mapping[str, Any] | None = None
    ) -> NDArray[Any]:
        """Score N candidates for one request.

        Args:
            request: inputs of role "request", without a batch dimension: a number, or a 1-D array for a history.
            candidates: inputs of role "candidate" (or "sample"), each with N rows.

        Returns:
            One score a candidate, shape (N,); (N, columns) for a model with a score for each class.

        Raises:
            InputError: a name, length, shape, id or number is not what it must be.
            EngineError: the engine failed, or the ranker is closed.

        Example:
            >>> ranker.score({"user_id": 7}, {"item_id": [3, 5]}).shape  # doctest: +SKIP
            (2,)
        """
        inputs = self.manifest.inputs
        asked = {name: spec for name, spec in inputs.items() if spec.role == "request"}
        offered = {name: spec for name, spec in inputs.items() if spec.role != "request"}
        request, candidates = _right_side(inputs, request or {}, candidates or {})
        check_names(asked, request, "request")
        check_names(offered, candidates, "candidates")
        rows = {name: batched(name, spec, candidates[name]) for name, spec in offered.items()}
        n = same_length(rows, self.bundle.graph.flat) if rows else 1
        for name, spec in asked.items():
            if n is None or name in self.bundle.graph.flat:
                raise InputError(
                    f"Input {name!r} cannot be repeated for each candidate; use predict() with a flat batch."
                )
            rows[name] = np.repeat(single(name, spec, request[name]), n, axis=0)
        return self._run(rows, n)

    def predict(self, inputs: Mapping[str, Any]) -> NDArray[Any]:
        """Return the model's outputs for a flat batch: every input, whatever its role, with N rows.

        Raises:
            InputError: a name, length, shape, id or number is not what it must be.
            EngineError: the engine failed, or the ranker is closed.
        """
        return self._run(*flat_batch(self.manifest.inputs, inputs, self.bundle.graph.flat))

    def close(self) -> None:
        """Free the engine's memory; scoring afterwards is an error, closing again is not."""
        if self._prepared is not None:
            self._prepared.close()
            self._prepared = None

    def __enter__(self) -> "Ranker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Ranker({self.manifest.name!r}, engine={self.engine!r}, inputs={list(self.manifest.inputs)})"

    def _run(self, rows: dict[str, NDArray[Any]], n: int | None) -> NDArray[Any]:
        if self._prepared is None:
            raise EngineError(f"{self!r} is closed; load the bundle again.")
        graph = self.bundle.graph
        if n == 0:
            width = [size or 0 for size in graph.output]
            return np.empty([0, *width] if math.prod(width) != 1 else [0], dtype=np.float32)
        for name, ids in self._maps.items():
            rows[name] = ids[rows[name]].astype(rows[name].dtype)
        scores = self._prepared.run({name: rows[name] for name in graph.inputs})
        n = len(scores) if n is None else n
        if scores.shape[:1] != (n,):
            raise EngineError(
                f"{self.engine} returned scores of shape {scores.shape} for {n:,} rows; "
                "the model does not score rows one by one, so it cannot be served."
            )
        return np.reshape(scores, n) if scores.size == n else scores


def load(path: str | Path, *, engine: str | None = None, threads: int = 0) -> Ranker:
    """Read a bundle, check it and start its model in an engine.

    Args:
        engine: a name from `flyweight.engines.registry`; None takes the one that was fastest when the bundle was made,
            or, where that is missing here, the first available one, with a warning.
        threads: threads the engine may use; 0 leaves it to the engine.

    Raises:
        BundleError: the bundle is damaged, altered, incomplete, newer or not to be trusted.
        InputError: the engine's name is unknown.
        EngineError: the engine asked for is not installed, or no engine can run the bundle.

    Example:
        >>> fw.load("ranker.fly").score({"user_id": 7}, {"item_id": [3, 5]}).shape  # doctest: +SKIP
        (2,)
    """
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 0:
        raise InputError(f"threads must be a whole number from 0 on; seen {threads!r}. 0 leaves it to the engine.")
    bundle = read_bundle(path)
    if engine is not None:
        return _start(bundle, engine, threads)
    return _start_first(bundle, threads)


def _start_first(bundle: Bundle, threads: int) -> Ranker:
    """Start the recorded engine or, where that cannot be had, the first that runs, with a warning."""
    recorded = bundle.timing.engine
    known = recorded in ENGINES or recorded in ROUNDING
    reasons: list[str] = [] if known else [f"{recorded} is unknown here"]
    for name in [recorded] * known + [name for name in ENGINES if name != recorded]:
        try:
            ranker = _start(bundle, name, threads)
        except EngineError as error:
            reasons.append(str(error))
            continue
        if name != recorded:
            warnings.warn(f"{bundle.path} was timed in {recorded}; using {name} ({reasons[0]}).", stacklevel=3)
        return ranker
    raise EngineError(f"No engine here can run {bundle.path} ({'; '.join(reasons)}). pip install onnxruntime.")


def _start(bundle: Bundle, engine: str, threads: int) -> Ranker:
    chosen = find_engine(engine)
    why = chosen.available()
    if why is not None:
        raise EngineError(why)
    return Ranker(bundle, chosen.prepare(bundle.model, threads), engine)


def _right_side(
    inputs: Mapping[str, Any], request: Mapping[str, Any], candidates: Mapping[str, Any]
) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Say plainly when an input was given on the wrong side of the call."""
    for given, where, due in ((request, "request", "candidates"), (candidates, "candidates", "request")):
        if not isinstance(given, Mapping):
            raise InputError(f"{where} must be a dict of values by input name; seen {type(given).__name__}.")
        for name in given:
            if name in inputs and (inputs[name].role == "request") != (where == "request"):
                raise InputError(f"Input {name!r} has role {inputs[name].role!r}; give it in {due}=, not in {where}=.")
    return request, candidates

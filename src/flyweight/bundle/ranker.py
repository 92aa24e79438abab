"""Scoring requests with a bundle: NumPy and an engine, no PyTorch."""

import math
from collections import Counter
from collections.abc import Callable, Mapping
from threading import Lock
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flyweight.bundle.manifest import Manifest
from flyweight.bundle.read import Bundle
from flyweight.bundle.request import check_repeated, check_sides, checked_offsets, flat_batch, same_length
from flyweight.bundle.values import Due, Noticed, batched, by_request, due_of, single
from flyweight.engines.engine import Prepared
from flyweight.errors import EngineError, InputError
from flyweight.task.field import REQUEST_INDEX

Arrays = dict[str, NDArray[Any]]
Read = Callable[[Due, Any, Noticed], NDArray[Any]]


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
        self.maps_unknown = True
        self._prepared: Prepared | None = prepared
        self._maps = {name: np.asarray(ids, dtype=np.int64) for name, ids in bundle.manifest.id_maps.items()}
        self._unknown: Counter[str] = Counter()
        self._counting = Lock()
        self._due = {
            name: due_of(name, entry, bundle.vocabularies.get(name)) for name, entry in bundle.manifest.inputs.items()
        }
        self._asked = {name: due for name, due in self._due.items() if due.role == "request"}
        self._offered = {name: due for name, due in self._due.items() if due.role != "request"}

    @property
    def manifest(self) -> Manifest:
        """What the bundle says of itself."""
        return self.bundle.manifest

    @property
    def unknown_ids(self) -> dict[str, int]:
        """How many ids of each input, in all that was scored since it was loaded, the vocabulary did not hold.

        An id of a request counts once, whatever its candidates.
        """
        with self._counting:
            return dict(self._unknown)

    def score(
        self, request: Mapping[str, Any] | None = None, candidates: Mapping[str, Any] | None = None
    ) -> NDArray[Any]:
        """Score N candidates for one request.

        Args:
            request: inputs of role "request", without a batch dimension: a number, or a 1-D array for a history. Text
                is looked up in the input's vocabulary, where the bundle carries one; numbers are ids.
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
        noticed = Noticed(self.maps_unknown)
        asked, rows = self._sides(request or {}, candidates or {}, single, noticed)
        n = same_length(rows, self.bundle.graph.flat) if rows else 1
        if noticed.repeated and n is not None:
            check_repeated(noticed.repeated, n)
        if self.bundle.graph.hoisted:
            return self._run(asked | rows, n, noticed)
        for name, value in asked.items():
            if n is None or name in self.bundle.graph.flat:
                raise InputError(
                    f"Input {name!r} cannot be repeated for each candidate; use predict() with a flat batch."
                )
            rows[name] = value.repeat(n, axis=0)
        return self._run(rows, n, noticed)

    def score_many(
        self, requests: Mapping[str, Any], candidates: Mapping[str, Any], offsets: ArrayLike
    ) -> NDArray[Any]:
        """Score the candidates of R requests in one call; requests may have different numbers of them, also none.

        Args:
            requests: inputs of role "request", each with R rows.
            candidates: inputs of role "candidate", the candidates of all requests one after the other.
            offsets: (R + 1,) whole numbers from 0 on: request r has the candidates offsets[r] to offsets[r + 1].

        Returns:
            One score a candidate, in their order; those of request r are `scores[offsets[r]:offsets[r + 1]]`.

        Raises:
            InputError: a name, length, shape, id or number is not what it must be.
            EngineError: the engine failed, or the ranker is closed.

        Example:
            >>> ranker.score_many({"user_id": [7, 9]}, {"item_id": [3, 5, 3]}, [0, 2, 3]).shape  # doctest: +SKIP
            (3,)
        """
        noticed = Noticed(self.maps_unknown)
        asked, rows = self._sides(requests, candidates, by_request, noticed)
        n = same_length(rows, self.bundle.graph.flat)
        if n is None or not rows:
            raise InputError("score_many() needs candidates that are cut by row; use predict() with a flat batch.")
        counts = np.diff(checked_offsets(offsets, n))
        for name, value in asked.items():
            if len(value) != len(counts):
                raise InputError(f"Request input {name!r} has {len(value):,} rows; offsets are of {len(counts):,}.")
        of_row = np.repeat(np.arange(len(counts), dtype=np.int64), counts)
        if self.bundle.graph.hoisted:
            return self._run({**asked, **rows, REQUEST_INDEX: of_row}, n, noticed)
        return self._run({**rows, **{name: value[of_row] for name, value in asked.items()}}, n, noticed)

    def predict(self, inputs: Mapping[str, Any]) -> NDArray[Any]:
        """Return the model's outputs for a flat batch: every input, whatever its role, with N rows.

        Raises:
            InputError: a name, length, shape, id or number is not what it must be.
            EngineError: the engine failed, or the ranker is closed.
        """
        noticed = Noticed(self.maps_unknown)
        rows, n = flat_batch(self._due, inputs, self.bundle.graph.flat, noticed)
        if self.bundle.graph.hoisted and n is not None:
            rows[REQUEST_INDEX] = np.arange(n, dtype=np.int64)
        return self._run(rows, n, noticed)

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

    def _sides(
        self, request: Mapping[str, Any], candidates: Mapping[str, Any], read: Read, noticed: Noticed
    ) -> tuple[Arrays, Arrays]:
        """Return the checked arrays of both sides; `read` says how a request's come."""
        check_sides(self._asked, self._offered, request, candidates)
        return (
            {name: read(due, request[name], noticed) for name, due in self._asked.items()},
            {name: batched(due, candidates[name], noticed) for name, due in self._offered.items()},
        )

    def _run(self, rows: Arrays, n: int | None, noticed: Noticed) -> NDArray[Any]:
        """Return the scores; what was noticed counts once they are there."""
        scores = self._scores(rows, n)
        if noticed.unknown:
            with self._counting:
                self._unknown.update(noticed.unknown)
        return scores

    def _scores(self, rows: Arrays, n: int | None) -> NDArray[Any]:
        if self._prepared is None:
            raise EngineError(f"{self!r} is closed; load the bundle again.")
        graph = self.bundle.graph
        if n == 0:
            width = [size or 0 for size in graph.output]
            return np.empty([0, *width] if math.prod(width) != 1 else [0], dtype=np.float32)
        for name, ids in self._maps.items():
            rows[name] = ids[rows[name]].astype(rows[name].dtype)
        index = {REQUEST_INDEX: rows[REQUEST_INDEX]} if REQUEST_INDEX in rows else {}
        scores = self._prepared.run({**{name: rows[name] for name in graph.inputs}, **index})
        n = len(scores) if n is None else n
        if scores.shape[:1] != (n,):
            raise EngineError(
                f"{self.engine} returned scores of shape {scores.shape} for {n:,} rows; "
                "the model does not score rows one by one, so it cannot be served."
            )
        return np.reshape(scores, n) if scores.size == n else scores

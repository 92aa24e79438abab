"""Retrieval: every item's vector worked out once, then a request's tower and a search, instead of a score each."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from flyweight.errors import InputError
from flyweight.task.scores import evaluating
from flyweight.zoo.exact_search import ExactIndex, Found, Index, Vectors


class TwoTowers(Protocol):
    """What a model must offer: its score is the dot product of a request's vector and a candidate's.

    `request(**fields) -> (requests, dim)` and `candidates(**fields) -> (rows, dim)`, methods of an `nn.Module`. Each
    reads only fields of its own side. `TwoTower` and `SASRec` offer both.
    """

    def request(self, **fields: Tensor) -> Tensor:
        """Return the vectors (requests, dim) of whoever asks."""
        ...

    def candidates(self, **fields: Tensor) -> Tensor:
        """Return the vectors (rows, dim) of what is offered."""
        ...


@dataclass(frozen=True, eq=False)
class Retriever:
    """A model's request side beside the vectors of all candidates, ready to be searched.

    Args:
        model: a module with `request` and `candidates`; see `TwoTowers`.
        index: holds the candidates' vectors.

    Example:
        >>> retriever = build_retriever(model, [{"item_id": torch.arange(1, 3_500)}])  # doctest: +SKIP
        >>> best = retriever.retrieve({"user_id": ids, "history": histories}, k=20)  # doctest: +SKIP
        >>> best.rows.shape  # doctest: +SKIP
        (64, 20)
    """

    model: nn.Module
    index: Index

    def retrieve(self, request: Mapping[str, Tensor], k: int, exclude: NDArray[np.int64] | None = None) -> Found:
        """Return the k best candidates of each request, as rows of the candidates in the order they were given.

        Args:
            request: the request fields, each (requests, ...).
            k: how many.
            exclude: (requests, width) candidate rows never to return (what a user has), -1 where there are fewer.

        Raises:
            InputError: k is out of range, counted with what is excluded, or a vector is not finite.
        """
        vectors = request_vectors(self.model, request)
        if exclude is None:
            return self.index.search(vectors, k)
        left_out = max((len(set(row[row >= 0])) for row in exclude), default=0)
        if k + left_out > self.index.items:
            raise InputError(
                f"k={k} items besides {left_out} excluded were asked for, but the index holds "
                f"{self.index.items:,}; ask for fewer."
            )
        return _without(self.index.search(vectors, k + left_out), exclude, k)


def build_retriever(
    model: nn.Module,
    candidates: Iterable[Mapping[str, Tensor]],
    index: Callable[[Vectors], Index] = ExactIndex,
) -> Retriever:
    """Run the candidate side once over all items and index what comes out.

    Args:
        model: a trained module with `request` and `candidates`; see `TwoTowers`.
        candidates: batches of the candidate fields; the rows found by a search count through all of them.
        index: makes an index of vectors (items, dim): `ExactIndex`, `FaissIndex`.

    Raises:
        InputError: the model lacks one of the two methods, there are no candidates, or a vector is not finite.
    """
    for name in ("request", "candidates"):
        if not callable(getattr(model, name, None)):
            raise InputError(
                f"{type(model).__name__} has no method {name}(**fields); a model to retrieve with offers "
                "request(**fields) -> (requests, dim) and candidates(**fields) -> (rows, dim), "
                "its score being their dot product."
            )
    with evaluating(model), torch.no_grad():
        parts = [_as_array(model.candidates(**batch)) for batch in candidates]  # type: ignore[operator]
    if not parts:
        raise InputError("There are no candidates to retrieve; give at least one batch of them.")
    return Retriever(model, index(np.concatenate(parts)))


def request_vectors(model: nn.Module, request: Mapping[str, Tensor]) -> Vectors:
    """Return the vectors (requests, dim) of requests, float32, in evaluation mode and without gradients."""
    with evaluating(model), torch.no_grad():
        return _as_array(model.request(**request))  # type: ignore[operator]


def _as_array(vectors: Tensor) -> Vectors:
    values: NDArray[Any] = vectors.float().numpy()
    return values


def _without(found: Found, exclude: NDArray[np.int64], k: int) -> Found:
    """Return the first k of each request that are not excluded; -1 where an index found too few."""
    rows = np.full((len(found.rows), k), -1, dtype=np.int64)
    scores = np.full((len(found.rows), k), -np.inf, dtype=np.float32)
    for request, (own, values) in enumerate(zip(found.rows, found.scores, strict=True)):
        kept = np.flatnonzero(~np.isin(own, exclude[request]) & (own >= 0))[:k]
        rows[request, : len(kept)], scores[request, : len(kept)] = own[kept], values[kept]
    return Found(rows, scores)

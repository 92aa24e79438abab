"""The k best of very many items, nearly: an index of faiss, whose recall is measured against looking at them all."""

from typing import Any

import numpy as np

from flyweight.errors import EngineError, InputError
from flyweight.zoo.exact_search import Found, Index, Vectors, check_search, check_vectors

#: Items that one core looks through in a few milliseconds: up to here, looking at all of them is quick, and right.
EXACT_UP_TO = 100_000
#: Training vectors for each list of an inverted file; faiss itself asks for 39 and takes at most 256.
_TRAINED_ON = 64


class FaissIndex:
    """An index of the `faiss` library, searched by dot product.

    An inverted file ("IVF1024,Flat": k-means lists, `nprobe` of them read) suits the most items; a graph ("HNSW32",
    `efSearch` nodes kept) is quicker to search and slower to build; "Flat" is exact. Any factory string of faiss will
    do (Douze et al. 2024, arXiv 2401.08281). Built with faiss's fixed seed: the same vectors and threads give the
    same index.

    Args:
        vectors: (items, dim), float32.
        factory: what faiss builds; None takes `default_factory(items)`.
        effort: how much a search looks at: `nprobe` of an inverted file, `efSearch` of a graph; None leaves faiss's.

    Raises:
        EngineError: faiss is not installed; says what to install.
        InputError: vectors that are no matrix of finite numbers, a factory string that faiss does not know, or an
            effort below one.
    """

    def __init__(self, vectors: Vectors, factory: str | None = None, effort: int | None = None) -> None:
        self._faiss = _import()
        vectors = check_vectors(vectors, "item")
        self._shape = vectors.shape
        self.factory = factory or default_factory(len(vectors))
        self._index = self._make(vectors.shape[1])
        self._fill(vectors)
        self.effort: int | None = None
        if effort is not None:
            self.set_effort(effort)

    @property
    def items(self) -> int:
        """How many."""
        return int(self._shape[0])

    @property
    def most_effort(self) -> int:
        """The effort beyond which nothing more can be found; 1 where an index has no effort to set."""
        inverted = getattr(self._index, "nlist", None)
        if inverted is not None:
            return int(inverted)
        return self.items if hasattr(self._index, "hnsw") else 1

    def set_effort(self, effort: int) -> None:
        """Set how much a search looks at.

        Raises:
            InputError: below one, or the index has nothing of the kind.
        """
        if effort < 1:
            raise InputError(f"effort must be at least 1; seen {effort}.")
        if hasattr(self._index, "nprobe"):
            self._index.nprobe = effort
        elif hasattr(self._index, "hnsw"):
            self._index.hnsw.efSearch = effort
        else:
            raise InputError(f"An index {self.factory} has no effort to set; leave effort out.")
        self.effort = effort

    def search(self, requests: Vectors, k: int) -> Found:
        """Return about the k items with the largest dot products, for requests (requests, dim).

        Raises:
            InputError: k is below one or above the number of items, or requests do not fit the vectors.
        """
        scores, rows = self._index.search(check_search(requests, k, self._shape), k)
        return Found(rows, np.where(rows < 0, np.float32(-np.inf), scores))

    def _make(self, dim: int) -> Any:
        try:
            return self._faiss.index_factory(dim, self.factory, self._faiss.METRIC_INNER_PRODUCT)
        except RuntimeError as error:
            raise InputError(
                f'faiss knows no index "{self.factory}" for vectors {dim} wide; use one such as "IVF1024,Flat", '
                f'"HNSW32" or "Flat". faiss says: {_last_line(error)}'
            ) from None

    def _fill(self, vectors: Vectors) -> None:
        if hasattr(self._index, "nlist") and not self._index.is_trained:
            if self._index.nlist > self.items:
                raise InputError(
                    f"{self.factory} wants {self._index.nlist:,} lists for {self.items:,} items; "
                    "take fewer lists than items."
                )
            self._index.train(_sample(vectors, _TRAINED_ON * self._index.nlist))
        elif not self._index.is_trained:
            self._index.train(vectors)
        self._index.add(vectors)


def default_factory(items: int) -> str:
    """Return "Flat" up to 100,000 items, above an inverted file of about 4 sqrt(items) lists (faiss's guidelines).

    Example:
        >>> default_factory(50_000), default_factory(1_000_000)
        ('Flat', 'IVF4096,Flat')
    """
    if items <= EXACT_UP_TO:
        return "Flat"
    return f"IVF{1 << round(np.log2(4 * items**0.5))},Flat"


def recall_of(index: Index, exact: Index, requests: Vectors, k: int) -> float:
    """Return the share of the k truly best items that an index finds, over all requests.

    Example: the best are 7, 2 and 9 and the index finds 7, 9 and 4: 2 / 3.
    """
    truth, found = exact.search(requests, k).rows, index.search(requests, k).rows
    both = [np.intersect1d(one, other, assume_unique=False) for one, other in zip(truth, found, strict=True)]
    return sum(map(len, both)) / truth.size


def tune(index: FaissIndex, exact: Index, requests: Vectors, k: int, recall: float = 0.99) -> float:
    """Double the effort of an index until it finds a share `recall` of the truly best; return the share it finds.

    The requests should be like those to come, and others than those that the recall is then reported on.

    Raises:
        InputError: `recall` is not in (0, 1], or even the most effort does not reach it.
    """
    if not 0 < recall <= 1:
        raise InputError(f"recall must lie above 0 and at most at 1, as in 0.99; seen {recall}.")
    effort, reached = 1, 0.0
    while True:
        if index.most_effort > 1:
            index.set_effort(min(effort, index.most_effort))
        reached = recall_of(index, exact, requests, k)
        if reached >= recall:
            return reached
        if effort >= index.most_effort:
            raise InputError(
                f"{index.factory} finds {reached:.4f} of the best {k} at its most effort, short of {recall}; "
                "lower the recall or take another factory."
            )
        effort *= 2


def _import() -> Any:
    try:
        import faiss
    except ImportError:
        raise EngineError(
            "faiss is not installed: pip install 'flyweight[retrieval]'; ExactIndex searches without it."
        ) from None
    return faiss


def _sample(vectors: Vectors, rows: int) -> Vectors:
    if rows >= len(vectors):
        return vectors
    return vectors[np.random.default_rng(0).choice(len(vectors), rows, replace=False)]


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1]

"""What the GPU benchmark scores: models of the zoo, on requests of random ids."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from flyweight.task.field import REQUEST_INDEX, Field

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Case:
    """A model with what it takes.

    Args:
        fields: its inputs, all of them ids.
        lengths: of the inputs with several ids a row.
    """

    name: str
    model: nn.Module
    fields: Mapping[str, Field]
    lengths: Mapping[str, int]


@dataclass(frozen=True, eq=False)
class Request:
    """Several requests in one call.

    Args:
        arrays: request fields have a row for each request, all others one for each candidate.
        index: the request of each candidate, shape (rows,).
        fields: with their roles.
    """

    arrays: Arrays
    index: NDArray[np.int64]
    fields: Mapping[str, Field]

    @property
    def flat(self) -> Arrays:
        """Every field with a row for each candidate, as a model takes it that knows of no requests."""
        return {
            name: value[self.index] if self.fields[name].role == "request" else value
            for name, value in self.arrays.items()
        }

    @property
    def hoisted(self) -> Arrays:
        """Request fields once; the index only where there are several requests."""
        return {**self.arrays, REQUEST_INDEX: self.index} if self.index.any() else dict(self.arrays)


def make_request(case: Case, requests: int, candidates: int, seed: int = 0) -> Request:
    """Draw ids from the whole of every vocabulary, so that tables lie in memory and not in a cache."""
    draw = np.random.default_rng(seed)
    arrays: Arrays = {}
    for name, field in case.fields.items():
        assert field.rows is not None, "every field of the cases holds ids"
        rows = requests if field.role == "request" else requests * candidates
        shape = (rows, case.lengths[name]) if name in case.lengths else (rows,)
        arrays[name] = draw.integers(0, field.rows, shape)
    return Request(arrays, np.repeat(np.arange(requests, dtype=np.int64), candidates), case.fields)


def zoo_case(name: str) -> Case:
    """A task of the zoo: its trained model, and its inputs as its own batches have them."""
    from flyweight.zoo.tasks import ZOO

    task = ZOO[name]()
    batch = next(task.batches("validation"))[0]
    lengths = {field: values.shape[1] for field, values in batch.items() if values.ndim == 2}
    return Case(task.name, task.model.eval(), task.inputs, lengths)

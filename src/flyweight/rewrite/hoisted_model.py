"""A model whose request fields come with a row for each request, and its candidates with rows of their own."""

import torch
from torch import Tensor, fx

from flyweight.graph.traced import TracedModel
from flyweight.rewrite.levels import REQUEST
from flyweight.task.field import REQUEST_INDEX


class HoistedModel(TracedModel):
    """A traced model that works out each request once.

    Takes request fields (requests, ...), all others (rows, ...), and `request_index`, int64 (rows,), the request of
    each row. Left out, there is one request and all rows are its candidates.

    Example:
        >>> hoisted(user_id=torch.tensor([7]), item_id=torch.tensor([3, 5])).shape  # doctest: +SKIP
        torch.Size([2])
    """

    def forward(self, **inputs: Tensor) -> Tensor:
        """Return a score for each row."""
        if REQUEST_INDEX not in inputs:
            inputs = {**inputs, REQUEST_INDEX: torch.zeros(1, dtype=torch.int64)}
        return super().forward(**inputs)

    @property
    def request_names(self) -> tuple[str, ...]:
        """Inputs that come with a row for each request."""
        found = self.body.graph.find_nodes(op="placeholder")
        return tuple(name for name, node in zip(self.names, found, strict=True) if node.meta.get(REQUEST))


def add_index(traced: TracedModel, request: set[str]) -> HoistedModel:
    """Return a copy with the input `request_index`, which nothing reads yet, and its request inputs marked."""
    body = traced.body
    inputs = list(zip(traced.names, body.graph.find_nodes(op="placeholder"), strict=True))
    for name, node in inputs:
        node.meta[REQUEST] = name in request
    _, last = inputs[-1]
    with body.graph.inserting_after(last):
        index = body.graph.placeholder(REQUEST_INDEX)
    like = next(node for name, node in inputs if name not in request)
    with like.meta["val"].fake_mode:
        index.meta["val"] = like.meta["val"].new_empty((like.meta["val"].shape[0],), dtype=torch.int64)
    body.recompile()
    return HoistedModel(body, (*traced.names, REQUEST_INDEX))


def one_request(inputs: dict[str, Tensor], request: tuple[str, ...], row: int = 0) -> dict[str, Tensor]:
    """Return a flat batch as one request, that of a row, with all rows as its candidates."""
    return {name: value[row : row + 1] if name in request else value for name, value in inputs.items()}


def flat(body: fx.GraphModule) -> bool:
    """Return whether some input's first dimension is not the rows': flat ids of bags."""
    sizes = {str(node.meta["val"].shape[0]) for node in body.graph.find_nodes(op="placeholder")}
    return len(sizes) > 1

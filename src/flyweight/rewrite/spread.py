"""Two operators of a hoisted graph: where a value of the request meets the rows, and where it must be written out.

A hoisted model takes request fields with a row for each request, candidate fields with a row for each candidate, and
`request_index`, the request of each row. What depends on requests alone is worked out once for each of them; `spread`
brings it to the rows. With one request the index has a single 0 for all rows: `spread` then gives one row, which
meets the others by broadcasting. `every_row` writes it out where an operator does not broadcast.
"""

import torch
from torch import Tensor


@torch.library.custom_op("flyweight::spread", mutates_args=())
def spread(value: Tensor, index: Tensor) -> Tensor:
    """Return `value[index]`: of (requests, ...) and (rows,), (rows, ...); with the index (1,) of one request, (1, ...).

    Example:
        >>> spread(torch.tensor([[1.0], [2.0]]), torch.tensor([0, 1, 1])).flatten()
        tensor([1., 2., 2.])
    """
    return value.index_select(0, index)


@torch.library.custom_op("flyweight::every_row", mutates_args=())
def every_row(value: Tensor, like: Tensor) -> Tensor:
    """Return (1, ...) repeated for each row of `like`, (rows, ...); (rows, ...) as it is.

    Example:
        >>> every_row(torch.tensor([[7.0]]), torch.zeros(3)).flatten()
        tensor([7., 7., 7.])
    """
    return value.expand(len(like), *value.shape[1:]).clone()


@spread.register_fake
def _(value: Tensor, index: Tensor) -> Tensor:
    return value.new_empty((index.shape[0], *value.shape[1:]))


@every_row.register_fake
def _(value: Tensor, like: Tensor) -> Tensor:
    return value.new_empty((like.shape[0], *value.shape[1:]))


SPREAD = torch.ops.flyweight.spread.default
EVERY_ROW = torch.ops.flyweight.every_row.default

"""Rows of ids in memory, read batch by batch as slices: no collating of single samples."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Batches:
    """A split as a re-iterable of `(inputs, target)`, each input int64 of shape (batch,).

    Args:
        names: the inputs, in the order of the columns of `ids`.
        ids: (rows, inputs) int32.
        target: (rows,) of any small type; batches hold it as float32.
        extra: further int64 keys of each batch that no model reads (a request's or a user's id), each (rows,).
        size: rows of a batch.
    """

    names: tuple[str, ...]
    ids: Tensor
    target: Tensor
    extra: dict[str, Tensor]
    size: int = 8192

    @property
    def rows(self) -> int:
        """Rows of the split."""
        return len(self.target)

    def __len__(self) -> int:
        return -(-self.rows // self.size)

    def __iter__(self) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        for start in range(0, self.rows, self.size):
            part = slice(start, start + self.size)
            columns = self.ids[part].long().T.contiguous()  # (inputs, batch), so that each input is contiguous
            inputs = dict(zip(self.names, columns.unbind(), strict=True))
            inputs |= {name: values[part].long() for name, values in self.extra.items()}
            yield inputs, self.target[part].to(torch.float32)

    def of_size(self, size: int) -> "Batches":
        """Return the same rows in batches of another size."""
        return replace(self, size=size)

    def head(self, rows: int) -> "Batches":
        """Return the first rows only."""
        extra = {name: values[:rows] for name, values in self.extra.items()}
        return replace(self, ids=self.ids[:rows], target=self.target[:rows], extra=extra)

    def only(self, *names: str) -> "Batches":
        """Return the same rows with some of the inputs."""
        columns = torch.tensor([self.names.index(name) for name in names])
        return replace(self, names=names, ids=self.ids[:, columns])

    def with_keys(self, *names: str) -> "Batches":
        """Return the same rows with some of the extra keys."""
        return replace(self, extra={name: self.extra[name] for name in names})

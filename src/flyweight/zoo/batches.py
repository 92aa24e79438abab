"""Rows of ids in memory, read batch by batch as slices: no collating of single samples."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Batches:
    """A split as a re-iterable of `(inputs, target)`: int64 inputs (batch,) or (batch, width), float32 target (batch,).

    Args:
        widths: each input's number of columns, in their order in `ids`; an input of one column is given as (batch,).
        ids: (rows, columns), of any whole-number type.
        target: (rows,), of any type.
        extra: further keys of each batch that no model reads (a request's id), each (rows,); given as int64.
        size: rows of a batch.
    """

    widths: Mapping[str, int]
    ids: Tensor
    target: Tensor
    extra: Mapping[str, Tensor]
    size: int = 8192

    @property
    def names(self) -> tuple[str, ...]:
        """The inputs of the model."""
        return tuple(self.widths)

    @property
    def rows(self) -> int:
        """Rows of the split."""
        return len(self.target)

    def __len__(self) -> int:
        return -(-self.rows // self.size)

    def __iter__(self) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        for start in range(0, self.rows, self.size):
            part = slice(start, start + self.size)
            columns = self.ids[part].T.long().contiguous()  # (columns, batch), so that each input is contiguous
            pieces = torch.split(columns, list(self.widths.values()))
            inputs = {
                name: piece[0] if len(piece) == 1 else piece.T.contiguous()
                for name, piece in zip(self.widths, pieces, strict=True)
            }
            inputs |= {name: values[part].long() for name, values in self.extra.items()}
            yield inputs, self.target[part].to(torch.float32)

    def of_size(self, size: int) -> "Batches":
        """Return the same rows in batches of another size."""
        return replace(self, size=size)

    def head(self, rows: int) -> "Batches":
        """Return the first rows only."""
        extra = {name: values[:rows] for name, values in self.extra.items()}
        return replace(self, ids=self.ids[:rows], target=self.target[:rows], extra=extra)

    def column(self, name: str) -> Tensor:
        """Return one input over the whole split: (rows,) or (rows, width)."""
        pieces = torch.split(self.ids, list(self.widths.values()), dim=1)
        return dict(zip(self.widths, pieces, strict=True))[name].squeeze(1)

    def with_keys(self, *names: str) -> "Batches":
        """Return the same rows with some of the extra keys."""
        return replace(self, extra={name: self.extra[name] for name in names})

"""Embedding modules whose rows lie in other processes: what stands in the place of `nn.Embedding` and `EmbeddingBag`.

Most lookups of a ranker are of an input of the model as it came. Those of one batch are asked for together, before the
model runs: one exchange of ids and one of rows for all tables of a width, not two for each table. Which they are is
seen by running the model once with rows of zeros. Ids that the model computes are asked for when it gets there.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flyweight.errors import InputError
from flyweight.task.scores import call_model, evaluating


class Wanted(NamedTuple):
    """Rows of a table, by an input's ids; by ids that the model computes where there is none."""

    table: str
    input: str | None


#: Returns the rows (n, dim) for flat ids (n,) of each lookup; together with those of all other processes.
Fetch = Callable[[Mapping[Wanted, Tensor]], dict[Wanted, Tensor]]


class WholeTableRead(Exception):  # noqa: N818
    """The model reads all rows of a table at once, not by ids: it stays whole."""

    def __init__(self, table: str) -> None:
        super().__init__(table)
        self.table = table


class Lookups:
    """The lookups of a model's batch.

    Args:
        dims: the width of each table.
    """

    def __init__(self, dims: Mapping[str, int]) -> None:
        self.dims = dict(dims)
        self.wanted: tuple[Wanted, ...] = ()
        self.fetch: Fetch | None = None
        self._seen: dict[Wanted, None] | None = None
        self._inputs: Mapping[str, Tensor] = {}
        self._found: dict[Wanted, Tensor] = {}

    def learn(self, body: nn.Module, inputs: dict[str, Tensor], rows: int) -> None:
        """Run the model on a batch, each row of a table zero, and keep which lookups it makes."""
        self._inputs, self._seen = inputs, {}
        try:
            with evaluating(body), torch.no_grad():
                call_model(body, inputs, rows)
            self.wanted = tuple(self._seen)
        finally:
            self._inputs, self._seen = {}, None

    @contextmanager
    def of_batch(self, inputs: Mapping[str, Tensor]) -> Iterator[None]:
        """Fetch the rows that inputs ask for, for what the model looks up within the block."""
        assert self.fetch is not None
        self._inputs = inputs
        asked = {one: inputs[one.input].reshape(-1) for one in self.wanted if one.input is not None}
        self._found = self.fetch(asked) if asked else {}
        try:
            yield
        finally:
            self._inputs, self._found = {}, {}

    def rows(self, table: str, ids: Tensor) -> Tensor:
        """Return the rows for ids of any shape, (*ids, dim).

        Raises:
            InputError: the model did not make this lookup when it was first run.
        """
        dim = self.dims[table]
        wanted = Wanted(table, self._input_of(ids))
        if self._seen is not None:
            self._seen[wanted] = None
            return torch.zeros(*ids.shape, dim)
        if wanted not in self._found and wanted.input is not None:
            wanted = Wanted(table, None)
        if wanted in self._found:
            found = self._found[wanted]
        elif wanted in self.wanted and self.fetch is not None:
            found = self.fetch({wanted: ids.reshape(-1)})[wanted]
        else:
            raise InputError(
                f"Table {table!r} was looked up with ids that the model did not look up on the first batch; its "
                "lookups must be the same on every batch, as all processes make them together."
            )
        return found.view(*ids.shape, dim)

    def _input_of(self, ids: Tensor) -> str | None:
        """Return the input that ids are, whatever shape they were brought into."""
        for name, value in self._inputs.items():
            same = value.data_ptr() == ids.data_ptr() and value.numel() == ids.numel() and value.dtype == ids.dtype
            if same and value.is_contiguous() and ids.is_contiguous():
                return name
        return None


class RemoteEmbedding(nn.Module):
    """`nn.Embedding` without its table: rows (*ids, dim) for ids of any shape."""

    def __init__(self, table: str, lookups: Lookups, embedding: nn.Embedding) -> None:
        super().__init__()
        self.table, self.lookups, self.padding_idx = table, lookups, embedding.padding_idx
        self.num_embeddings, self.embedding_dim = embedding.num_embeddings, embedding.embedding_dim

    @property
    def weight(self) -> Tensor:
        """Tell that the model reads the table itself."""
        raise WholeTableRead(self.table)

    def forward(self, ids: Tensor) -> Tensor:
        """Return the rows; none of the gradient reaches the padding row."""
        found = self.lookups.rows(self.table, ids)
        if self.padding_idx is None:
            return found
        return torch.where((ids == self.padding_idx).unsqueeze(-1), found.detach(), found)


class RemoteEmbeddingBag(nn.Module):
    """`nn.EmbeddingBag` without its table: rows are fetched one by one and pooled here."""

    def __init__(self, table: str, lookups: Lookups, bag: nn.EmbeddingBag) -> None:
        super().__init__()
        self.table, self.lookups = table, lookups
        self.mode, self.include_last_offset, self.padding_idx = bag.mode, bag.include_last_offset, bag.padding_idx
        self.num_embeddings, self.embedding_dim = bag.num_embeddings, bag.embedding_dim

    @property
    def weight(self) -> Tensor:
        """Tell that the model reads the table itself."""
        raise WholeTableRead(self.table)

    def forward(self, ids: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None) -> Tensor:
        """Return the pooled rows (bags, dim); ids, offsets and weights as `nn.EmbeddingBag` takes them."""
        found = self.lookups.rows(self.table, ids)
        flat = found.reshape(-1, found.shape[-1])  # (ids, dim)
        own = torch.arange(len(flat), device=flat.device).view(ids.shape)
        padding = None
        if self.padding_idx is not None:  # a row of their own for all that does not count
            padding = len(flat)
            flat = torch.cat([flat, flat.new_zeros(1, flat.shape[1])])
            own = torch.where(ids == self.padding_idx, padding, own)
        return F.embedding_bag(
            own,
            flat,
            offsets,
            mode=self.mode,
            per_sample_weights=per_sample_weights,
            include_last_offset=self.include_last_offset,
            padding_idx=padding,
        )


def replace_tables(model: nn.Module, holders: Mapping[str, str], lookups: Lookups) -> None:
    """Put modules without tables in the place of embeddings, in place.

    Args:
        holders: the table of each module to be replaced, by its dotted path.
    """
    for path, table in holders.items():
        module = model.get_submodule(path)
        new: nn.Module
        if isinstance(module, nn.EmbeddingBag):
            new = RemoteEmbeddingBag(table, lookups, module)
        else:
            assert isinstance(module, nn.Embedding)
            new = RemoteEmbedding(table, lookups, module)
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, new)

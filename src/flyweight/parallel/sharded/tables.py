"""One rank's part of embedding tables of one width, joined to those of the other ranks by TorchRec."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from flyweight.errors import InputError
from flyweight.parallel.sharded.lookup import Wanted
from flyweight.parallel.sharded.plan import PlacedTable

TableOptimizer = Literal["adam", "adagrad", "rowwise_adagrad", "sgd"]
#: Rows that are drawn together where a table has no start: the same rows whoever holds them.
DRAWN_ROWS = 1 << 16


@dataclass(frozen=True)
class Rows:
    """Rows `start` and on of a table, as this rank holds them: (rows, dim), written to in place."""

    table: str
    start: int
    values: Tensor


class TableGroup(nn.Module):
    """Tables of one width that are trained alike; this rank holds its part of them.

    Args:
        tables: where each one's rows are.
        wanted: the lookups that the model makes of them.
        trained: whether they move.
        optimizer: how; "adam" moves the rows of a batch alone.
        rate: learning rate.
        device: where they lie.
    """

    def __init__(
        self,
        tables: Sequence[PlacedTable],
        wanted: Sequence[Wanted],
        *,
        trained: bool,
        optimizer: TableOptimizer,
        rate: float,
        device: torch.device,
    ) -> None:
        super().__init__()
        self.tables, self.trained = {f"t{number}": table for number, table in enumerate(tables)}, trained
        self.keys = {one: f"f{number}" for number, one in enumerate(wanted)}
        late = [one.table for one in wanted if one.input is None]
        # An optimiser within the backward pass takes a step for each exchange: it may not be where there are several.
        self.fused = trained and optimizer != "adam" and not late
        if trained and optimizer == "rowwise_adagrad" and not self.fused:
            raise InputError(
                f"rowwise_adagrad steps within the backward pass, once a batch; table {late[0]!r} is looked up "
                "with ids that the model computes, in an exchange of their own. Use adagrad."
            )
        self.sharded = _collection(self.tables, self.keys, _kernel(optimizer, rate, fused=self.fused), device)
        self.dim, self.device = tables[0].dim, device
        if not self.fused:
            self._replace_kernels()

    @property
    def kernels(self) -> Iterator[Any]:
        """What looks up in this rank's rows: TorchRec's kernels, or ours in their place."""
        for lookup in self.sharded._lookups:
            yield from lookup._emb_modules

    def _replace_kernels(self) -> None:
        for lookup in self.sharded._lookups:
            for place, kernel in enumerate(lookup._emb_modules):
                lookup._emb_modules[place] = SparseRows(kernel, self.dim, trained=self.trained)

    def fetch(self, asked: Mapping[Wanted, Tensor]) -> dict[Wanted, Tensor]:
        """Return the rows (n, dim) for the ids (n,) of each lookup; every rank calls this at the same time."""
        from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

        none = torch.empty(0, dtype=torch.int64, device=self.device)
        ids = [asked.get(one, none) for one in self.keys]
        lengths = torch.tensor([len(one) for one in ids], device=self.device)
        # One jagged row for each lookup, however many ids: whose row of the batch they are does not matter here.
        values = KeyedJaggedTensor(keys=list(self.keys.values()), values=torch.cat(ids), lengths=lengths, stride=1)
        with torch.set_grad_enabled(self.trained and torch.is_grad_enabled()):
            found = self.sharded(values)
        return {one: found[key].values().view(-1, self.dim) for one, key in self.keys.items() if one in asked}

    def rows(self) -> Iterator[Rows]:
        """Yield the parts of tables that this rank holds."""
        for kernel in self.kernels:
            for config, values in zip(kernel.config.embedding_tables, kernel.split_embedding_weights(), strict=True):
                if len(values):
                    start = config.local_metadata.shard_offsets[0] if config.local_metadata is not None else 0
                    yield Rows(self.tables[config.name].name, start, values.detach())

    def weights(self) -> list[nn.Parameter]:
        """Return what an optimiser of PyTorch moves: nothing where the backward pass does."""
        return [] if self.fused or not self.trained else [kernel.weight for kernel in self.kernels]

    def set_rate(self, rate: float) -> None:
        """Set the learning rate of an optimiser within the backward pass."""
        if self.fused:
            for kernel in self.kernels:
                kernel.emb_module.set_learning_rate(rate)

    def optimizer_states(self) -> list[Tensor]:
        """Return what an optimiser within the backward pass remembers of this rank's rows, to write to in place."""
        if not self.fused:
            return []
        each = [table for kernel in self.kernels for table in kernel.emb_module.split_optimizer_states()]
        return [state.detach() for table in each for state in table]


class SparseRows(nn.Module):
    """Lookups in a rank's rows with sparse gradients, for the optimisers of PyTorch: SparseAdam moves a batch's rows.

    FBGEMM has no Adam for processors, and its dense kernel (1.8.0) ends the process there; its gradients would be as
    large as the tables.

    Args:
        kernel: TorchRec's own, whose memory is used.
    """

    def __init__(self, kernel: Any, dim: int, *, trained: bool) -> None:
        super().__init__()
        self.config = kernel.config
        held = [table.local_rows for table in self.config.embedding_tables]
        values = kernel.emb_module.weights.detach().view(-1, dim)
        self.weight = nn.Parameter(values, requires_grad=trained)
        self._rows = held
        starts = [sum(held[:number]) for number in range(len(held))]
        self._starts = [
            start
            for start, table in zip(starts, self.config.embedding_tables, strict=True)
            for _ in table.feature_names
        ]

    def forward(self, features: Any) -> Tensor:
        """Return the rows (ids, dim), lookup by lookup."""
        ids = features.values()
        counts = torch.tensor(features.length_per_key(), device=ids.device)
        starts = torch.tensor(self._starts, device=ids.device).repeat_interleave(counts)
        return F.embedding(ids + starts, self.weight, sparse=True)

    def split_embedding_weights(self) -> list[Tensor]:
        """Return the rows of each table."""
        return list(torch.split(self.weight.detach(), self._rows))


def start_rows(rows: Rows, weight: Tensor, spread: float, seed: int) -> None:
    """Write the rows that a table starts with: those of the model, or drawn where the model's table is on no device.

    Args:
        weight: the model's whole table.
        spread: standard deviation of drawn rows.
        seed: of these; whoever holds a row, it is the same one.
    """
    end = rows.start + len(rows.values)
    if weight.device.type != "meta":
        rows.values.copy_(weight.detach()[rows.start : end])
        return
    for block in range(rows.start // DRAWN_ROWS, -(-end // DRAWN_ROWS)):
        first = block * DRAWN_ROWS
        drawn = torch.Generator().manual_seed(seed * 1_000_003 + block)
        values = torch.randn(DRAWN_ROWS, weight.shape[1], generator=drawn) * spread
        low, high = max(first, rows.start), min(first + DRAWN_ROWS, end)
        rows.values[low - rows.start : high - rows.start] = values[low - first : high - first]


def _collection(
    tables: Mapping[str, PlacedTable], keys: Mapping[Wanted, str], kernel: dict[str, Any], device: torch.device
) -> Any:
    """Return TorchRec's sharded collection of tables, its rows not yet written."""
    from torchrec.distributed.embedding import EmbeddingCollectionSharder
    from torchrec.distributed.sharding_plan import construct_module_sharding_plan, row_wise, table_wise
    from torchrec.distributed.types import ShardingEnv
    from torchrec.modules.embedding_configs import EmbeddingConfig
    from torchrec.modules.embedding_modules import EmbeddingCollection

    configs = [
        EmbeddingConfig(
            name=name,
            num_embeddings=table.rows,
            embedding_dim=table.dim,
            feature_names=[key for one, key in keys.items() if one.table == table.name],
        )
        for name, table in tables.items()
    ]
    whole = EmbeddingCollection(tables=configs, device=torch.device("meta"))
    name = kernel["name"]
    places = {
        key: row_wise(compute_kernel=name) if one.by_rows else table_wise(one.shards[0].rank, compute_kernel=name)
        for key, one in tables.items()
    }
    ranks = dist.get_world_size()
    plan = construct_module_sharding_plan(
        whole,
        places,
        local_size=int(os.environ.get("LOCAL_WORLD_SIZE", ranks)),
        world_size=ranks,
        device_type=device.type,
    )
    group = dist.group.WORLD
    assert group is not None
    sharder = EmbeddingCollectionSharder(fused_params=kernel["settings"])
    return sharder.shard(whole, plan, ShardingEnv.from_process_group(group), device)


def _kernel(optimizer: TableOptimizer, rate: float, *, fused: bool) -> dict[str, Any]:
    """Return TorchRec's name of a kernel, and its settings."""
    from fbgemm_gpu.split_embedding_configs import EmbOptimType

    if not fused:
        return {"name": "dense", "settings": {}}
    kinds = {
        "sgd": EmbOptimType.EXACT_SGD,
        "adagrad": EmbOptimType.EXACT_ADAGRAD,
        "rowwise_adagrad": EmbOptimType.EXACT_ROWWISE_ADAGRAD,
    }
    # PyTorch's Adagrad adds as much to the root of the sum.
    return {"name": "fused", "settings": {"optimizer": kinds[optimizer], "learning_rate": rate, "eps": 1e-10}}

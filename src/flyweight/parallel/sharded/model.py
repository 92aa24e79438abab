"""A model whose tables lie over all processes: taken apart, called, and put together again."""

import copy
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from flyweight.errors import InputError
from flyweight.parallel.sharded.lookup import Lookups, Wanted, WholeTableRead, replace_tables
from flyweight.parallel.sharded.plan import By, PlacedTable, TablePlan, place_tables
from flyweight.parallel.sharded.tables import Rows, TableGroup, TableOptimizer, start_rows
from flyweight.tables.sites import Table, find_tables
from flyweight.task.change import Skipped

Inputs = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class ShardedModel:
    """One rank's part of a model.

    Args:
        body: the model without the tables that are shared out.
        lookups: what the body asks for rows.
        groups: this rank's part of the tables, those of a width and kind together.
        plan: where all rows are.
    """

    body: nn.Module
    lookups: Lookups
    groups: tuple[TableGroup, ...]
    plan: TablePlan

    def rows(self) -> Iterator[Rows]:
        """Yield the parts of tables that this rank holds."""
        for group in self.groups:
            yield from group.rows()


def plan_tables(model: nn.Module, inputs: Inputs, rows: int, ranks: int, by: By) -> TablePlan:
    """Return where the rows of a model's tables go; other embeddings, each with its reason, stay whole on every rank.

    Args:
        inputs, rows: a batch, to see how the model reads its tables.

    Raises:
        InputError: `ranks` or `by` make no sense.
    """
    looked = _look(model, inputs, rows)
    return place_tables([(one.name, one.rows, one.dim) for one in looked.tables], ranks, by, looked.skipped)


def shard_model(
    model: nn.Module,
    plan: TablePlan,
    inputs: Inputs,
    rows: int,
    *,
    optimizer: TableOptimizer,
    rate: float,
    device: torch.device,
    spread: float = 0.0,
    seed: int = 0,
    trained: bool = True,
) -> ShardedModel:
    """Return this rank's part of a model; the model itself is left as it is.

    Args:
        inputs, rows: a batch, to see which lookups the model makes.
        optimizer, rate: of the tables.
        spread, seed: of rows that are drawn, where the model's tables are on the device "meta".
        trained: whether tables move, but for those that the user has frozen.
    """
    looked = _look(model, inputs, rows)
    body, lookups, tables = looked.body, looked.lookups, looked.tables
    kinds = _kinds(model, tables, plan, lookups.wanted, trained=trained)
    groups = tuple(
        TableGroup(
            placed,
            [one for one in lookups.wanted if one.table in {table.name for table in placed}],
            trained=moves,
            optimizer=optimizer,
            rate=rate,
            device=device,
        )
        for (_, moves), placed in kinds.items()
    )
    lookups.fetch = _fetch(groups)
    number = {table.name: (place, table.weight) for place, table in enumerate(tables)}
    for group in groups:
        for held in group.rows():
            place, weight = number[held.table]
            start_rows(held, weight, spread, seed * 1_009 + place)
    return ShardedModel(body.to(device), lookups, groups, plan)


@dataclass(frozen=True, eq=False)
class _Looked:
    """How a model reads its tables: those to share out, others and why not, and the model without the first."""

    tables: list[Table]
    skipped: tuple[Skipped, ...]
    body: nn.Module
    lookups: Lookups


def _look(model: nn.Module, inputs: Inputs, rows: int) -> _Looked:
    """Run a model on a batch without its tables; those that it reads other than by ids are left in."""
    tables, skipped = _tables(model)
    while True:
        holders = {path: table.name for table in tables for path in table.modules}
        lookups = Lookups({table.name: table.dim for table in tables})
        body = _without_tables(model, holders, lookups)
        try:
            lookups.learn(body, inputs, rows)
        except WholeTableRead as read:
            tables = [table for table in tables if table.name != read.table]
            skipped += (Skipped(read.table, "the model reads all its rows at once"),)
            continue
        return _Looked(tables, skipped, body, lookups)


def _tables(model: nn.Module) -> tuple[list[Table], tuple[Skipped, ...]]:
    found, skipped = find_tables(model)
    single = [table for table in found if table.weight.dtype == torch.float32]
    others = [
        Skipped(table.name, f"its dtype is {table.weight.dtype}; only float32 tables are shared out")
        for table in found
        if table.weight.dtype != torch.float32
    ]
    embeddings = {name for name, module in model.named_modules() if isinstance(module, (nn.Embedding, nn.EmbeddingBag))}
    scaled = [table for table in single if _scales(model, table)]
    others += [Skipped(table.name, "scale_grad_by_freq needs the counts of the whole batch") for table in scaled]
    kept = [table for table in single if table not in scaled]
    return kept, (*[one for one in skipped if one.what in embeddings], *others)


def _scales(model: nn.Module, table: Table) -> bool:
    return any(bool(model.get_submodule(path).scale_grad_by_freq) for path in table.modules)


def _without_tables(model: nn.Module, holders: Mapping[str, str], lookups: Lookups) -> nn.Module:
    """Return a copy of a model in which other modules stand for embeddings; tables are not copied."""
    memo: dict[int, object] = {}
    for path in holders:
        weight = model.get_submodule(path).weight
        memo[id(weight)] = weight
    try:
        body = copy.deepcopy(model, memo)
    except (RuntimeError, TypeError) as error:
        raise InputError(
            f"The model cannot be copied ({error}); the copy is what is trained. "
            "Keep files, locks, generators and computed tensors out of the module's attributes."
        ) from error
    replace_tables(body, holders, lookups)
    for module in body.modules():  # what stays whole has gradients that all ranks can add up
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
            module.sparse = False
    return body


def _kinds(
    model: nn.Module, tables: list[Table], plan: TablePlan, wanted: tuple[Wanted, ...], *, trained: bool
) -> dict[tuple[int, bool], list[PlacedTable]]:
    """Return the tables that are looked up at all, by width and whether they move."""
    used = {one.table for one in wanted}
    moves = {table.name: model.get_submodule(table.modules[0]).weight.requires_grad for table in tables}
    kinds: dict[tuple[int, bool], list[PlacedTable]] = defaultdict(list)
    for placed in plan.tables:
        if placed.name in used:
            kinds[placed.dim, trained and bool(moves[placed.name])].append(placed)
    return dict(kinds)


def _fetch(groups: tuple[TableGroup, ...]) -> Callable[[Mapping[Wanted, Tensor]], dict[Wanted, Tensor]]:
    def fetch(asked: Mapping[Wanted, Tensor]) -> dict[Wanted, Tensor]:
        found: dict[Wanted, Tensor] = {}
        for group in groups:
            own = {one: ids for one, ids in asked.items() if one in group.keys}
            if own:
                found |= group.fetch(own)
        return found

    return fetch

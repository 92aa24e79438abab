"""What every coding of a task's tables begins with: which can be coded, what rows weigh, and all bands encoded."""

import numpy as np
import torch
from torch import Tensor

from flyweight.tables.bands import cut_bands
from flyweight.tables.coded_table import page_bits_of
from flyweight.tables.damage import Item, fisher_information
from flyweight.tables.exact import works_coded
from flyweight.tables.menu import encode_menu, menu, seed_of
from flyweight.tables.sensitivity import small_batch
from flyweight.tables.sites import Table, find_tables
from flyweight.tables.usage import count_lookups, row_weights
from flyweight.task.change import Skipped
from flyweight.task.progress import stage
from flyweight.task.scores import Scores, evaluating
from flyweight.task.task import Task

Bands = tuple[tuple[int, int], ...]
Weighed = dict[str, tuple[Bands, Tensor]]


def usable_tables(task: Task) -> tuple[tuple[Table, ...], tuple[Skipped, ...]]:
    """Return the tables whose every use is a plain lookup, tried one by one on a small batch."""
    tables, skipped = find_tables(task.model)
    inputs = small_batch(task)
    good: list[Table] = []
    bad: list[Skipped] = []
    with evaluating(task.model):
        for table in tables:
            reason = works_coded(task.model, table, inputs)
            if reason is None:
                good.append(table)
            else:
                bad.append(reason)
    return tuple(good), (*skipped, *bad)


def weigh_rows(task: Task, tables: tuple[Table, ...]) -> Weighed:
    """Return the bands of each table, and what each row weighs in the quantisation error."""
    counts = count_lookups(task, tables)
    fisher = fisher_information(task, tables)
    weighed = {}
    for table in tables:  # counts are dropped one by one: three numbers a row would be a good part of a narrow table
        count = counts.pop(table.name)
        bands = cut_bands(count, 1 << page_bits_of(table.rows))
        weighed[table.name] = bands, row_weights(count, *fisher.pop(table.name))
    return weighed


def test_size(task: Task, validation: Scores) -> float:
    """Return how many rows (groups, where there are any) the test split has for each of validation; ids only."""
    counted = [(len(target), group) for _, target, group in task.batches("test")]
    groups = [group for _, group in counted if group is not None]
    if validation.groups is not None and groups:
        return len(torch.unique(torch.cat(groups))) / len(np.unique(validation.groups))
    return sum(rows for rows, _ in counted) / len(validation.targets)


def encode_bands(
    tables: tuple[Table, ...], weighed: Weighed, *, fine: bool, seed: int
) -> tuple[Item, ...]:
    """Code every band of every table in every coding of its menu."""
    items = []
    words = "Encoding tables in finer codings" if fine else "Encoding tables"
    with stage(words, total=sum(table.rows for table in tables)) as work:
        for number, table in enumerate(tables):
            bands, weight = weighed[table.name]
            for start, stop in bands:
                codings = menu(stop - start, table.dim, fine=fine)
                rows = table.weight[start:stop]
                coded = encode_menu(rows, weight[start:stop], codings, start=start, seed=seed_of(seed, number))
                items.append(Item(table.name, start, stop, tuple(coded)))
                work.advance(stop - start)
    return tuple(items)

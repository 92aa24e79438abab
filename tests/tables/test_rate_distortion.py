"""Bytes worked out without coding: held against closed formulas, and against tables that were coded."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import flyweight as fw
from flyweight.tables.encode_tables import EncodeTables
from flyweight.tables.rate_distortion import Group, _blind, _bytes, _ideal, coded_tables, group_rows
from flyweight.tables.sites import find_tables
from flyweight.tables.table_use import table_use
from flyweight.tables.usage import count_lookups
from small_tasks import DIM, ITEMS, USERS, Ranker, trained_task


def group(spread: list[float], weight: list[float], rows: int = 100, lookups: float = 0.01) -> Group:
    felt = np.array(spread) * np.array(weight)
    return Group("table", rows, lookups, np.sort(felt), np.array(spread), np.array(weight))


def test_ideal_bits_are_the_gaussian_rate() -> None:
    """One direction of variance 4, felt with weight 1: half the rise allowed costs half a bit of each row more."""
    one = group([4.0], [1.0])  # the rows left out altogether: 100 x 0.01 x 4 / 2 = 2
    for allowed in (2.0, 1.0, 0.25):
        due = 100 * 0.5 * math.log2(2.0 / allowed) / 8
        assert _bytes(_ideal([one]), allowed) == pytest.approx(due, abs=0.1)


def test_what_the_loss_does_not_feel_costs_nothing_where_directions_are_known() -> None:
    felt, unfelt = group([4.0], [1.0]), group([4.0, 4.0], [1.0, 0.0])
    assert _bytes(_ideal([unfelt]), 0.1) == pytest.approx(_bytes(_ideal([felt]), 0.1), rel=1e-6)
    assert _bytes(_blind([unfelt]), 0.1) > 1.5 * _bytes(_blind([felt]), 0.1)


def test_rows_looked_up_more_often_get_more_bits() -> None:
    often, seldom = group([1.0], [1.0], lookups=0.04), group([1.0], [1.0], lookups=0.0001)
    both = _bytes(_ideal([often, seldom]), 0.01)
    assert both == pytest.approx(_bytes(_ideal([often]), 0.01 - 100 * 0.0001 / 2), rel=0.05)


def test_rows_without_spread_cost_nothing() -> None:
    assert _bytes(_blind([group([0.0, 0.0], [1.0, 1.0])]), 1e-6) == 0.0


@pytest.fixture(scope="module")
def task() -> fw.Task:
    torch.manual_seed(0)
    return trained_task(Ranker())


def test_coded_tables_lie_in_the_span(task: fw.Task) -> None:
    """The drop allowed is one that the coder meets on these small data."""
    tables, _ = find_tables(task.model)
    change = EncodeTables(max_drop=0.05).apply(task)
    coded = sum(done["bytes_after"] for done in change.done if done["what"] == "table")
    assert coded > 0
    span = coded_tables(task, tables, count_lookups(task, tables), 0.05).bytes
    assert span.holds(coded), (span, coded)


def test_a_smaller_drop_takes_more_bytes_and_never_more_than_half_precision(task: fw.Task) -> None:
    tables, _ = find_tables(task.model)
    counts = count_lookups(task, tables)
    tight, loose = (coded_tables(task, tables, counts, drop).bytes for drop in (0.0001, 0.1))
    assert tight.low > loose.low
    assert tight.high > loose.high
    finest = coded_tables(task, tables, counts, 1e-12)
    assert finest.bytes.high <= sum(table.bytes for table in tables) / 2
    assert all(1 < finest.codes[name] <= DIM for name in ("user", "item"))  # at most one for each number of a row


def test_groups_hold_every_row_once(task: fw.Task) -> None:
    tables, _ = find_tables(task.model)
    groups = group_rows(task, tables, count_lookups(task, tables))
    assert sum(one.rows for one in groups) == USERS + ITEMS
    # Both tables are looked up once for each row of data.
    assert sum(one.rows * one.lookups for one in groups) == pytest.approx(2.0, rel=1e-5)


def test_use_of_a_table_is_counted() -> None:
    (table,), _ = find_tables(nn.Sequential(nn.Embedding(4, 3)))
    use = table_use(table, Tensor([0.0, 1.0, 1.0, 7.0]))
    assert (use.rows, use.dim, use.bytes, use.lookups) == (4, 3, 48, 9)
    assert (use.never, use.once) == (0.25, 0.5)

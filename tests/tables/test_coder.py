"""Tables coded at many sizes: within their bytes, the same coding for a ratio in every sitting, few models kept."""

from typing import Any

import pytest
import torch

import flyweight as fw
from flyweight.tables.coder import MOST_TRIED, TEACHERS, TableCoder
from flyweight.tables.sizes import table_bytes
from flyweight.tables.trial import likely_bad_end
from flyweight.task.change import Change
from small_tasks import DIM, ITEMS, USERS, Ranker, seeded, trained_task

BYTES = 4 * DIM * (USERS + ITEMS)


@pytest.fixture(scope="module")
def task() -> fw.Task:
    return trained_task(seeded(Ranker))


@pytest.fixture(scope="module")
def coder(task: fw.Task) -> TableCoder:
    return TableCoder(task)


class Kept:
    """Codings in memory, as a folder keeps them."""

    def __init__(self) -> None:
        self.plain: dict[float, dict[str, Any]] = {}

    def coding(self, ratio: float) -> dict[str, Any] | None:
        return self.plain.get(ratio)

    def note_coding(self, ratio: float, plain: dict[str, Any]) -> dict[str, Any]:
        return self.plain.setdefault(ratio, plain)


def plan_of(change: Change) -> list[Any]:
    return [done["bands"] for done in change.done if done["what"] == "table"]


def same(one: Change, other: Change) -> bool:
    mine, theirs = one.model.state_dict(), other.model.state_dict()
    return plan_of(one) == plan_of(other) and all(torch.equal(mine[name], theirs[name]) for name in mine)


@pytest.mark.parametrize("ratio", [2.0, 4.0, 8.0, 20.0, 100.0])
def test_codings_stay_within_the_bytes_that_the_step_stays_within(
    coder: TableCoder, task: fw.Task, ratio: float
) -> None:
    mine, theirs = (table_bytes(one.model) for one in (coder.at(ratio), fw.EncodeTables(ratio=ratio).apply(task)))
    assert mine <= BYTES / ratio
    assert theirs <= BYTES / ratio
    assert 0.5 * theirs <= mine  # what is left over is what no coding makes better use of
    assert coder.bytes == BYTES


def test_a_change_is_that_of_a_coding_step(coder: TableCoder) -> None:
    change = coder.at(8.0)
    assert change.step == "encode_tables"
    assert change.settings == {"ratio": 8.0, "seed": 0}
    assert {done["name"] for done in change.done if done["what"] == "table"} == {"user", "item"}
    assert sum(point.chosen for point in change.curve) == 1


def test_a_ratio_is_coded_once(coder: TableCoder) -> None:
    first = coder.at(8.0)
    for other in (3.0, 5.0, 50.0):
        coder.at(other)
    assert same(coder.at(8.0), first)


def test_a_ratio_is_the_same_coding_in_another_sitting(task: fw.Task) -> None:
    """Also where the first one tried others before, which allocation goes on from."""
    kept = Kept()
    first = TableCoder(task, codings=kept)
    ratio = first.ratio_within(0.05)
    made = {one: first.at(one, rounds=0) for one in (2.0, 6.0, ratio)}
    second = TableCoder(task, codings=kept)
    for one in reversed(made):
        assert same(second.at(one, rounds=0), made[one])


def test_of_two_processes_the_first_says_what_a_ratio_is(task: fw.Task) -> None:
    """Each chose before the other wrote its choice down, after having tried other ratios."""
    kept = Kept()
    one, other = TableCoder(task, codings=kept), TableCoder(task, codings=kept)
    one.ratio_within(0.05)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kept, "coding", lambda ratio: None)
        made = one.at(3.0), other.at(3.0)
    assert same(*made)
    assert same(TableCoder(task, codings=kept).at(3.0), made[0])


def test_a_coding_that_no_longer_fits_is_refused(task: fw.Task) -> None:
    kept = Kept()
    TableCoder(task, codings=kept).at(8.0)
    other = TableCoder(task, codings=kept)
    *bands, last = kept.plain[8.0]["bands"]
    for damaged in ([*bands], [*bands, [*last[:3], "9 9-bit codes"]], [*bands, ["items", *last[1:]]]):
        kept.plain[8.0]["bands"] = damaged
        with pytest.raises(fw.InputError, match=r"tables 8x that the search has kept is of other bands or codings"):
            other.at(8.0)


def test_a_choice_made_elsewhere_is_known_by_its_ratio(coder: TableCoder) -> None:
    search = coder.search(fine=False)
    choice = tuple(int(one) for one in search.menu.extreme(largest=False))
    ratio = coder.put(choice, fine=False)
    assert ratio == BYTES / coder.smallest()
    trial = coder.tried(ratio)
    assert trial is not None
    assert tuple(trial.choice) == choice
    assert table_bytes(coder.at(ratio).model) == coder.smallest()
    assert coder.tried(1.2345) is None


def test_what_is_too_small_is_refused_with_the_most_there_is(coder: TableCoder) -> None:
    most = BYTES / coder.smallest()
    with pytest.raises(fw.InputError) as error:
        coder.at(1e6)
    assert f"cannot be coded 1,000,000 times smaller; the most is {most:,.0f} times" in str(error.value)


def test_few_models_are_kept_however_many_are_tried(task: fw.Task) -> None:
    coder = TableCoder(task)
    coder.ratio_within(0.05)
    for number in range(3 * MOST_TRIED):
        coder.at(2.0 + number, rounds=0)
    assert len(coder._trials) <= MOST_TRIED
    assert all(not search.trials for search in coder._searches.values())


def test_a_coding_within_a_drop_will_probably_be_certified(coder: TableCoder) -> None:
    ratio = coder.ratio_within(0.05)
    trial = coder.tried(ratio)
    assert trial is not None
    assert ratio > 1
    assert likely_bad_end(trial.drop, coder.search(fine=False).bench.test_size) <= 0.05
    assert coder.ratio_within(1e-9) == 1.0


def test_a_teacher_is_surely_better_than_the_original_or_there_is_none(coder: TableCoder) -> None:
    ratio = coder.best_teacher()
    assert ratio in (1.0, *TEACHERS)
    if ratio > 1:
        trial = coder.tried(ratio)
        assert trial is not None
        assert trial.drop.high < 0

"""Codings given band by band: the very codes of the search that chose them, and refusals by their words."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import flyweight as fw
from flyweight.tables.coded_embedding import CodedEmbedding
from flyweight.tables.coding import Coding
from flyweight.tables.coding_words import parse_coding
from flyweight.tables.menu import menu
from flyweight.tables.plan import plan_of
from flyweight.tables.sizes import table_bytes
from small_tasks import FIELDS, ITEMS, USERS, Ranker, batches, seeded, trained_task, world

codings = st.one_of(
    st.builds(Coding, groups=st.integers(1, 999), stages=st.integers(1, 8), bits=st.integers(1, 8)),
    st.sampled_from([Coding(bits=0), Coding(rounded=True)]),
)
MANY = 9_000
SIZES = {"train": 40_000, "validation": 1_500, "test": 1_500}


@pytest.fixture(scope="module")
def task() -> fw.Task:
    return trained_task(seeded(Ranker))


@pytest.fixture(scope="module")
def long_task() -> fw.Task:
    """A task whose items fall into bands of use."""

    def make(rows: int, seed: int) -> Any:
        columns, clicked = world(rows, seed)
        often, where = torch.rand(2, rows, generator=torch.Generator().manual_seed(seed + 50))
        columns["item_id"] = (where * torch.where(often < 0.8, 2_500, MANY)).long()
        return columns, clicked

    data = {name: batches(*make(rows, seed)) for seed, (name, rows) in enumerate(SIZES.items())}
    return trained_task(seeded(Ranker, items=MANY), data, inputs=FIELDS | {"item_id": fw.Field("candidate", rows=MANY)})


def same(one: nn.Module, other: nn.Module) -> None:
    """Codes, codebooks and layers are the same bits."""
    left, right = one.state_dict(), other.state_dict()
    assert list(left) == list(right)
    assert [name for name, value in left.items() if not torch.equal(value, right[name])] == []


@given(codings)
def test_words_of_a_coding_are_read_back(coding: Coding) -> None:
    assert parse_coding(str(coding)) == coding


def test_words_of_every_menu_are_read_back() -> None:
    for rows in (2, 40, 500, 5_000, 200_000):
        for coding in menu(rows, 16, fine=True):
            assert parse_coding(str(coding)) == coding


@pytest.mark.parametrize("settings", [{"ratio": 1.3}, {"ratio": 3}, {"ratio": 8}, {"ratio": 60, "seed": 5}])
def test_a_plan_gives_the_codes_of_the_search_that_chose_it(task: fw.Task, settings: dict[str, Any]) -> None:
    found = fw.EncodeTables(**settings).apply(task)
    planned = fw.EncodeTables(codings=plan_of(found), seed=settings.get("seed", 0)).apply(task)
    same(found.model, planned.model)
    assert planned.done == found.done
    assert plan_of(planned) == plan_of(found)


@pytest.mark.parametrize("ratio", [2.0, 30.0])
def test_bands_of_a_plan_are_those_of_the_search(long_task: fw.Task, ratio: float) -> None:
    found = fw.EncodeTables(ratio=ratio).apply(long_task)
    assert len(plan_of(found)["item"]) > 1
    same(found.model, fw.EncodeTables(codings=plan_of(found)).apply(long_task).model)


def test_a_plan_is_tried_once_and_its_drop_is_told(task: fw.Task) -> None:
    change = fw.EncodeTables(codings=whole("one 4-bit code")).apply(task)
    (point,) = change.curve
    assert point.chosen
    assert point.table_bytes == table_bytes(change.model)
    assert point.drop.n == 1_500
    assert change.settings == {"codings": whole("one 4-bit code"), "seed": 0}


def whole(words: str) -> dict[str, list[dict[str, int | str]]]:
    return {"user": [{"stop": USERS, "coding": words}], "item": [{"stop": ITEMS, "coding": words}]}


def test_a_table_that_is_not_named_stays_and_keeps_its_neighbours_codes(task: fw.Task) -> None:
    both = fw.EncodeTables(codings=whole("2 4-bit codes")).apply(task)
    one = fw.EncodeTables(codings={"item": whole("2 4-bit codes")["item"]}).apply(task)
    assert type(one.model.user) is nn.Embedding
    assert one.model.user.weight is task.model.user.weight
    same(both.model.item, one.model.item)
    assert [done["name"] for done in one.done if done["what"] == "table"] == ["item"]
    (point,) = one.curve
    assert point.table_bytes == table_bytes(one.model)


@pytest.mark.parametrize(
    "words",
    ["5 4-bit codes", "one 7-bit code", "3 1-bit codes for each of 2 pieces", "one 8-bit code for each of 8 pieces"],
)
def test_codings_that_no_menu_offers_can_be_planned(task: fw.Task, words: str) -> None:
    change = fw.EncodeTables(codings=whole(words)).apply(task)
    assert {band["coding"] for done in change.done if done["what"] == "table" for band in done["bands"]} == {words}
    assert isinstance(change.model.item, CodedEmbedding)


def test_a_table_may_be_cut_where_pages_begin(task: fw.Task) -> None:
    bands = [{"stop": 64, "coding": "float16 rows"}, {"stop": ITEMS, "coding": "one 4-bit code for each of 4 pieces"}]
    change = fw.EncodeTables(codings={"item": bands}).apply(task)
    with torch.no_grad():
        rows = change.model.item(torch.arange(ITEMS))
    torch.testing.assert_close(rows[:64], task.model.item.weight[:64].half().float(), rtol=0, atol=0)
    assert len(torch.unique(rows[64:, :2], dim=0)) <= 16


def item(*bands: Any) -> dict[str, Any]:
    return {"codings": {"item": list(bands)}}


def band(stop: object, coding: object = "one 4-bit code") -> dict[str, object]:
    return {"stop": stop, "coding": coding}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"codings": {}}, "codings must map names of tables to bands, as in {\"item\": [{\"stop\": 400"),
        ({"codings": [1]}, "seen [1]"),
        ({"codings": whole("one 4-bit code"), "ratio": 8}, "exactly one of bits_per_row=, ratio=, max_drop=, codings=; "
         "seen ratio=8, codings"),
        (item(), "Table 'item' needs a list of bands; seen []"),
        ({"codings": {"item": "x"}}, "Table 'item' needs a list of bands; seen 'x'"),
        (item({"stop": 4}), "Table 'item', band 1: a band has a stop and a coding, nothing else; seen stop"),
        (item(band(64), band(400) | {"start": 64}), "band 2: a band has a stop and a coding"),
        (item(band("4")), "band 1: stop must be a whole number above 0; seen '4'"),
        (item(band(True)), "seen True"),
        (item(band(128), band(64)), "band 2: stop must be a whole number above 128; seen 64"),
        (item(band(400, 4)), "band 1: coding must be in words; seen 4"),
        (item(band(400, "four bits")), "Table 'item', band 1: coding 'four bits' is unknown; it may be"),
        (item(band(400, "one 9-bit code")), "coding 'one 9-bit code' is too large"),
        (item(band(400, "99 4-bit codes")), "at most 8 codes"),
        (item(*(band(64 * many) for many in range(1, 300))), "has 299 bands; at most 256 can be told apart"),
    ],
)  # fmt: skip
def test_a_plan_that_makes_no_sense_is_refused_when_built(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(fw.InputError) as error:
        fw.EncodeTables(**settings)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("codings", "words"),
    [
        ({"itme": [band(400)]}, "There is no table 'itme'; the nearest is 'item'"),
        ({"item": [band(300)]}, "Table 'item' has 400 rows, but its bands end at 300; the last stop must be 400"),
        ({"item": [band(500)]}, "but its bands end at 500"),
        (
            {"item": [band(100), band(400)]},
            "band 1: a table of 400 rows may be cut at multiples of 64, the nearest: 64 or 128; seen stop 100",
        ),
        ({"user": [band(30), band(60)]}, "may be cut at multiples of 64, here nowhere; seen stop 30"),
        (
            {"item": [band(400, "one 4-bit code for each of 3 pieces")]},
            "rows of 8 values cannot be cut into 3 equal pieces; use one of 1, 2, 4, 8",
        ),
    ],
)
def test_a_plan_that_does_not_fit_is_refused_before_the_work(task: fw.Task, codings: Any, words: str) -> None:
    with pytest.raises(fw.InputError) as error:
        fw.EncodeTables(codings=codings).apply(task)
    assert words in str(error.value)


def test_a_table_that_cannot_be_coded_is_named_with_the_reason() -> None:
    class Clipped(Ranker):
        def __init__(self) -> None:
            super().__init__()
            self.user = nn.Embedding(USERS, 8, max_norm=5.0)

    task = trained_task(seeded(Clipped))
    with pytest.raises(fw.InputError, match=r"Table 'user' cannot be coded: max_norm=5.0 .* Take it out of codings="):
        fw.EncodeTables(codings=whole("one 4-bit code")).apply(task)

"""What the page says of a search: recipe, front, timeline; whole, offline, repeatable, safe with any words."""

import re
from dataclasses import replace

import pytest
from example_allocation import make_allocation
from example_search import BEFORE, RECIPE, make_hostile_search, make_search, make_searched_result
from test_page import Outline

from flyweight.report.front import front_of
from flyweight.report.page import render_page
from flyweight.report.search_data import SearchTold, TriedRecipe
from flyweight.report.search_words import reasons_in_words, tip_of, tried_in_words

DATA = make_searched_result(12, allocation=make_allocation())


@pytest.fixture(scope="module")
def page() -> str:
    return render_page(DATA)


def test_page_of_a_search_is_whole_and_asks_nothing_of_a_network(page: str) -> None:
    outline = Outline(page)
    assert outline.open == []
    assert not {name for name, _ in outline.elements} & {"script", "link", "img", "iframe", "object", "form"}
    given = [pair for _, attributes in outline.elements for pair in attributes.items()]
    assert all((value or "").startswith("#") for key, value in given if "href" in key or key == "src")


def test_page_of_a_search_is_the_same_each_time(page: str) -> None:
    assert render_page(make_searched_result(12, allocation=make_allocation())) == page


def test_recipe_and_front_come_before_what_became_of_the_bytes(page: str) -> None:
    order = ["Certified", 'id="recipe"', 'id="front-bytes"', 'id="front-latency"', 'class="list front"',
             'id="timeline"', 'id="tables"', 'id="allocation"', 'id="latency"']  # fmt: skip
    places = [page.index(mark, page.index("<body>")) for mark in order]
    assert places == sorted(places)
    assert 'id="curve"' not in page  # the front shows all that it would


def test_page_tells_the_recipe_a_sentence_a_step_and_why_the_search_ended(page: str) -> None:
    assert DATA.search is not None
    assert f"The search ended because {DATA.search.stopped}." in page
    assert all(f"<li>{sentence}</li>" in page for sentence in RECIPE)


def test_table_of_the_front_holds_number_recipe_size_time_drop_and_marks_the_chosen(page: str) -> None:
    assert DATA.search is not None
    front = front_of(DATA.search)
    table = page[page.index('class="list front"') :].partition("</table>")[0]
    rows = [re.sub(r"<[^>]+>", "|", row) for row in re.findall(r"<tr style.*?</tr>", table)]
    assert [int(re.findall(r"\d+", row)[0]) for row in rows] == [trial.number for trial in front]
    assert sum("chosen" in row for row in rows) == 1
    for trial, row in zip(front, rows, strict=True):
        assert trial.words in row
        assert f"{BEFORE / (trial.bytes or 1):.0f}x smaller" in row
        assert f"{trial.latency_ms:.2f} ms" in row
        assert f"{trial.drop.low:+.4f}"[:6] in row  # type: ignore[union-attr]
        assert row.endswith("|yes||" if trial.inside else "|no||")
    sizes = [trial.bytes for trial in front]
    assert sizes == sorted(sizes, key=lambda size: size or 0)


def test_another_is_taken_by_a_command_only_where_the_search_is_kept(page: str) -> None:
    assert "<code>flyweight compress --from runs/complete-journey --pick NUMBER</code>" in page
    assert DATA.search is not None
    assert "--pick" not in render_page(replace(DATA, search=replace(DATA.search, run="")))
    spaced = render_page(replace(DATA, search=replace(DATA.search, run="my runs/a")))
    assert "--from &#39;my runs/a&#39; --pick" in spaced


def test_how_many_were_cut_and_failed_is_told_with_reasons_counted() -> None:
    trials = [TriedRecipe(n, "w", "cut", "no smaller and no quicker than trial 4") for n in range(3)]
    trials += [TriedRecipe(n, "w", "cut", f"still loses {n / 100:.4f} after learning") for n in range(5)]
    trials += [TriedRecipe(9, "w", "failed", "RuntimeError: no memory left for it"), TriedRecipe(10, "w", "failed")]
    assert reasons_in_words(trials) == (
        "5 cut: still loses 0.0000 after learning, and alike",
        "3 cut: no smaller and no quicker than trial 4",
        "1 failed: RuntimeError: no memory left for it",
        "1 failed",
    )
    done = TriedRecipe(11, "w", "done", inside=True)
    assert tried_in_words(SearchTold((*trials, done), seconds=592.0)) == (
        "11 recipes tried in 9 min 52 s: 1 measured, of which 1 inside the budget; 8 cut; 2 failed."
    )


def test_many_reasons_are_added_up_and_long_ones_cut() -> None:
    trials = [TriedRecipe(n, "w", "failed", f"reason {chr(97 + n)} " + "y" * 900) for n in range(12)]
    told = reasons_in_words(trials)
    assert len(told) == 9
    assert max(map(len, told)) < 180
    assert told[-1] == "4 for 4 other reasons"


def test_tip_of_a_trial_that_was_cut_says_why() -> None:
    trial = TriedRecipe(4, "tables 40x", "cut", "no smaller\nand no quicker than trial 2", bytes=1_866_000)
    expected = "4: tables 40x\n1.9 MB, 100x smaller\ncut: no smaller and no quicker than trial 2"
    assert tip_of(trial, BEFORE, "auc") == expected


def test_words_of_a_search_are_escaped() -> None:
    page = render_page(make_hostile_search())
    outline = Outline(page)
    assert outline.open == []
    assert "script" not in {name for name, _ in outline.elements}
    assert "{{ 7 * 7 }}" in page


@pytest.mark.parametrize(
    "search",
    [
        SearchTold(()),
        SearchTold((TriedRecipe(1, "tables 8x", "failed", "RuntimeError"),), stopped="nothing was left to try"),
        replace(make_search(5), peers=(), recipe=(), best_so_far=()),
    ],
)
def test_page_of_a_search_that_found_little_leaves_out_what_is_not_there(search: SearchTold) -> None:
    page = render_page(replace(DATA, search=search))
    assert Outline(page).open == []
    assert ('id="front-bytes"' in page) == bool(search.trials and search.trials[0].drop)
    assert ('id="timeline"' in page) == bool(search.trials)
    assert 'id="recipe"' not in page


def test_page_of_thousands_of_trials_stays_light() -> None:
    assert len(render_page(make_searched_result(2_000))) < 700_000

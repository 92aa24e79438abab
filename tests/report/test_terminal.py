"""The table in a terminal."""

import re
from dataclasses import replace

import pytest
from example_result import make_bare_result, make_hostile_result, make_result
from example_search import make_hostile_search, make_searched_result

from flyweight.report.data import ReportData
from flyweight.report.terminal import render_text


@pytest.mark.parametrize("data", [make_result(), make_bare_result(), make_hostile_result(), make_searched_result(200)])
def test_text_fits_its_width_and_holds_no_colours(data: ReportData) -> None:
    text = render_text(data, width=90)
    assert max(len(line) for line in text.splitlines()) <= 90
    assert "\x1b" not in text


def test_text_names_engine_skipped_and_where_to_look_next() -> None:
    text = render_text(make_result())
    assert "Engine: onnxruntime" in text
    assert "not counted: 4, as tables.department.weight: 31 rows" in text
    assert "Next: flyweight inspect demo/ranker.fly" in text


def test_words_in_brackets_are_not_taken_for_markup() -> None:
    assert "[bold]odd[/bold]" in render_text(make_result(name="[bold]odd[/bold]"))


@pytest.mark.parametrize("width", [80, 110])
def test_searched_result_tells_its_recipe_and_how_to_take_another(width: int) -> None:
    data = make_searched_result(200)
    assert data.search is not None
    lines = render_text(data, width=width).splitlines()
    chosen = next(one for one in data.search.trials if one.chosen)
    text = " ".join(line.strip() for line in lines)
    assert f"Trial {chosen.number} is the best of 200 recipes tried: {chosen.words}." in text
    assert f"The search ended because {data.search.stopped}." in text
    assert "  3. Distill: 1 epoch on the scores of the original." in lines
    assert "Take another: flyweight compress --from runs/complete-journey --pick NUMBER" in lines
    (line,) = [line for line in lines if line.startswith(f"> {chosen.number} ")]
    assert line.endswith("yes")
    assert chosen.drop is not None
    assert f"{chosen.drop.high:+.4f}" in line
    listed = lines[lines.index(line) - 3 : lines.index(line) + 4]
    sizes = [float(re.search(r"([\d.]+) kB", one)[1]) for one in listed]  # type: ignore[index]
    assert sizes == sorted(sizes)


def test_search_that_is_not_kept_offers_no_command_and_odd_words_stay_words() -> None:
    data = make_searched_result(12)
    assert data.search is not None
    assert "Take another" not in render_text(replace(data, search=replace(data.search, run="")))
    assert "{{ 7 * 7 }}" in render_text(make_hostile_search())

"""The table in a terminal."""

import pytest
from example_result import make_bare_result, make_hostile_result, make_result

from flyweight.report.data import ReportData
from flyweight.report.terminal import render_text


@pytest.mark.parametrize("data", [make_result(), make_bare_result(), make_hostile_result()])
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

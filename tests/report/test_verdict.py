"""The sentence and the lines that both the page and the terminal show."""

from dataclasses import replace

from example_result import make_bare_result, make_result

from flyweight.report.verdict import comparison, judge
from flyweight.task.estimate import Estimate


def test_certified_result_says_so_with_sizes_interval_margin_rows_and_groups() -> None:
    data = make_result()
    data = replace(data, before=replace(data.before, bytes=187_000_000), after=replace(data.after, bytes=540_000))
    verdict = judge(data)
    assert verdict.sentence == (
        "187.0 MB became 540.0 kB, 346x smaller; the AUC drop of +0.0002 [-0.0002, +0.0006] is inside the margin of "
        "0.001: certified on 78,053 rows in 5,012 groups."
    )
    assert (verdict.badge, verdict.tone) == ("Certified", "good")


def test_interval_outside_the_margin_is_not_certified() -> None:
    drop = Estimate(0.0008, 0.0003, 0.0013, n=78_053)
    verdict = judge(make_result(drop=drop, certified=False))
    assert "reaches +0.0013, outside the margin of 0.001. Not certified on 78,053 rows." in verdict.sentence
    assert verdict.tone == "bad"


def test_guard_that_fails_is_the_reason() -> None:
    missed = ("The logloss drop reaches +0.0031, 0.0021 over its margin.",)
    verdict = judge(make_result(certified=False, missed=missed))
    assert verdict.sentence.endswith("is inside the margin of 0.001, but: " + missed[0])


def test_missed_budget_with_certified_quality_is_not_called_good() -> None:
    verdict = judge(make_result(missed=("346x is short of the 1,000x asked for.",)))
    assert verdict.badge == "Quality certified, budget missed"
    assert verdict.sentence.endswith("346x is short of the 1,000x asked for.")


def test_result_without_budget_claims_nothing() -> None:
    verdict = judge(make_bare_result())
    assert "No budget was set" in verdict.sentence
    assert "smaller" not in verdict.sentence
    assert verdict.tone == "plain"


def test_lines_hold_sizes_quality_guards_latency_and_memory() -> None:
    lines = {line.what: line for line in comparison(make_result())}
    assert list(lines)[:2] == ["Model on disk", "Embedding tables"]
    assert lines["Logloss"].change == "drop +0.0003 [-0.0002, +0.0008]"
    assert (lines["Logloss"].note, lines["Logloss"].tone) == ("allowed 0.001", "good")
    assert (lines["500 candidates, median"].change, lines["500 candidates, median"].note) == ("12x", "11.7 to 12.2")
    assert lines["Memory while serving"].change == "65x"


def test_guard_beyond_its_margin_is_marked_bad() -> None:
    lines = {line.what: line for line in comparison(make_result(guard_margins={"logloss": 0.0005}))}
    assert lines["Logloss"].tone == "bad"


def test_unknown_measurements_are_left_out() -> None:
    assert [line.what for line in comparison(make_bare_result())] == ["Model on disk", "Accuracy"]

"""A search from task to bundle, exported and timed: what it tells, and that another of its points is taken from it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from made_up_outcomes import done, failed

import flyweight as fw
from flyweight.planning import measuring
from flyweight.planning.result import Result
from flyweight.planning.search import search as module
from flyweight.planning.search.candidate import Candidate
from flyweight.planning.search.outcome import Outcome, frontier
from flyweight.planning.search.run_folder import RunFolder
from flyweight.planning.search.search import Found
from flyweight.planning.search.study import kept_outcomes
from flyweight.planning.search.told import told
from flyweight.report.search_data import SearchTold, TriedRecipe
from small_tasks import ITEMS, Ranker, seeded, trained_task

TRIALS = 3
FIRST = [Candidate(), Candidate(tables=20.0), Candidate(tables=20.0, units=0.5, epochs=0.5)]


@pytest.fixture(autouse=True, scope="module")
def _few_proposals_and_no_fresh_processes() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "first_candidates", lambda *_: FIRST)
        patch.setattr(module, "plan_first", lambda *_: [])
        patch.setattr(measuring, "resident_growth", lambda *_: None)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("searched") / "run"


@pytest.fixture(scope="module")
def result(ranker: fw.Task, run: Path) -> Result:
    return fw.compress(ranker, fw.Budget(max_drop=0.2), run=run, max_trials=TRIALS)


@pytest.fixture(scope="module")
def picked(ranker: fw.Task, run: Path, result: Result) -> Result:
    (number,) = (trial.number for trial in search_in(result).trials if trial.words == str(FIRST[2]))
    return fw.compress(ranker, run=run, pick=number)


def search_in(result: Result) -> SearchTold:
    assert result.data.search is not None
    return result.data.search


def chosen_of(result: Result) -> TriedRecipe:
    (trial,) = (trial for trial in search_in(result).trials if trial.chosen)
    return trial


def test_every_trial_is_told_as_it_was_kept(result: Result, run: Path) -> None:
    kept = kept_outcomes(run)
    assert [trial.words for trial in search_in(result).trials] == [str(one.candidate) for one in kept]
    for trial, one in zip(search_in(result).trials, kept, strict=True):
        assert one.measured is not None
        assert (trial.bytes, trial.latency_ms, trial.drop) == (one.measured.bytes, one.measured.latency_ms, one.drop)
        assert trial.front == (one in frontier(kept))
    assert search_in(result).stopped == f"its {TRIALS} trials were made"
    assert search_in(result).run == str(run)


def test_the_page_holds_the_search(result: Result) -> None:
    page = result.contents.report
    for trial in search_in(result).trials:
        assert trial.words in page
    assert f"its {TRIALS} trials were made" in page
    assert "original, ONNX Runtime" in page


def test_points_are_the_trials_with_those_that_nothing_beats_marked(result: Result) -> None:
    points = {point.label: point for point in result.frontier}
    trials = {trial.words: trial for trial in search_in(result).trials}
    assert points.keys() == trials.keys()
    for label, point in points.items():
        assert (point.bytes, point.front, point.chosen) == (
            trials[label].bytes, trials[label].front, trials[label].chosen,
        )  # fmt: skip


def test_what_is_handed_on_is_what_its_trial_was(result: Result) -> None:
    trial = chosen_of(result)
    assert trial.inside
    assert result.after.table_bytes == trial.table_bytes
    assert result.after.macs == trial.macs
    assert result.after.bytes <= 1.05 * (trial.bytes or 0)
    assert result.met


def test_a_picked_trial_is_made_again_without_a_new_one(result: Result, picked: Result, run: Path) -> None:
    assert len(kept_outcomes(run)) == TRIALS
    assert chosen_of(picked).words == str(FIRST[2])
    assert picked.after.table_bytes == chosen_of(picked).table_bytes
    assert picked.after.macs == chosen_of(picked).macs
    steps = [change.step for change in picked.changes if change.step != "coded_teacher"]  # whoever teaches
    assert steps[:3] == ["encode_tables", "prune", "distill"]


def test_its_look_at_the_test_split_is_held_to_more_and_told(result: Result, picked: Result, run: Path) -> None:
    assert result.drop.confidence == 0.95
    assert picked.drop.confidence == pytest.approx(0.975)
    said = "the test split was looked at for the 2. time for this search: intervals are 97.5% ones"
    assert said in picked.data.notes
    assert said in picked.contents.report
    assert said not in result.contents.report
    assert RunFolder(run).facts()["looks"] == 2


def test_its_budget_is_that_of_the_search(result: Result, picked: Result, run: Path) -> None:
    assert RunFolder(run).budget() == fw.Budget(max_drop=0.2)
    assert picked.data.margin == 0.2


def test_numbers_that_are_not_there_are_refused_with_those_that_are(
    result: Result, ranker: fw.Task, run: Path
) -> None:
    with pytest.raises(fw.InputError) as error:
        fw.compress(ranker, run=run, pick=99)
    assert f"Trial 99 is none of those that were measured in {run}: 0, 1, 2." in str(error.value)


def test_picking_from_the_search_of_another_task_is_refused(result: Result, run: Path) -> None:
    other = trained_task(seeded(Ranker, items=ITEMS + 1))
    with pytest.raises(fw.InputError, match="is the search of another task"):
        fw.compress(other, run=run, pick=0)


def test_picking_where_there_is_no_search_is_refused_and_makes_none(ranker: fw.Task, tmp_path: Path) -> None:
    with pytest.raises(fw.InputError, match=r"holds no search: there is no run\.json"):
        fw.compress(ranker, run=tmp_path / "nowhere", pick=0)
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ({"pick": 1}, "give the folder that it was kept in as run="),
        ({"pick": 1, "run": "x", "steps": []}, "as run=, and no steps"),
        ({"run": "x", "steps": []}, "with steps= nothing is searched"),
        ({"max_trials": 0}, "max_trials must be a positive whole number; seen 0"),
        ({"max_trials": True}, "max_trials must be a positive whole number; seen True"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(ranker: fw.Task, call: dict[str, object], words: str) -> None:
    with pytest.raises(fw.InputError) as error:
        fw.compress(ranker, **call)  # type: ignore[arg-type]
    assert words in str(error.value)


def found(*outcomes: Outcome) -> Found:
    return Found(list(outcomes), outcomes[0], True, "its 3 trials were made", 12.0, [(1.0, 0)])


def test_what_is_told_says_inside_front_and_chosen_of_each() -> None:
    outcomes = done(0, size=1_000), done(1, size=2_000), done(2, size=500, drop=0.9), failed(3, "no memory")
    said = told(found(*outcomes), fw.Budget(max_drop=0.1), 10_000, 1.0, ("a step.",), ())
    assert [trial.inside for trial in said.trials] == [True, True, False, False]
    assert [trial.front for trial in said.trials] == [True, False, True, False]
    assert [trial.chosen for trial in said.trials] == [True, False, False, False]
    assert (said.trials[3].bytes, said.trials[3].reason) == (None, "no memory")
    assert (said.recipe, said.stopped, said.seconds, said.best_so_far) == (
        ("a step.",), "its 3 trials were made", 12.0, ((1.0, 0),),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("limits", "largest", "slowest"),
    [
        ({"max_drop": 0.1}, None, None),
        ({"max_bytes": 700}, 700, None),
        ({"min_size_ratio": 20}, 500, None),
        ({"min_size_ratio": 20, "max_bytes": 700}, 500, None),
        ({"max_latency_ms": 3.0}, None, 3.0),
        ({"min_speedup": 4.0}, None, 0.5),
        ({"min_speedup": 4.0, "max_latency_ms": 0.2}, None, 0.2),
    ],
)
def test_limits_are_told_in_bytes_and_milliseconds(
    limits: dict[str, float], largest: float | None, slowest: float | None
) -> None:
    """The original takes 10,000 bytes, and twice the 1 ms of the best trial."""
    said = told(found(done(0)), fw.Budget(**limits), 10_000, 1.0, (), ())  # type: ignore[arg-type]
    assert said.max_bytes == (None if largest is None else pytest.approx(largest))
    assert said.max_latency_ms == (None if slowest is None else pytest.approx(slowest))

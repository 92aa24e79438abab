"""The search as a whole, with trials made up in no time: what it tries, when it ends, and how it goes on."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from made_up_outcomes import estimate
from on_paper import OnPaper, begun, bench_of

import flyweight as fw
from flyweight.planning.search import search as module
from flyweight.planning.search import study
from flyweight.planning.search.candidate import Candidate
from flyweight.planning.search.clock import Clock
from flyweight.planning.search.outcome import Measured, Outcome
from flyweight.planning.search.run_folder import RunFolder
from flyweight.planning.search.search import Found, Search
from flyweight.planning.search.space import Space
from flyweight.planning.search.study import Trials, kept_outcomes

SPACE = Space(most=500.0, macs=10_000, least=0.01, layers=True, single=False, epochs=4.0, teacher=1.0, skipped=())
NOTHING = Space(most=1.0, macs=0, least=0.85, layers=False, single=False, epochs=4.0, teacher=1.0, skipped=())
FIRST = (Candidate(), Candidate(tables=40.0), Candidate(tables=40.0, bits="int8"), Candidate(units=0.5, epochs=1.0))
BUDGET = fw.Budget(max_drop=0.01, max_minutes=60)
PATIENCE = 5
Try = Callable[..., Outcome]


def made_up(_: OnPaper, number: int, candidate: Candidate, **rest: Any) -> Outcome:
    """Smaller and quicker the further methods go; the drop passes 0.01 at half of that."""
    size = 20_000 / candidate.tables**0.5 * (1 - 0.5 * candidate.units) * (0.5 if candidate.bits == "int8" else 1)
    latency = 0.2 + candidate.macs * (1 - candidate.units)
    drop = 1e-4 * candidate.tables + 0.01 * candidate.units**2 - 0.001 * candidate.epochs
    measured = Measured(int(size), 1, 1, latency, 1 / latency, "made up")
    return Outcome(number, candidate, "done", "", measured, {"auc": estimate(drop)})


@pytest.fixture(autouse=True)
def _made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials, the space and the first proposals are made up."""
    monkeypatch.setattr(module, "run_trial", made_up)
    monkeypatch.setattr(module, "find_space", lambda *_: SPACE)
    monkeypatch.setattr(module, "PATIENCE", PATIENCE)

    def propose_first(_: Search, trials: Trials, space: Space, clock: Clock) -> None:
        for candidate in FIRST:
            trials.propose(candidate)

    monkeypatch.setattr(Search, "_propose_first", propose_first)


@pytest.fixture(scope="module")
def bench(ranker: fw.Task) -> OnPaper:
    return bench_of(ranker)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return begun(tmp_path / "run")


def searched(bench: OnPaper, folder: RunFolder, trials: int | None = None, budget: fw.Budget = BUDGET) -> Found:
    return Search(bench, budget, folder, 1.0, trials).run()


def words(found: Found) -> list[str]:
    return [str(one.candidate) for one in found.outcomes]


def test_what_is_known_to_pay_is_tried_first_and_nothing_twice(bench: OnPaper, folder: RunFolder) -> None:
    found = searched(bench, folder, 16)
    assert [one.candidate for one in found.outcomes[: len(FIRST)]] == list(FIRST)
    assert len(found.outcomes) == len(set(words(found))) == 16
    assert found.stopped == "its 16 trials were made"
    assert found.inside
    assert found.best.measured is not None
    assert found.turns[-1][1] == found.best.number


def test_a_search_goes_on_where_it_was_and_repeats_nothing(bench: OnPaper, folder: RunFolder) -> None:
    first = searched(bench, folder, 5)
    second = searched(bench, folder, 9)
    assert second.outcomes[:5] == first.outcomes
    assert len(set(words(second))) == 9
    assert second.seconds >= first.seconds
    assert searched(bench, folder, 9).outcomes == second.outcomes  # nothing is left to do


def test_the_same_trials_give_the_same_recipe(bench: OnPaper, tmp_path: Path) -> None:
    one, other = (searched(bench, begun(tmp_path / name), 8) for name in ("one", "other"))
    assert words(one) == words(other)
    assert one.best.candidate == other.best.candidate


def no_better(bench: OnPaper, number: int, candidate: Candidate, **rest: Any) -> Outcome:
    outcome = made_up(bench, number, Candidate())
    return Outcome(number, candidate, "done", "", outcome.measured, outcome.drops)


def test_it_ends_when_nothing_gets_better_unless_minutes_were_asked_for(
    bench: OnPaper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "run_trial", no_better)
    found = searched(bench, begun(tmp_path / "patient"), budget=fw.Budget(max_drop=0.01))
    assert found.stopped == f"the last {PATIENCE} trials found nothing better"
    assert len(found.outcomes) == PATIENCE + 1
    asked = searched(bench, begun(tmp_path / "asked"), PATIENCE + 4)
    assert asked.stopped == f"its {PATIENCE + 4} trials were made"


def test_patience_counts_trials_and_not_numbers(
    bench: OnPaper, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill or an interrupt takes a number away, and another is given when the trial is made again."""
    monkeypatch.setattr(module, "run_trial", no_better)
    with closing(Trials(folder, SPACE)) as trials:
        trials.propose(Candidate(units=0.25))
        for _ in range(PATIENCE + 3):
            trial, _ = trials.begin()
            trials.put_back(trial)
    assert len(searched(bench, folder, budget=fw.Budget(max_drop=0.01)).outcomes) == PATIENCE + 1


def test_it_ends_where_nothing_is_left_to_try(
    bench: OnPaper, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "find_space", lambda *_: NOTHING)
    found = searched(bench, folder)
    assert words(found) == ["rewriting alone"]
    assert found.stopped == "nothing else was left to try"


def test_it_ends_with_every_reason_where_nothing_can_be_measured(
    bench: OnPaper, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: OnPaper, number: int, candidate: Candidate, **rest: Any) -> Outcome:
        return Outcome(number, candidate, "failed", "EngineError: no engine runs it")

    monkeypatch.setattr(module, "run_trial", fails)
    with pytest.raises(fw.InputError) as error:
        searched(bench, folder)
    assert str(error.value).startswith("Nothing that was tried could be measured (rewriting alone: EngineError: no")
    assert "tables 40x: EngineError" in str(error.value)
    assert len(str(error.value)) < 2_200
    assert len(kept_outcomes(folder.path)) == PATIENCE


def test_time_that_is_over_ends_it_once_something_was_measured(bench: OnPaper, folder: RunFolder) -> None:
    found = searched(bench, folder, budget=fw.Budget(max_drop=0.01, max_minutes=1e-6))
    assert words(found) == ["rewriting alone"]
    assert "minutes were over" in found.stopped


def test_time_of_earlier_sittings_counts(bench: OnPaper, folder: RunFolder) -> None:
    searched(bench, folder, 2)
    folder.note(seconds=3_000.0, pace=[400.0, 100.0])
    found = searched(bench, folder, budget=fw.Budget(max_drop=0.01, max_minutes=55))
    assert len(found.outcomes) == 2
    assert found.seconds >= 3_000


def test_no_more_learning_is_tried_than_there_is_time_for(bench: OnPaper, folder: RunFolder) -> None:
    folder.note(pace=[1.0, 1_000.0])
    found = searched(bench, folder, 8, budget=fw.Budget(max_drop=0.01, max_minutes=20))
    assert max(one.candidate.epochs for one in found.outcomes) <= 1.0


def interrupted_at(monkeypatch: pytest.MonkeyPatch, trial: int) -> list[Candidate]:
    """Let the user interrupt the trial of a number; return the candidate."""
    seen: list[Candidate] = []

    def interrupts(bench: OnPaper, number: int, candidate: Candidate, **rest: Any) -> Outcome:
        if number == trial:
            seen.append(candidate)
            raise KeyboardInterrupt
        return made_up(bench, number, candidate)

    monkeypatch.setattr(module, "run_trial", interrupts)
    return seen


def test_an_interrupt_gives_the_best_so_far_and_the_trial_is_made_in_the_next_sitting(
    bench: OnPaper, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = interrupted_at(monkeypatch, 2)
    found = searched(bench, folder, 6)
    assert (found.interrupted, found.stopped) == (True, "it was interrupted")
    assert len(found.outcomes) == 2
    assert found.best in found.outcomes
    found = searched(bench, folder, 6)
    assert not found.interrupted
    assert seen[0] in [one.candidate for one in found.outcomes]
    assert all(one.state == "done" for one in found.outcomes)


def test_an_interrupt_before_anything_was_measured_is_one(
    bench: OnPaper, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted_at(monkeypatch, 0)
    with pytest.raises(KeyboardInterrupt):
        searched(bench, folder, 6)
    assert len(searched(bench, folder, 4).outcomes) == 4


def test_first_proposals_cut_short_by_a_death_are_made_whole(
    bench: OnPaper, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Trials.propose
    made: list[Candidate] = []

    def dies_at_the_third(trials: Trials, candidate: Candidate) -> None:
        made.append(candidate)
        if len(made) == 3:
            raise KeyboardInterrupt
        whole(trials, candidate)

    with monkeypatch.context() as patch:
        patch.setattr(Trials, "propose", dies_at_the_third)
        with pytest.raises(KeyboardInterrupt):
            searched(bench, folder, 6)
    found = searched(bench, folder, len(FIRST))
    assert {one.candidate for one in found.outcomes} == set(FIRST)


def test_time_is_noted_when_a_trial_begins(
    bench: OnPaper, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a kill loses the time of the trial under way, and none before it."""
    noted: list[float] = []

    def looks(bench: OnPaper, number: int, candidate: Candidate, **rest: Any) -> Outcome:
        noted.append(rest["clock"].elapsed - folder.facts()["seconds"])
        return made_up(bench, number, candidate)

    monkeypatch.setattr(module, "run_trial", looks)
    searched(bench, folder, 3)
    assert max(noted) < 1.0


def test_a_picked_trial_needs_no_new_one(bench: OnPaper, folder: RunFolder) -> None:
    made = searched(bench, folder, 3)
    kept = Search(bench, BUDGET, folder, 1.0).kept()
    assert kept.outcomes == made.outcomes
    assert len(kept_outcomes(folder.path)) == 3


def test_databases_are_let_go_whatever_ends_the_search(
    bench: OnPaper, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[Trials] = []
    monkeypatch.setattr(study.Trials, "close", lambda self: closed.append(self))
    searched(bench, folder, 1)
    interrupted_at(monkeypatch, 1)
    searched(bench, folder, 3)
    assert len(closed) == 2


def test_other_limits_are_proposed_for_anew_and_longer_minutes_are_not(
    bench: OnPaper, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float | None] = []
    monkeypatch.setattr(Search, "_propose_first", lambda search, *_: asked.append(search.budget.max_drop))
    for budget in (BUDGET, fw.Budget(max_drop=0.01, max_minutes=90), fw.Budget(max_drop=0.02, max_minutes=90)):
        Search(bench, budget, folder, 1.0, len(kept_outcomes(folder.path)) + 2 if asked else 2).run()
    assert asked == [0.01, 0.02]

"""Another point of a kept search on the command line: no new trial, a stricter look, refusals that say why."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import flyweight as fw
from flyweight.planning.search.run_folder import RunFolder
from flyweight.planning.search.study import kept_outcomes

Call = Callable[..., tuple[int, str, str]]
RUN = "mine.fly.run"


@pytest.mark.usefixtures("saved")
def test_a_point_is_taken_without_a_new_trial_and_its_look_is_held_to_more(call: Call, place: Path) -> None:
    before = kept_outcomes(place / RUN)
    page = place / "picked.html"
    code, said, told = call("compress", "--from", RUN, "--pick", "0", "--out", "picked.fly", "--report", str(page))
    assert code == 0, told
    assert kept_outcomes(place / RUN) == before
    assert "trial" not in told.replace("trials", "")
    assert f"Trial 0 is the best of 2 recipes tried: {before[0].candidate}." in " ".join(said.split())
    looks = RunFolder(place / RUN).facts()["looks"]
    assert looks >= 2
    assert f"the test split was looked at for the {looks}. time for this search" in page.read_text()
    facts = json.loads(call("inspect", "picked.fly", "--json", "-")[1])
    assert facts["drop"]["confidence"] == pytest.approx(1 - 0.05 / 2 ** (looks - 1))
    assert fw.verify(place / "picked.fly").ok
    assert not (place / "picked.fly.run").exists()


@pytest.mark.usefixtures("saved")
@pytest.mark.parametrize(
    ("words", "seen"),
    [
        (("--from", RUN, "--pick", "7"), "error: Trial 7 is none of those that were measured in mine.fly.run: 0, 1."),
        (("--from", RUN, "--pick", "-1"), "error: Trial -1 is none of those that were measured"),
        (("--from", RUN), "error: --from takes a point of an earlier search; say which with --pick NUMBER."),
        (("--pick", "1"), "error: --pick is the number of a point of an earlier search; name its folder with --from"),
        (("--from", "nowhere", "--pick", "0"), "error: nowhere holds no search: there is no run.json in it."),
        (("mine.py:task", "--from", "nowhere", "--pick", "0"), "error: nowhere holds no search"),
        (("mine.py:other_task", "--from", RUN, "--pick", "0"), "error: mine.fly.run is the search of another task"),
        ((), "error: Name a task"),
    ],
)
def test_what_cannot_be_taken_is_refused_in_one_line(
    call: Call, place: Path, words: tuple[str, ...], seen: str
) -> None:
    code, _, told = call("compress", *words, "--out", "never.fly")
    assert code == 2
    assert seen in told.splitlines()[-1]
    assert not (place / "never.fly").exists()
    assert not (place / "nowhere").exists()


@pytest.mark.usefixtures("saved")
def test_a_search_without_a_name_of_its_task_asks_for_it(call: Call, place: Path) -> None:
    nameless = RunFolder(place / "nameless")
    nameless.path.mkdir(exist_ok=True)
    nameless.note(task="somebody's")
    code, _, told = call("compress", "--from", "nameless", "--pick", "0", "--out", "never.fly")
    assert (code, "nameless does not say how its task is named; give the task first" in told) == (2, True)


@pytest.mark.usefixtures("saved")
def test_the_task_is_found_from_any_folder(call: Call, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert RunFolder(place / RUN).facts()["source"] == f"{place / 'mine.py'}:task"

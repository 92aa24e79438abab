"""The trials of a search in their database: none is lost or made twice, whatever ends the process; damage is said."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from made_up_outcomes import done, failed
from on_paper import begun
from optuna.trial import TrialState

import flyweight as fw
from flyweight.planning.search.candidate import Candidate
from flyweight.planning.search.outcome import Outcome
from flyweight.planning.search.run_folder import RunFolder
from flyweight.planning.search.space import Space
from flyweight.planning.search.study import OUTCOME, Trials, kept_outcomes

SPACE = Space(most=500.0, macs=10_000, least=0.01, layers=True, single=False, epochs=4.0, teacher=1.0, skipped=())
FIRST = Candidate(tables=50.0)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return begun(tmp_path / "run")


def sitting(folder: RunFolder) -> "closing[Trials]":
    """Open the trials as another process would, after this one has died."""
    return closing(Trials(folder, SPACE))


def try_next(trials: Trials, size: int = 1_000) -> Outcome:
    trial, candidate = trials.begin()
    outcome = Outcome(trial.number, candidate, "done", "", done(0, size).measured, done(0).drops)
    trials.end(trial, outcome, {"drop": -0.5})
    return outcome


def test_what_was_proposed_is_tried_in_its_order_and_kept(folder: RunFolder) -> None:
    with sitting(folder) as trials:
        for candidate in (Candidate(), FIRST, Candidate(), FIRST):  # proposed once, however often
            trials.propose(candidate)
        assert trials.waiting() == 2
        made = [try_next(trials), try_next(trials)]
        assert [one.candidate for one in made] == [Candidate(), FIRST]
    with sitting(folder) as trials:
        assert trials.outcomes() == made
        assert trials.waiting() == 0
    assert kept_outcomes(folder.path) == made


def test_a_trial_that_a_process_died_in_is_begun_again_once(folder: RunFolder) -> None:
    with sitting(folder) as trials:
        trials.propose(FIRST)
        trials.begin()
    with sitting(folder) as trials:
        assert trials.outcomes() == []
        assert trials.waiting() == 1
        _, candidate = trials.begin()
        assert candidate == FIRST
    with sitting(folder) as trials:
        (outcome,) = trials.outcomes()
        assert (outcome.candidate, outcome.state) == (FIRST, "failed")
        assert outcome.reason == "the process died in it 2 times (out of memory?)"
        assert trials.waiting() == 0


def test_a_death_while_another_is_taken_up_proposes_it_once(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with sitting(folder) as trials:
        trials.propose(FIRST)
        trials.begin()

    def dies(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("optuna.study.Study.tell", dies)
        with pytest.raises(KeyboardInterrupt):
            Trials(folder, SPACE)
    with sitting(folder) as trials:
        assert trials.waiting() == 1
        assert try_next(trials).candidate == FIRST


def test_a_trial_that_was_measured_is_not_made_again_though_the_process_died_before_it_ended(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with sitting(folder) as trials:
        trials.propose(FIRST)
        monkeypatch.setattr(trials, "_tell", dies)
        with pytest.raises(KeyboardInterrupt):
            try_next(trials)
    with sitting(folder) as trials:
        assert [one.candidate for one in trials.outcomes()] == [FIRST]
        assert trials.waiting() == 0
        assert trials.study.trials[0].state == TrialState.COMPLETE


def test_an_interrupt_between_outcome_and_end_keeps_the_trial(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with sitting(folder) as trials:
        for candidate in (FIRST, Candidate()):
            trials.propose(candidate)
        with monkeypatch.context() as patch:
            patch.setattr(trials, "_tell", interrupted)
            with pytest.raises(KeyboardInterrupt):
                try_next(trials)
        trials.begin()
        trials.put_back_all()
        assert [one.candidate for one in trials.outcomes()] == [FIRST]
        assert trials.waiting() == 1
        assert try_next(trials).candidate == Candidate()
        assert trials.running() == []


def test_values_that_a_death_left_half_written_are_not_lost(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with sitting(folder) as trials:
        trials.propose(FIRST)
        storage = type(trials.study._storage)
        written: list[object] = []
        whole = storage.set_trial_param

        def two_only(*given: object) -> None:
            written.append(given)
            if len(written) > 2:
                raise KeyboardInterrupt
            whole(*given)  # type: ignore[arg-type]

        with monkeypatch.context() as patch:
            patch.setattr(storage, "set_trial_param", two_only)
            with pytest.raises(KeyboardInterrupt):
                trials.begin()
    with sitting(folder) as trials:
        assert try_next(trials).candidate == FIRST


def test_an_interrupt_is_no_death(folder: RunFolder) -> None:
    with sitting(folder) as trials:
        trials.propose(FIRST)
        for _ in range(4):
            trial, candidate = trials.begin()
            assert candidate == FIRST
            trials.put_back(trial)
    with sitting(folder) as trials:
        assert trials.waiting() == 1
        assert try_next(trials).candidate == FIRST


def test_what_failed_teaches_optuna_nothing_and_is_kept_with_its_reason(folder: RunFolder) -> None:
    with sitting(folder) as trials:
        trial, _ = trials.begin()
        trials.end(trial, failed(trial.number, "ValueError: no"), {"measured": float("inf")})
        assert trials.study.trials[0].state == TrialState.FAIL
        assert trials.outcomes()[0].reason == "ValueError: no"


def test_drawn_candidates_lie_within_what_can_be_varied_and_differ_between_sittings(folder: RunFolder) -> None:
    drawn = []
    for _ in range(3):
        with sitting(folder) as trials:
            drawn.append(try_next(trials).candidate)
    assert len(set(drawn)) == 3
    for candidate in drawn:
        assert SPACE.candidate(SPACE.params(candidate)) == candidate


@pytest.mark.parametrize("name", ["a?b", "100%20", "a#b", "with space", "ünï", "a:b@c"])
def test_any_name_of_a_folder_will_do(tmp_path: Path, name: str) -> None:
    folder = begun(tmp_path / name)
    with sitting(folder) as trials:
        trials.propose(FIRST)
        try_next(trials)
    assert folder.database.is_file()
    assert len(kept_outcomes(folder.path)) == 1


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = begun(tmp_path_factory.mktemp("filled") / "run")
    with sitting(folder) as trials:
        for number in range(3):
            try_next(trials, 1_000 - number)
    folder.note(seconds=9.0)
    return folder


def damaged(filled: RunFolder, tmp_path: Path, content: bytes) -> RunFolder:
    shutil.copytree(filled.path, tmp_path / "copy")
    folder = RunFolder(tmp_path / "copy")
    folder.database.write_bytes(content)
    return folder


@pytest.mark.parametrize("share", [0.0, 0.001, 0.02, 0.3, 0.6, 0.97])
def test_truncated_trials_are_refused_and_left_alone(filled: RunFolder, tmp_path: Path, share: float) -> None:
    whole = filled.database.read_bytes()
    folder = damaged(filled, tmp_path, whole[: int(share * len(whole))])
    with pytest.raises(fw.InputError) as error:
        Trials(folder, SPACE)
    for words in (str(folder.database), "cannot be read (", f"remove the folder {folder.path} to search anew"):
        assert words in str(error.value)


def test_no_flipped_byte_is_taken_for_other_trials_silently(filled: RunFolder, tmp_path: Path) -> None:
    """Refused, or the same trials as before: nothing in between, and no other error."""
    whole, truth = filled.database.read_bytes(), kept_outcomes(filled.path)
    folder = damaged(filled, tmp_path, whole)
    for place in range(17, len(whole), len(whole) // 12):
        folder.database.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            with sitting(folder) as trials:
                found = trials.outcomes()
        except fw.InputError:
            continue
        assert all(one in truth for one in found)


def test_other_content_in_an_outcome_is_refused(filled: RunFolder, tmp_path: Path) -> None:
    folder = damaged(filled, tmp_path, filled.database.read_bytes())
    with sitting(folder) as trials:
        trials._storage.set_trial_user_attr(trials.study.ask(SPACE.distributions())._trial_id, OUTCOME, '{"number": 1}')
    with pytest.raises(fw.InputError, match="cannot be read"):
        Trials(folder, SPACE)


def test_a_folder_without_trials_is_said_to_hold_none(folder: RunFolder) -> None:
    with pytest.raises(fw.InputError, match=r"holds no trials: there is no trials\.db"):
        kept_outcomes(folder.path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a small disk could not be mounted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_is_said_and_no_trial_is_lost(small_disk: Path) -> None:
    folder = begun(small_disk / "run")
    with sitting(folder) as trials:
        made = [try_next(trials)]
        free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_bsize
        (small_disk / "filler").write_bytes(b"x" * (free - 24_000))
        with pytest.raises(fw.InputError) as error:
            made.extend(try_next(trials) for _ in range(1_000))
        for words in ("can no longer be kept (database or disk is full)", "is safe", "free space"):
            assert words in str(error.value)
    (small_disk / "filler").unlink()
    assert kept_outcomes(folder.path)[: len(made)] == made
    with sitting(folder) as trials:
        assert try_next(trials) in trials.outcomes()


def test_a_disk_that_became_read_only_is_said(small_disk: Path) -> None:
    folder = begun(small_disk / "run")
    with sitting(folder) as trials:
        try_next(trials)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(fw.InputError, match="readonly database"):
        Trials(folder, SPACE).begin()
    assert len(kept_outcomes(folder.path)) == 1


def test_the_database_is_let_go(folder: RunFolder) -> None:
    def open_files() -> int:
        return sum(link.startswith(str(folder.path)) for link in map(_target, Path("/proc/self/fd").iterdir()))

    if not Path("/proc/self/fd").exists():
        pytest.skip("open files are counted on Linux")
    for _ in range(3):
        with sitting(folder) as trials:
            try_next(trials)
        kept_outcomes(folder.path)
    assert open_files() == 0


def _target(link: Path) -> str:
    try:
        return os.readlink(link)
    except OSError:
        return ""

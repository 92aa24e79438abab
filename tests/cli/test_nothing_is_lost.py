"""Interrupts, full disks and pages that cannot be written: what was found is saved, and where is said."""

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import flyweight as fw
from flyweight.cli.deliver import deliver
from flyweight.planning import clock
from flyweight.planning.interrupts import interrupts_wait
from flyweight.planning.result import Result
from flyweight.task.progress import shown_on
from small_tasks import Ranker, seeded, trained_task

FLYWEIGHT = str(Path(sys.executable).parent / "flyweight")


class Stopped:
    """A run of the real executable on a terminal of its own, interrupted once something is true."""

    def __init__(
        self, place: Path, environment: dict[str, str], source: str, to: str, until: Callable[[str], bool]
    ) -> None:
        main, terminal = pty.openpty()
        words = [FLYWEIGHT, "compress", source, "--max-drop", "0.2", "--max-trials", "4", "--out", to]
        process = subprocess.Popen(
            words,
            cwd=place,
            stdout=subprocess.PIPE,
            stderr=terminal,
            text=True,
            env=environment,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # some runners ignore it
        )
        os.close(terminal)
        self.shown = ""
        while not until(self.shown):
            piece = self._read(main)
            assert piece, self.shown
            self.shown += piece
        process.send_signal(signal.SIGINT)
        while piece := self._read(main):
            self.shown += piece
        self.out = process.communicate()[0]
        self.code = process.returncode
        os.close(main)

    @staticmethod
    def _read(terminal: int) -> str:
        try:
            return os.read(terminal, 65_536).decode(errors="replace")
        except OSError:  # a terminal whose other end is closed
            return ""


def test_interrupt_in_the_search_saves_the_best_so_far(place: Path, environment: dict[str, str]) -> None:
    def asleep(shown: str) -> bool:
        return (place / "asleep").exists()

    stopped = Stopped(place, environment, "mine.py:endless", "stopped.fly", asleep)
    assert stopped.code == 1, stopped.shown
    assert "Exporting the best found until the interrupt" in stopped.shown
    assert "Interrupted: this is the best found until then, saved as stopped.fly." in stopped.out
    assert "Traceback" not in stopped.shown
    facts = fw.verify(place / "stopped.fly")
    assert facts.ok, str(facts)
    assert not list((place / "temp").glob("flyweight*"))


def test_interrupt_before_says_that_nothing_was_saved(place: Path, environment: dict[str, str]) -> None:
    before = set(place.iterdir())
    exporting = "Exporting the original"
    stopped = Stopped(place, environment, "mine.py:task", "early.fly", lambda shown: exporting in shown)
    assert stopped.code == 130
    assert "Interrupted; nothing was saved." in stopped.shown
    assert "Traceback" not in stopped.shown
    assert set(place.iterdir()) == before | {place / "early.fly.run"}  # of a search that tried nothing yet
    assert not list((place / "temp").glob("flyweight*"))


class Told:
    """A display that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, words: str) -> None:
        self.lines.append(words)


@pytest.fixture
def python_handles_interrupts() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("python_handles_interrupts")
def test_interrupts_wait_once_and_the_second_stops() -> None:
    display, reached = Told(), []
    with shown_on(display), interrupts_wait("saving first"):  # type: ignore[arg-type]
        signal.raise_signal(signal.SIGINT)
        reached.append("after the first")
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert reached == ["after the first"]
    assert display.lines == ["saving first"]
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_interrupts_that_somebody_else_handles_are_left_to_them() -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: seen.append(number))
    try:
        with interrupts_wait("saving first"):
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == [signal.SIGINT]


@pytest.fixture(scope="module")
def result(one_thread: None) -> Iterator[Result]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clock, "SECONDS", 0.5)
        yield fw.compress(trained_task(seeded(Ranker)), steps=[fw.EncodeTables(ratio=20)])


@pytest.fixture
def temp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary folder of the test's own, where a bundle that fits nowhere else goes."""
    folder = tmp_path / "temp"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(disk)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a small disk could not be mounted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_full_disk_saves_elsewhere(
    result: Result, small_disk: Path, temp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert deliver(result, small_disk / "full.fly", None, overwrite=False) == 2
    said = capsys.readouterr()
    assert "error: The disk is full" in said.err
    saved = Path(said.err.split("Nothing is lost: the bundle is saved as ")[1].strip())
    assert saved.is_relative_to(temp)
    assert fw.load(saved).predict
    assert f"flyweight inspect {saved}" in said.out
    assert not list(small_disk.iterdir())


def test_two_full_disks_still_show_what_was_found(
    result: Result, small_disk: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(small_disk))
    assert deliver(result, small_disk / "full.fly", None, overwrite=False) == 2
    said = capsys.readouterr()
    assert said.err.count("error: The disk is full") == 2
    assert "Embedding tables" in said.out
    assert "flyweight inspect" not in said.out
    assert not list(small_disk.iterdir())


def test_page_that_cannot_be_written_comes_after_the_bundle(
    result: Result, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert deliver(result, tmp_path / "mine.fly", tmp_path / "file" / "page.html", overwrite=False) == 2
    said = capsys.readouterr()
    assert "error: The report cannot be written to" in said.err
    assert f"The bundle holds it too: {tmp_path / 'mine.fly' / 'report.html'}" in said.err
    assert (tmp_path / "mine.fly" / "manifest.json").is_file()


def test_outcomes_have_their_exit_codes(result: Result, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missed = replace(result, missed=("the model is 3.0 times smaller, not 9 times",))
    assert deliver(result, tmp_path / "met.fly", None, overwrite=False) == 0
    assert deliver(missed, tmp_path / "missed.fly", None, overwrite=False) == 1
    assert deliver(replace(result, interrupted=True), tmp_path / "stopped.fly", None, overwrite=False) == 1
    assert "Budget missed: the model is 3.0 times smaller, not 9 times." in capsys.readouterr().out

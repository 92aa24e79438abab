"""Progress on a terminal: one line a stage, time left, nothing wrapped, the cursor given back."""

import io
import re

import pytest
from rich.console import Console

from flyweight.cli.display import TerminalDisplay, ZooProgress

HIDDEN, SHOWN, UP = "\x1b[?25l", "\x1b[?25h", "\x1b[1A"


def terminal(width: int = 80) -> tuple[TerminalDisplay, io.StringIO]:
    file = io.StringIO()
    return TerminalDisplay(Console(file=file, force_terminal=True, width=width, legacy_windows=False)), file


def lines(file: io.StringIO) -> list[str]:
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", file.getvalue())
    return [line for line in re.split(r"[\r\n]+", plain) if line.strip()]


@pytest.mark.parametrize("words", ["Allocating bits and checking on validation data", "Reading " * 20])
def test_bar_stays_on_one_line(words: str) -> None:
    display, file = terminal()
    display.begin(words, 3, None)
    display.advance(1)
    display.end()
    assert max(len(line) for line in lines(file)[:-1]) <= 80
    assert file.getvalue().count(UP) <= 1  # the cursor goes up when the bar is taken down, not while it moves


@pytest.mark.parametrize(
    ("total", "seconds", "left"), [(4, None, "about 30 s left"), (None, 25.0, "about 15 s left"), (None, 5.0, "10 s")]
)
def test_time_left_by_units_or_by_what_is_usual(
    total: int | None, seconds: float | None, left: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    display, file = terminal()
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    monkeypatch.setattr(display.console, "get_time", lambda: now)
    display.begin("Working", total, seconds)
    assert display._progress is not None
    display._progress.get_time = lambda: now
    now += 10.0
    display.advance(1)
    display._progress.refresh()
    display.end()
    assert any(line.rstrip().endswith(left) for line in lines(file))
    assert lines(file)[-1].startswith("Working: 10.0 s")


def test_without_a_terminal_each_stage_is_one_line() -> None:
    file = io.StringIO()
    display = TerminalDisplay(Console(file=file, force_terminal=False))
    display.begin("Encoding tables", 2, None)
    display.advance(2)
    display.end()
    assert re.fullmatch(r"Encoding tables: \d+\.\d s\n", file.getvalue())


def test_close_gives_the_cursor_back() -> None:
    display, file = terminal()
    ZooProgress(display)("Training", 1, 9)
    assert file.getvalue().count(HIDDEN) > file.getvalue().count(SHOWN)
    display.close()
    assert file.getvalue().count(HIDDEN) == file.getvalue().count(SHOWN)


def test_zoo_may_leave_work_unfinished_for_other_work() -> None:
    display, file = terminal()
    progress = ZooProgress(display)
    for label in ("Reading", "Training"):
        progress(label, 0, 4)
    progress("Training", 4, 4)
    assert [line.split(":")[0] for line in lines(file) if ":" in line] == ["Reading", "Training"]

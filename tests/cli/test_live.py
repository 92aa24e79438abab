"""A search in the terminal: a panel in its place, plain lines without one, stages inside it, a clean end."""

import os
import pty
import re
import select
import signal
import sys
import time
from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from flyweight.cli.display import TerminalDisplay
from flyweight.cli.live import WIDEST
from flyweight.task.estimate import Estimate
from flyweight.task.progress import BestSoFar, SearchState, publish, shown_on, stage, teller

HIDDEN, SHOWN = "\x1b[?25l", "\x1b[?25h"
BEST = BestSoFar("tables 700x, int8", 541_300, 345.2, 0.79, 12.1, Estimate(0.0002, -0.0001, 0.0005, n=54_112))
START = SearchState(elapsed=200.0, limit=600.0, running="trial 1: tables 700x", metric="auc")
FIRST = replace(START, elapsed=230.0, done=1, running="trial 3: fewer neurons", finished="trial 1: inside", best=BEST)
SEARCH = """
import sys, time
from rich.console import Console
from flyweight.cli.display import TerminalDisplay
from flyweight.task.progress import SearchState, publish, shown_on, stage
display = TerminalDisplay(Console(stderr=True, highlight=False, soft_wrap=True))
try:
    with shown_on(display):
        publish(SearchState(elapsed=3.0, limit=60.0, running="trial 1"))
        with stage("Encoding tables", total=4) as work:
            work.advance()
            time.sleep(60)
except KeyboardInterrupt:
    print("Interrupted; nothing was saved.", file=sys.stderr)
finally:
    display.close()
"""


class Screen:
    """As much of a terminal as the panel uses: text, new lines, the cursor up, lines erased, colours ignored."""

    def __init__(self, text: str) -> None:
        self.lines, self.row, self.column, self.hidden = [""], 0, 0, False
        for move, count, plain in re.findall(r"(\r|\n|\x1b\[\??([0-9;]*)[A-Za-z])|([^\r\n\x1b]+)", text):
            self._write(plain) if plain else self._move(move, count)

    def _write(self, plain: str) -> None:
        line = self.lines[self.row].ljust(self.column)
        self.column += len(plain)
        self.lines[self.row] = line[: self.column - len(plain)] + plain + line[self.column :]

    def _move(self, move: str, count: str) -> None:
        if move == "\r":
            self.column = 0
        elif move == "\n":
            self.row, self.column = self.row + 1, 0
            self.lines += [""] * (self.row >= len(self.lines))
        elif move.endswith("A"):
            self.row -= int(count or 1)
        elif move.endswith("K"):
            self.lines[self.row] = ""
        elif move in (HIDDEN, SHOWN):
            self.hidden = move == HIDDEN

    def __str__(self) -> str:
        return "\n".join(line.rstrip() for line in self.lines if line.strip())


def terminal(*, width: int = 100, is_terminal: bool = True) -> tuple[TerminalDisplay, StringIO]:
    file = StringIO()
    console = Console(file=file, force_terminal=is_terminal, width=width, highlight=False, soft_wrap=True)
    return TerminalDisplay(console), file


def frame(file: StringIO, display: TerminalDisplay) -> str:
    """What stands on the terminal now."""
    display._search._live.refresh()  # type: ignore[union-attr]
    return str(Screen(file.getvalue()))


@pytest.mark.parametrize("width", [60, 80, 200])
def test_panel_shows_time_left_trials_best_and_what_runs(width: int) -> None:
    display, file = terminal(width=width)
    display.watch(START)
    assert "nothing yet" in frame(file, display)
    display.watch(replace(FIRST, cut=3, failed=1))
    seen = frame(file, display)
    display.close()
    for words in ("6 min 10 s left of 10 min", "1 measured, 3 cut, 1 failed", "tables 700x, int8", "now",
                  "541.3 kB (345x smaller)", "AUC drop +0.0002 [-0.0001, +0.0005]", "trial 3: fewer"):  # fmt: skip
        assert words in seen
    assert max(map(len, seen.splitlines())) < min(width, WIDEST + 1)


def test_stage_within_a_search_is_a_line_of_its_panel() -> None:
    display, file = terminal()
    with shown_on(display):
        publish(START)
        with stage("Encoding tables", total=4) as work:
            work.advance(2)
            seen = frame(file, display)
        assert "Encoding tables" not in frame(file, display)
        publish(None)
    assert re.search(r"Encoding tables [━╺╸ ]+(about )?\d+ s", seen)
    assert str(Screen(file.getvalue())) == "Searching (0 measured): 3 min 20 s"


def test_stage_is_what_runs_now_where_the_search_names_nothing() -> None:
    display, file = terminal()
    with shown_on(display):
        publish(replace(START, running=""))
        with stage("Trial 3: tables 40x", seconds=30.0):
            seen = frame(file, display)
        display.close()
    assert re.search(r"│ now +\S Trial 3: tables 40x ", seen)


def test_line_that_cannot_wait_stands_above_the_panel() -> None:
    display, file = terminal()
    with shown_on(display):
        publish(START)
        teller()("Saving [bold]first[/bold].")
        lines = frame(file, display).splitlines()
        display.close()
    assert lines[0] == "Saving [bold]first[/bold]."
    assert "Searching" in lines[1]


def test_search_that_is_over_leaves_one_line_and_stages_show_as_before() -> None:
    display, file = terminal()
    with shown_on(display):
        publish(START)
        publish(replace(FIRST, cut=3))
        publish(None)
        with stage("Certifying"):
            pass
    seen = Screen(file.getvalue())
    assert re.fullmatch(r"Searching \(1 measured, 3 cut\): 3 min 20 s\nCertifying: 0\.0 s", str(seen))
    assert not seen.hidden


def test_time_that_is_over_is_called_so() -> None:
    display, file = terminal()
    display.watch(replace(START, elapsed=601.0))
    seen = frame(file, display)
    display.close()
    assert "over, ending what runs: 10 min" in seen


def test_without_a_terminal_a_line_for_each_measured_trial_and_each_new_best() -> None:
    display, file = terminal(is_terminal=False)
    with shown_on(display):
        publish(START)
        publish(replace(START, cut=1))
        with stage("Encoding tables"):
            pass
        publish(FIRST)
        publish(replace(FIRST, elapsed=240.0, cut=2))
        publish(replace(FIRST, elapsed=260.0, done=2, cut=2, finished="trial 4: outside"))
        publish(None)
    assert file.getvalue().splitlines() == [
        "3 min 50 s: 1 measured; trial 1: inside",
        "best so far: tables 700x, int8; 541.3 kB (345x smaller), 0.79 ms (12x faster); "
        "AUC drop +0.0002 [-0.0001, +0.0005]",
        "4 min 20 s: 2 measured, 2 cut; trial 4: outside",
        "Searching (2 measured, 2 cut): 3 min 20 s",
    ]


def test_interrupt_leaves_a_clean_terminal() -> None:
    """In a pseudo terminal that echoes ^C, as people's do."""
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "24"}
    child, master = pty.fork()
    if child == 0:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # tests begun in the background inherit that it is ignored
        os.execve(sys.executable, [sys.executable, "-c", SEARCH], environment)
    written, asked, deadline = "", False, time.monotonic() + 60
    while time.monotonic() < deadline:
        if select.select([master], [], [], 0.2)[0]:
            try:
                written += os.read(master, 65_536).decode(errors="replace")
            except OSError:  # the child has closed its end
                break
        if "Encoding tables" in written and not asked:
            asked = bool(os.write(master, b"\x03"))
    os.close(master)
    os.waitpid(child, 0)
    seen = Screen(written)
    assert asked
    assert str(seen) == "Interrupted; nothing was saved."
    assert not seen.hidden

"""A search killed again and again: what was measured stays, nothing is measured twice, and a bundle is whole or absent.

The real executable is killed with SIGKILL, at moments drawn anew each time, and one of its candidates kills the process
by itself, as one that takes all memory does.
"""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from flyweight.bundle.read import read_bundle
from flyweight.errors import FlyweightError
from flyweight.planning.search.outcome import Outcome
from flyweight.planning.search.run_folder import RunFolder
from flyweight.planning.search.study import kept_outcomes

FLYWEIGHT = str(Path(sys.executable).parent / "flyweight")
DEADLY = "tables 20x, int8 weights"
MINE = f"""
import os, signal, sys
sys.path.insert(0, {str(Path(__file__).parent.parent)!r})
import torch
import flyweight as fw
from flyweight.planning import clock
from flyweight.planning.search import pace, search, workbench
from flyweight.planning.search.candidate import Candidate
from small_tasks import Ranker, seeded, trained_task

torch.set_num_threads(1)
clock.SECONDS = 0.2
workbench.SECONDS = pace.SECONDS = 0.05
search.plan_first = lambda *_: []
search.first_candidates = lambda *_: [
    Candidate(), Candidate(tables=20.0), Candidate(tables=20.0, bits="int8 weights"),
    Candidate(tables=30.0, epochs=2.0),
]
whole = fw.Quantize.apply

def deadly(step, task):
    if step.activations is None:
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(step, task)

fw.Quantize.apply = deadly

def task():
    return trained_task(seeded(Ranker))
"""


@dataclass
class Killed:
    """A search and what was seen of it after every kill."""

    place: Path
    seen: dict[int, Outcome] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    kills: int = 0
    survived: int = 0

    @property
    def run(self) -> Path:
        return self.place / "R"

    @property
    def bundle(self) -> Path:
        return self.place / "X.fly"

    def sitting(self, trials: int, delay: float | None) -> int:
        """Run the executable until it ends, or is killed so many seconds after its first stage; return its code."""
        words = ["compress", "mine.py:task", "--max-drop", "0.2", "--max-minutes", "60", "--out", "X.fly", "--run", "R"]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(self.place / "temp"), "COLUMNS": "80"}
        with (self.place / "told").open("w") as told:
            process = subprocess.Popen(
                [FLYWEIGHT, *words, "--max-trials", str(trials), "--overwrite"],
                cwd=self.place, env=environment, stdout=told, stderr=told,
            )  # fmt: skip
            over = threading.Event()
            watcher = threading.Thread(target=self._watch, args=(over,))
            watcher.start()
            try:
                self._wait(process, delay)
            finally:
                process.kill()
                code = process.wait()
                over.set()
                watcher.join()
        assert not self.wrong, self.wrong
        return code

    def _wait(self, process: "subprocess.Popen[bytes]", delay: float | None) -> None:
        if delay is None:
            process.wait(timeout=600)
            return
        while process.poll() is None and not (self.place / "told").stat().st_size:
            time.sleep(0.01)
        end = time.monotonic() + delay
        while process.poll() is None and time.monotonic() < end:
            time.sleep(0.005)

    def _watch(self, over: threading.Event) -> None:
        """Look at the bundle's place all the time: what comes there must be whole at once."""
        known = 0
        while not over.wait(0.005):
            try:
                now = self.bundle.stat().st_ino
            except FileNotFoundError:
                continue
            if now != known:
                self._read_bundle()
                known = now

    def _read_bundle(self) -> None:
        try:
            read_bundle(self.bundle)
        except FlyweightError as error:
            if self.bundle.exists():  # not one that was replaced at this very moment
                self.wrong.append(str(error))

    def look(self) -> list[Outcome]:
        """Read the folder as it was left: whole, and with everything that was there before."""
        if not (self.run / "run.json").exists():
            assert not self.seen
            return []
        RunFolder(self.run).facts()
        database = self.run / "trials.db"
        outcomes = kept_outcomes(self.run) if database.exists() else []
        if database.exists():
            with closing(sqlite3.connect(database)) as connection:
                assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        now = {one.number: one for one in outcomes}
        for number, one in self.seen.items():
            assert now.get(number) == one, "a trial that was done is lost, or another"
        self.seen = now
        twice = [words for words, count in Counter(str(one.candidate) for one in outcomes).items() if count > 1]
        assert not twice, "measured again"
        for one in outcomes:
            assert one.state != "failed" or one.reason == "the process died in it 2 times (out of memory?)"
        if self.bundle.exists():
            self._read_bundle()
            assert not self.wrong, self.wrong
        return outcomes

    def until(self, kills: int, drawn: random.Random, span: float) -> None:
        """Kill so often, at moments within a span after the first stage; what survives is given more to do."""
        while self.kills < kills:
            # So much to do that few sittings end before they are killed: each end is a look at the test split, which
            # allows 32.
            code = self.sitting(len(self.seen) + 12, drawn.uniform(0, span))
            self.look()
            assert code in (0, 1, -signal.SIGKILL), (self.place / "told").read_text()
            self.kills += code == -signal.SIGKILL
            self.survived += code != -signal.SIGKILL

    def finish(self) -> list[Outcome]:
        """Let it run to its end, as often as it dies by itself, and hold the bundle against what was kept."""
        trials = max(len(self.seen), 4)
        for _ in range(3):
            code = self.sitting(trials, None)
            outcomes = self.look()
            if code != -signal.SIGKILL:
                break
            self.kills += 1
        assert code in (0, 1), (self.place / "told").read_text()
        assert len(outcomes) == trials
        done = subprocess.run([FLYWEIGHT, "verify", "X.fly"], cwd=self.place, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout
        return outcomes


@pytest.fixture
def killed(tmp_path: Path) -> Killed:
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "temp").mkdir()
    return Killed(tmp_path)


def held(killed: Killed) -> None:
    """Hold what every story of kills must come to."""
    outcomes = killed.finish()
    (deadly,) = (one for one in outcomes if str(one.candidate) == DEADLY)
    assert (deadly.state, deadly.reason) == ("failed", "the process died in it 2 times (out of memory?)")
    assert any(one.state == "done" for one in outcomes)
    assert RunFolder(killed.run).facts()["looks"] >= 1 + killed.survived


def test_three_kills_lose_nothing_and_repeat_nothing(killed: Killed) -> None:
    """One at a moment that is drawn, two by a candidate that kills the process."""
    killed.until(1, random.Random(7), 3.0)
    held(killed)
    assert killed.kills >= 3


@pytest.mark.slow
@pytest.mark.timeout(7_200)
def test_fifty_kills_lose_nothing_and_repeat_nothing(killed: Killed) -> None:
    killed.until(50, random.Random(0), 20.0)
    held(killed)

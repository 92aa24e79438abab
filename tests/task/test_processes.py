"""Processes that work for another end with it, however it ends."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from flyweight.task.processes import Processes
from flyweight.task.runner import WorkerLostError

WORK = """
import os, sys, time
from pathlib import Path
from flyweight.task.processes import Processes

def sleep(name):
    Path(name).write_text(str(os.getpid()))
    time.sleep(120)

if __name__ == "__main__":
    list(Processes(2).each(sleep, sys.argv[1:]))
"""


def test_workers_of_a_killed_process_end(tmp_path: Path) -> None:
    (tmp_path / "work.py").write_text(WORK)
    notes = [tmp_path / "one", tmp_path / "two"]
    parent = subprocess.Popen([sys.executable, tmp_path / "work.py", *notes])
    try:
        assert in_time(lambda: all(note.exists() and note.read_text() for note in notes), 60)
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    workers = [int(note.read_text()) for note in notes]
    assert in_time(lambda: not any(runs(worker) for worker in workers), 20)


def in_time(holds: Callable[[], bool], seconds: float) -> bool:
    due = time.monotonic() + seconds
    while time.monotonic() < due:
        if holds():
            return True
        time.sleep(0.05)
    return False


def runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{process}/stat").read_text().split(")")[1].split()[0] != "Z"


def ends_at_three(value: int) -> int:
    if value == 3:
        os._exit(1)
    time.sleep(0.05)
    return value * value


def test_only_what_kills_its_process_is_lost() -> None:
    done = dict(Processes(2).each(ends_at_three, range(8)))
    assert {value: one.result() for value, one in done.items() if value != 3} == {
        value: value * value for value in range(8) if value != 3
    }
    with pytest.raises(WorkerLostError):
        done[3].result()

"""A user's file with a small task, and the command line over it: in this process, or as the real executable."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

FLYWEIGHT = str(Path(sys.executable).parent / "flyweight")
TESTS = Path(__file__).parent.parent
MINE = f"""
import sys, time
from pathlib import Path
sys.path.insert(0, {str(TESTS)!r})
import torch
from flyweight.planning import clock
from flyweight.planning.search import pace, workbench
from small_tasks import Ranker, seeded, splits, trained_task
clock.SECONDS = 0.5  # how long both models are timed; what comes out is tested elsewhere
workbench.SECONDS = pace.SECONDS = 0.1

def task(change=lambda split: split, split="test", **settings):
    torch.set_num_threads(1)
    data = splits()
    data[split] = [change(batch) for batch in data[split]]
    return trained_task(seeded(Ranker), data, **settings)

def other_task():
    return trained_task(seeded(Ranker, items=401))

def one_class():
    return task(lambda batch: (batch[0], batch[1] * 0))

def far_ids():
    return task(lambda batch: (batch[0] | {{"item_id": batch[0]["item_id"] + 1}}, batch[1]))

def nan_weights():
    broken = task()
    with torch.no_grad():
        broken.model.item.weight[7, 2] = float("nan")
    return type(broken)(model=broken.model, inputs=broken.inputs, **splits())

def nothing():
    return 3

def broken():
    return {{}}["missing"]

def endless():
    "A task whose search does not end: in its second trial, it sleeps."
    from flyweight.planning.search import search
    tried = search.run_trial
    def sleeps(bench, number, *given, **settings):
        if number:
            Path("asleep").touch()
            time.sleep(60)
        return tried(bench, number, *given, **settings)
    search.run_trial = sleeps
    return task()
"""


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    (folder / "mine.py").write_text(MINE)
    (folder / "slips.py").write_text("import torch\ndef task(:\n")
    (folder / "lacks.py").write_text("import no_such_package\n")
    return folder


@pytest.fixture(scope="session")
def environment(place: Path) -> dict[str, str]:
    """The environment of the real executable, with a temporary folder of its own that can be looked into."""
    (place / "temp").mkdir()
    return os.environ | {"COLUMNS": "80", "OMP_NUM_THREADS": "1", "TMPDIR": str(place / "temp"), "TERM": "xterm"}


@pytest.fixture(scope="session")
def flyweight(place: Path, environment: dict[str, str]) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Run the real executable in the user's folder."""

    def run(*words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run([FLYWEIGHT, *words], cwd=place, capture_output=True, text=True, env=environment)

    return run


@pytest.fixture(scope="session")
def saved(flyweight: Callable[..., "subprocess.CompletedProcess[str]"]) -> "subprocess.CompletedProcess[str]":
    """A search of two trials, saved as mine.fly with its page mine.html, kept in mine.fly.run."""
    limits = ("--max-drop", "0.2", "--max-trials", "2")
    return flyweight("compress", "mine.py:task", *limits, "--out", "mine.fly", "--report", "mine.html")


@pytest.fixture
def call(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., tuple[int, str, str]]]:
    """Run the command line in this process, which is quicker; returns exit code, stdout and stderr."""
    from flyweight.cli.main import main

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.chdir(place)
    monkeypatch.setenv("COLUMNS", "80")

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["flyweight", *words])
        with pytest.raises(SystemExit) as left:
            main()
        code = left.value.code
        said = capsys.readouterr()
        return (code if isinstance(code, int) else 0), said.out, said.err

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)

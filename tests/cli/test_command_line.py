"""The command line as a user has it: the real executable, its exit codes, and what it says."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

FLYWEIGHT = str(Path(sys.executable).parent / "flyweight")
TASK = """
import torch
from torch import nn
import flyweight as fw

class Ranker(nn.Module):
    def __init__(self):
        super().__init__()
        self.user, self.item = nn.Embedding(USERS, 8), nn.Embedding(2000, 8)
        self.out = nn.Linear(8, 1)
    def forward(self, user_id, item_id):
        return self.out(self.user(user_id) * self.item(item_id)).squeeze(1)

def rows(count, seed):
    drawn = torch.Generator().manual_seed(seed)
    user, item = (torch.randint(0, many, (count,), generator=drawn) for many in (USERS, 2000))
    chance = torch.sigmoid(3.0 * ((user % 7) - 3) * ((item % 5) - 2) / 4)
    clicked = (torch.rand(count, generator=drawn) < chance).float()
    parts = [slice(at, at + 1000) for at in range(0, count, 1000)]
    return [({"user_id": user[part], "item_id": item[part]}, clicked[part]) for part in parts]

def task(**changed):
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model, train = Ranker(), rows(40_000, 1)
    rate = torch.optim.Adam(model.parameters(), lr=0.05)
    for inputs, target in train:
        loss = nn.functional.binary_cross_entropy_with_logits(model(**inputs), target)
        rate.zero_grad(); loss.backward(); rate.step()
    fields = {"user_id": fw.Field("request", USERS), "item_id": fw.Field("candidate", 2000)}
    splits = dict(train=train, validation=rows(20_000, 2), test=rows(30_000, 3))
    return fw.Task(model=model, inputs=fields, **(splits | changed))

def one_class():
    return task(test=[(inputs, target * 0) for inputs, target in rows(2000, 4)])

def nothing():
    return 3

def broken():
    return {}["missing"]
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    (folder / "mine.py").write_text(TASK.replace("USERS", "3000"))
    (folder / "slips.py").write_text("def task(:\n")
    return folder


def run(place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"COLUMNS": "100", "OMP_NUM_THREADS": "1"}
    return subprocess.run([FLYWEIGHT, *words], cwd=place, capture_output=True, text=True, env=environment, timeout=240)


@pytest.fixture(scope="module")
def saved(place: Path) -> tuple[Path, subprocess.CompletedProcess[str]]:
    words = ("compress", "mine.py:task", "--max-drop", "0.02", "--out", "mine.fly", "--report", "mine.html")
    return place, run(place, *words)


def test_compress_saves_and_says(saved: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    place, done = saved
    assert done.returncode == 0, done.stderr
    assert (place / "mine.fly" / "model.onnx").is_file()
    assert (place / "mine.html").read_text().lstrip().startswith("<!")
    assert "Embedding tables" in done.stdout
    assert "flyweight inspect mine.fly" in done.stdout
    assert "Encoding tables" in done.stderr


def test_inspect_prints_the_agreed_keys(saved: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    facts = json.loads(run(saved[0], "inspect", "mine.fly", "--json", "-").stdout)
    for part in (facts["before"], facts["after"]):
        assert {"bytes", "table_bytes", "macs", "quality"} <= set(part)
        assert {"value", "low", "high", "n"} <= set(part["quality"])
    assert {"value", "low", "high", "n", "confidence", "certified"} <= set(facts["drop"])
    assert facts["drop"]["certified"] is True
    assert facts["drop"]["n"] == 30_000
    assert {"p50", "p95", "p99"} <= set(facts["latency_ms"]["after"])
    assert facts["after"]["table_bytes"] < facts["before"]["table_bytes"]
    assert {"engine", "skipped"} <= set(facts)


def test_verify_tells_good_from_damaged(saved: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    assert run(saved[0], "verify", "mine.fly").returncode == 0
    copy = tmp_path / "bad.fly"
    subprocess.run(["cp", "-r", str(saved[0] / "mine.fly"), str(copy)], check=True)
    model = copy / "model.onnx"
    model.write_bytes(model.read_bytes()[:-1] + b"x")
    done = run(saved[0], "verify", str(copy))
    assert done.returncode == 1
    assert "model.onnx" in done.stdout


def test_report_copies_the_page(saved: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    assert run(saved[0], "report", "mine.fly", "--out", str(tmp_path / "page.html")).returncode == 0
    assert "<svg" in (tmp_path / "page.html").read_text()


def test_missed_budget_is_saved_and_exits_with_1(place: Path) -> None:
    words = ("compress", "mine.py:task", "--max-drop", "0.02", "--min-size-ratio", "100000", "--out", "missed.fly")
    done = run(place, *words)
    assert done.returncode == 1, done.stderr
    assert re.search(r"Budget missed: the model is [\d.]+ times smaller, not 100000 times", done.stdout)
    assert (place / "missed.fly" / "manifest.json").is_file()


WRONG = {
    "nowhere.py:task": "There is no file nowhere.py",
    "mine.py:tsk": "mine.py has no function 'tsk'. Did you mean 'task'?",
    "mine.py": "lacks a function",
    "mine.py:nothing": "returned int; it must return a flyweight.Task",
    "mine.py:broken": "KeyError: 'missing'",
    "slips.py:task": "slips.py, line 1: SyntaxError",
    "mine.py:one_class": "targets of the test split are 0; auc needs both classes",
    "complete-journy": "Did you mean 'complete-journey'?",
}


@pytest.mark.parametrize("source", WRONG)
def test_wrong_input_is_one_line_and_exits_with_2(place: Path, source: str) -> None:
    done = run(place, "compress", source, "--out", "wrong.fly")
    assert done.returncode == 2
    assert WRONG[source] in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("error: ")
    assert not (place / "wrong.fly").exists()


def test_debug_shows_the_traceback(place: Path) -> None:
    assert "Traceback" in run(place, "compress", "mine.py:broken", "--debug").stderr


def test_existing_output_is_refused_before_the_work(saved: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    done = run(saved[0], "compress", "mine.py:task", "--out", "mine.fly")
    assert done.returncode == 2
    assert "mine.fly exists; choose another --out or pass --overwrite" in done.stderr
    assert "Encoding" not in done.stderr


def interrupted(place: Path, after: str) -> tuple[int, str, str]:
    """Run a compression, send an interrupt once `after` stands on stderr, and return code, stdout and stderr."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    words = [FLYWEIGHT, "compress", "mine.py:task", "--max-drop", "0.0015", "--out", "stopped.fly"]
    pipe = subprocess.PIPE
    process = subprocess.Popen(words, cwd=place, stdout=pipe, stderr=pipe, text=True, env=environment)
    assert process.stderr is not None
    seen = ""
    while after not in seen:
        line = process.stderr.readline()
        assert line, seen
        seen += line
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, rest = process.communicate(timeout=120)
    return process.returncode, out, seen + rest


def test_interrupt_before_anything_met_says_nothing_was_saved(place: Path) -> None:
    code, _, errors = interrupted(place, "Exporting the original")
    assert code == 130
    assert "nothing was saved" in errors
    assert "Traceback" not in errors
    assert not (place / "stopped.fly").exists()
    assert not [path for path in place.iterdir() if path.name.startswith((".", "stopped"))]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_full_disk_loses_nothing(place: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("a small disk could not be mounted here")
    try:
        done = run(place, "compress", "mine.py:task", "--max-drop", "0.02", "--out", str(disk / "full.fly"))
        assert done.returncode == 2
        assert "Nothing is lost: the bundle is saved as" in done.stderr
        where = Path(done.stderr.split("is saved as ")[1].strip().rstrip("."))
        assert (where / "manifest.json").is_file()
        assert not list(disk.iterdir())
    finally:
        subprocess.run(["umount", str(disk)], check=True)

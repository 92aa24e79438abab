"""The folder of a search: of one task, used by one process, whole after any kill, and clear about what it is not."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import flyweight as fw
from flyweight.planning.search.run_folder import EXPORTS, RunFolder, fingerprint, opened
from small_tasks import FIELDS, Ranker, seeded, splits

HOLDS = """
import fcntl, os, sys, time
lock = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.flock(lock, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(60)
"""


def task_of(model: Any = None, **changes: Any) -> fw.Task:
    given = {"inputs": FIELDS, **splits(), **changes}
    return fw.Task(seeded(Ranker) if model is None else model, **given)


@pytest.fixture(scope="module")
def task() -> fw.Task:
    return task_of()


def refused(path: Path, task: fw.Task) -> str:
    with pytest.raises(fw.InputError) as error, opened(path, task, ""):
        pass
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_folder_is_taken_up_again_with_what_was_noted(task: fw.Task, tmp_path: Path) -> None:
    with opened(tmp_path / "new" / "run", task, "mine.py:task") as folder:
        folder.note(seconds=3.5)
        folder.note_budget(fw.Budget(max_drop=0.01, max_minutes=2))
    with opened(tmp_path / "new" / "run", task, "") as folder:
        facts = folder.facts()
        assert (facts["seconds"], facts["looks"], facts["source"], facts["name"]) == (3.5, 0, "mine.py:task", "model")
        assert folder.budget() == fw.Budget(max_drop=0.01, max_minutes=2)


def test_what_a_kill_left_of_a_trial_goes_and_what_is_somebodys_stays(task: fw.Task, tmp_path: Path) -> None:
    left = tmp_path / f"{EXPORTS}abc" / "plain"
    left.mkdir(parents=True)
    (left / "model.onnx").write_bytes(b"whole or not")
    (tmp_path / ".run.json.123").write_text("{")
    (tmp_path / "notes of mine").mkdir()
    with opened(tmp_path, task, ""):
        found = {path.name for path in tmp_path.iterdir()}
    assert "notes of mine" in found
    assert not {one for one in found if one.startswith((EXPORTS, ".run.json."))}


def test_another_task_is_refused_by_the_fingerprints_of_both(task: fw.Task, tmp_path: Path) -> None:
    with opened(tmp_path, task, ""):
        pass
    model = seeded(Ranker)
    with torch.no_grad():
        model.mlp[0].bias[3] += 1e-6
    other = task_of(model)
    said = refused(tmp_path, other)
    for words in (str(tmp_path), "of another task", fingerprint(task), fingerprint(other), "name another folder"):
        assert words in said


def flipped(split: Any) -> Any:
    (inputs, target), *rest = split
    return [(inputs, torch.cat([1 - target[:1], target[1:]])), *rest]


@pytest.mark.parametrize(
    "change",
    [
        {"metric": "logloss"},
        {"validation": flipped(splits()["validation"])},
        {"validation": splits()["validation"][:-1]},
        {"test": flipped(splits()["test"])},
        {"inputs": {**FIELDS, "item_id": fw.Field(role="sample", rows=400)}},
    ],
)
def test_what_a_model_is_judged_on_tells_tasks_apart(task: fw.Task, change: dict[str, Any]) -> None:
    assert fingerprint(task_of(**change)) != fingerprint(task)


def test_the_same_task_made_again_is_the_same(task: fw.Task) -> None:
    assert fingerprint(task_of()) == fingerprint(task)
    assert fingerprint(task_of(name="another name")) == fingerprint(task)


def test_rows_of_training_may_come_in_any_order(task: fw.Task) -> None:
    columns = {name: torch.cat([inputs[name] for inputs, _ in task.train]) for name in FIELDS}
    rows = TensorDataset(*columns.values(), torch.cat([target for _, target in task.train]))

    def batch(cells: Any) -> Any:
        *inputs, target = map(torch.stack, zip(*cells, strict=True))
        return dict(zip(FIELDS, inputs, strict=True)), target

    shuffled = DataLoader(rows, 512, shuffle=True, collate_fn=batch)  # type: ignore[arg-type]
    assert fingerprint(replace(task, train=shuffled)) == fingerprint(task)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float64, torch.int8])
def test_weights_and_inputs_of_any_kind_have_a_fingerprint(kind: torch.dtype) -> None:
    data = {
        split: [(inputs | {"price": inputs["price"].to(kind)}, target) for inputs, target in rows]
        for split, rows in splits().items()
    }

    class Odd(Ranker):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("odd", torch.ones(3).to(kind))
            self.register_buffer("empty", torch.ones(0))

        def forward(self, **inputs: Any) -> Any:
            return super().forward(**inputs | {"price": inputs["price"].float()})

    task = fw.Task(seeded(Odd), FIELDS, **data)
    assert fingerprint(task) == fingerprint(task)


def test_a_folder_that_another_process_uses_is_refused_until_it_ends(task: fw.Task, tmp_path: Path) -> None:
    (tmp_path / "learning").mkdir()
    words = [sys.executable, "-c", HOLDS, str(tmp_path / "lock")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        assert f"Another search is running in {tmp_path}; wait for it" in refused(tmp_path, task)
        other.kill()
    with opened(tmp_path, task, "") as folder:  # whatever ended it, its lock ended with it
        assert folder.facts()["looks"] == 0


def test_a_folder_in_use_here_is_refused_too(task: fw.Task, tmp_path: Path) -> None:
    with opened(tmp_path, task, ""):
        assert "Another search is running" in refused(tmp_path, task)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "cannot be read"),
        ('{"format": 1, "task"', "cannot be read"),
        ("[1, 2]", "holds no search but a list"),
        ('{"format": 2}', "has format 2, and this version reads 1"),
        ('{"task": "x"}', "has format None"),
        ("\udcff", "cannot be read"),
        ("[" * 100_000, "cannot be read"),
    ],
)
def test_damaged_facts_are_refused_and_left_as_they_are(task: fw.Task, tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "run.json"
    file.write_bytes(text.encode(errors="surrogateescape"))
    said = refused(tmp_path, task)
    assert words in said
    assert str(file) in said
    assert file.read_bytes() == text.encode(errors="surrogateescape")


def test_trials_of_nobody_known_are_not_taken_for_ones_own(task: fw.Task, tmp_path: Path) -> None:
    (tmp_path / "trials.db").write_bytes(b"of somebody")
    assert f"{tmp_path} holds trials but no run.json" in refused(tmp_path, task)
    assert (tmp_path / "trials.db").read_bytes() == b"of somebody"


def test_a_file_in_the_place_of_the_folder_is_refused(task: fw.Task, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "cannot be used: " in refused(tmp_path / "file", task)
    assert "cannot be used: " in refused(tmp_path / "file" / "run", task)


def test_a_folder_without_a_search_is_said_to_hold_none(tmp_path: Path) -> None:
    with pytest.raises(fw.InputError, match=r"holds no search: there is no run\.json"):
        RunFolder(tmp_path / "nowhere").facts()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few pages."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a small disk could not be mounted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_is_said_and_what_was_noted_stays(task: fw.Task, small_disk: Path) -> None:
    with opened(small_disk / "run", task, "") as folder:
        folder.note(seconds=1.0)
        (small_disk / "filler").write_bytes(b"x" * 10_000)
        with pytest.raises(fw.InputError) as error:
            folder.note(long="x" * 100_000)
        for words in ("run.json cannot be written", "No space left", "make room, or name another folder"):
            assert words in str(error.value)
        assert folder.facts()["seconds"] == 1.0
        assert not list(folder.path.glob(".run.json*"))


def test_a_read_only_disk_is_said(task: fw.Task, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert "cannot be used: Read-only file system; name another" in refused(small_disk / "run", task)


def test_codings_are_kept_by_their_ratio_to_the_last_digit(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    plain = {"fine": False, "bands": [["item", 0, 400, "one 4-bit code"]]}
    folder.note_coding(10 / 3, plain)
    assert folder.coding(10 / 3) == plain
    assert folder.coding(3.3333) is None
    next((tmp_path / "codings").iterdir()).write_text('{"fine": ')
    with pytest.raises(fw.InputError, match="cannot be read"):
        folder.coding(10 / 3)


def test_facts_are_whole_whenever_they_are_read(task: fw.Task, tmp_path: Path) -> None:
    """Another process that looks in while they are written sees the old ones or the new ones."""
    reads = "import json, sys\nfor _ in range(3000): json.load(open(sys.argv[1]))"
    words = [sys.executable, "-c", reads, str(tmp_path / "run.json")]
    with opened(tmp_path, task, "") as folder, subprocess.Popen(words) as reader:
        number = 0
        while reader.poll() is None and number < 3_000:
            folder.note(seconds=number, long="x" * (number % 50) * 1_000)
            number += 1
        assert reader.wait() == 0
    assert json.loads((tmp_path / "run.json").read_text())["task"] == fingerprint(task)

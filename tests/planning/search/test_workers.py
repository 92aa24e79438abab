"""Processes beside a search: they work, they end with it, and what cannot be sent to them is said."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from flyweight.errors import InputError
from flyweight.planning.search.workers import default_workers, working_beside

PARENT = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from planning_workers import wait_noted
from flyweight.planning.search.workers import working_beside
if __name__ == "__main__":
    with working_beside(wait_noted, (Path({folder!r}),), 2):
        print("begun", flush=True)
        time.sleep(60)
"""


def note(folder: Path, values: torch.Tensor) -> None:
    """Write what was given and who works."""
    (folder / f"{os.getpid()}").write_text(f"{values.tolist()} {torch.get_num_threads()}")
    time.sleep(60)


def waited(folder: Path, count: int, seconds: float = 60.0) -> list[Path]:
    end = time.monotonic() + seconds
    while len(found := list(folder.iterdir())) < count and time.monotonic() < end:
        time.sleep(0.1)
    return found


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits to be asked for is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_workers_get_what_they_are_given_and_end_with_the_block(tmp_path: Path) -> None:
    values = torch.arange(3.0)
    array = values.numpy()  # looks at the tensor's own memory, which must not move
    with working_beside(note, (tmp_path, values), 2):
        found = waited(tmp_path, 2)
        assert {path.read_text().partition("]")[0] for path in found} == {"[0.0, 1.0, 2.0"}
    assert not any(alive(int(path.name)) for path in found)
    values += 1
    assert array.tolist() == [1.0, 2.0, 3.0]


def test_no_workers_begin_no_process(tmp_path: Path) -> None:
    with working_beside(note, (tmp_path, lambda: None), 0):
        assert not list(tmp_path.iterdir())


def test_what_cannot_be_sent_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot be sent to another process.*workers=1"), working_beside(
        note, (tmp_path, lambda: None), 1
    ):
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="a parent's death is told by Linux alone")
def test_workers_die_with_their_parent(tmp_path: Path) -> None:
    noted = tmp_path / "noted"
    noted.mkdir()
    (tmp_path / "planning_workers.py").write_text(
        "import os, time\nfrom pathlib import Path\n\n\n"
        "def wait_noted(folder):\n    (folder / str(os.getpid())).touch()\n    time.sleep(60)\n"
    )
    script = tmp_path / "parent.py"
    script.write_text(PARENT.format(tests=str(tmp_path), folder=str(noted)))
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE) as parent:
        workers = [int(path.name) for path in waited(noted, 2)]
        assert len(workers) == 2
        parent.send_signal(signal.SIGKILL)
    end = time.monotonic() + 10
    while any(map(alive, workers)) and time.monotonic() < end:
        time.sleep(0.1)
    assert not any(map(alive, workers))


def test_few_cores_have_one_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, workers in ((1, 1), (2, 1), (8, 2), (64, 4)):
        monkeypatch.setattr("flyweight.planning.search.workers.allowed_cores", lambda cores=cores: cores)
        assert default_workers() == workers
        assert default_workers(lambda: None) == 1  # what cannot be sent is searched alone

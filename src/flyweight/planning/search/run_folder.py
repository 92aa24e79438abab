"""The folder of a search: what it is of, its trials in a database, and trainings under way. Whole after any kill."""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from flyweight.distillation.checksum import bytes_of
from flyweight.errors import InputError
from flyweight.planning.budget import Budget
from flyweight.task.task import Split, Task

FORMAT = 1
#: Files on their way to their names; what else lies in a folder may be somebody's.
HALF_WRITTEN = (".run.json.*", ".sensitivity.json.*", ".damage-*.npz", "codings/.*.json.*", "learning/.*.pt-*")
#: How the folders begin that trials are exported to, for as long as they are measured.
EXPORTS = ".trial-"
#: Rows of a split that, beside how many there are, tell one task's data from another's.
_ROWS = 256


@dataclass(frozen=True)
class RunFolder:
    """Where a search keeps what it has found.

    Args:
        path: the folder.
        kept: whether it is there for later; not where it goes when the search is over.
    """

    path: Path
    kept: bool = True

    @property
    def database(self) -> Path:
        """The trials, in SQLite."""
        return self.path / "trials.db"

    def learning(self, key: str) -> str:
        """Return the file that a training goes on from after a kill."""
        return str(self.path / "learning" / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.pt")

    def coding(self, ratio: float) -> dict[str, Any] | None:
        """Return how tables were coded at a ratio, as the coder wrote it down; None where they were not.

        Raises:
            InputError: the file is damaged.
        """
        file = self._coding(ratio)
        return self._read(file) if file.exists() else None

    def codings(self) -> dict[float, dict[str, Any]]:
        """Return how tables were coded, by ratio."""
        files = (self.path / "codings").glob("[!.]*.json")
        return {float(file.stem): self._read(file) for file in files}

    def note_coding(self, ratio: float, plain: dict[str, Any]) -> dict[str, Any]:
        """Write down how tables are coded at a ratio, and return what holds: what was written down first."""
        file = self._coding(ratio)
        with self._one_at_a_time("notes"):
            if file.exists():
                return self._read(file)
            try:
                file.parent.mkdir(exist_ok=True)
            except OSError as error:
                raise InputError(f"{file.parent} cannot be made: {error.strerror}; name another folder.") from error
            write_whole(file, json.dumps(plain, sort_keys=True) + "\n")
        return plain

    def learned(self, keys: Iterable[str]) -> dict[str, bytes]:
        """Return the files of trainings that are there, by name."""
        files = (Path(self.learning(key)) for key in keys)
        return {file.name: file.read_bytes() for file in files if file.exists()}

    def note_learned(self, files: Mapping[str, bytes]) -> None:
        """Keep the files of trainings that were made elsewhere; whole or not at all.

        Raises:
            InputError: one cannot be written; says why.
        """
        for name, content in files.items():
            write_whole(self.path / "learning" / name, content)

    def _coding(self, ratio: float) -> Path:
        return self.path / "codings" / f"{float(ratio)!r}.json"

    def facts(self) -> dict[str, Any]:
        """Return what the search is of.

        Raises:
            InputError: the folder holds no search, or a damaged one.
        """
        file = self.path / "run.json"
        if not file.exists():
            raise InputError(f"{self.path} holds no search: there is no run.json in it.")
        found = self._read(file)
        if found.get("format") != FORMAT:
            seen = found.get("format")
            raise InputError(f"{file} has format {seen!r}, and this version reads {FORMAT}; search anew elsewhere.")
        return found

    def _read(self, file: Path) -> dict[str, Any]:
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"{file} cannot be read ({error}); remove the folder to search anew.") from error
        if not isinstance(found, dict):
            raise InputError(f"{file} holds no search but a {type(found).__name__}; remove the folder to search anew.")
        return found

    def note_budget(self, budget: Budget) -> None:
        """Write down what the search is for."""
        self.note(budget={name: value for name, value in asdict(budget).items() if value is not None})

    def budget(self) -> Budget | None:
        """Return what the search was for last; None where it was never begun."""
        known = self.facts().get("budget")
        return Budget(**known) if isinstance(known, dict) else None

    def note(self, **facts: Any) -> None:
        """Write down more of what is known; whole or not at all, and one process after the other."""
        with self._one_at_a_time("notes"):
            known = self.facts() if (self.path / "run.json").exists() else {"format": FORMAT}
            write_whole(self.path / "run.json", json.dumps({**known, **facts}, indent=2, sort_keys=True) + "\n")

    @contextmanager
    def timing(self) -> Iterator[None]:
        """Let one process at a time look at the clock: two models timed at once would slow each other."""
        with self._one_at_a_time("timing"):
            yield

    @contextmanager
    def _one_at_a_time(self, what: str) -> Iterator[None]:
        try:
            lock = os.open(self.path / f"{what}.lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise InputError(
                f"The folder of the search, {self.path}, cannot be written: {error.strerror}; make room, or name "
                "another."
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


@contextmanager
def opened(path: Path, task: Task, source: str) -> Iterator[RunFolder]:
    """Make or take up the folder of a search, and keep others out of it meanwhile.

    Args:
        source: how the command line names the task; empty where it has no name.

    Raises:
        InputError: the folder is of another task, in use, or cannot be written.
    """
    own = fingerprint(task)
    folder = RunFolder(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        (path / "learning").mkdir(exist_ok=True)
        lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        why = f"The folder of the search, {path}, cannot be used: {error.strerror}; name another."
        raise InputError(why) from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"Another search is running in {path}; wait for it, or name another folder.") from None
        except OSError as error:
            why = f"The folder of the search, {path}, cannot be locked: {error.strerror}; name one on another disk."
            raise InputError(why) from error
        if folder.database.exists() and not (path / "run.json").exists():
            raise InputError(
                f"{path} holds trials but no run.json that says of which task; name another folder, or remove it."
            )
        if (path / "run.json").exists():
            known = folder.facts().get("task")
            if known != own:
                raise InputError(
                    f"{path} is the search of another task (another model, other weights or data: {known}, here {own});"
                    " name another folder, or remove it."
                )
        else:
            folder.note(task=own, name=task.name, looks=0)
        if source:
            folder.note(source=source)
        _clear_half_written(path)
        yield folder
    finally:
        os.close(lock)


def _clear_half_written(path: Path) -> None:
    """Remove what a kill left beside the files that it was about to become; nobody else writes here now."""
    for pattern in HALF_WRITTEN:
        for file in path.glob(pattern):
            file.unlink(missing_ok=True)
    for folder in path.glob(f"{EXPORTS}*"):
        shutil.rmtree(folder, ignore_errors=True)


def fingerprint(task: Task) -> str:
    """Return what tells a task from others: its weights, its inputs and metric, and the rows that it is judged on.

    Rows of the train split have no part in it: they may come in another order, or augmented, in each process.
    """
    digest = hashlib.sha256()
    digest.update(repr([task.spec.name, task.group, task.output, sorted(task.inputs.items())]).encode())
    for name, tensor in sorted(task.model.state_dict().items()):
        digest.update(name.encode())
        if isinstance(tensor, torch.Tensor):
            digest.update(bytes_of(tensor))
    splits: tuple[Split, ...] = ("validation", "test")
    for split in splits:
        rows = 0
        for inputs, target, _ in task.batches(split):
            for value in (*(inputs[name] for name in sorted(inputs)), target):
                digest.update(bytes_of(value[: max(_ROWS - rows, 0)]))
            rows += len(target)
        digest.update(f"{split} {rows}".encode())
    return digest.hexdigest()[:16]


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all.

    Raises:
        InputError: it cannot be written; says why.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(beside, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise InputError(f"{path} cannot be written: {error.strerror}; make room, or name another folder.") from error

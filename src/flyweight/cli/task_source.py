"""A task named on the command line: `path/to/file.py:function`, or a name of the zoo."""

import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from flyweight.cli.display import ZooProgress
from flyweight.errors import FlyweightError, InputError

if TYPE_CHECKING:
    from flyweight.task.task import Task


def load_task(source: str, progress: ZooProgress) -> "Task":
    """Return the task that a source names.

    Raises:
        InputError: there is no such file, function or name, or it returns no Task.
    """
    from flyweight.task.task import Task

    if ":" not in source and not source.endswith(".py"):
        return _from_zoo(source, progress)
    path, _, name = source.rpartition(":")
    if not path or not name:
        raise InputError(f"Task {source!r} lacks a function; write path/to/file.py:function.")
    with _own_errors(Path(path)):
        task = _function(Path(path), name)()
    if not isinstance(task, Task):
        raise InputError(f"{source} returned {type(task).__name__}; it must return a flyweight.Task.")
    return task


@contextmanager
def _own_errors(path: Path) -> Iterator[None]:
    """Turn whatever the user's code raises into one line that names its file and line."""
    try:
        yield
    except FlyweightError:
        raise
    except Exception as error:  # it is the user's code: anything may come
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if Path(frame.filename).resolve() == path.resolve()]
        line = error.lineno if isinstance(error, SyntaxError) else (lines[-1] if lines else None)
        where = f"{path}, line {line}" if line else str(path)
        raise InputError(f"{where}: {type(error).__name__}: {error}") from error


def _from_zoo(name: str, progress: ZooProgress) -> "Task":
    from flyweight.zoo.tasks import ZOO

    if name not in ZOO:
        near = get_close_matches(name, ZOO, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise InputError(f"Unknown task {name!r}.{hint} Known: {', '.join(ZOO)}; or write path/to/file.py:function.")
    return ZOO[name](progress)


def _function(path: Path, name: str) -> "Callable[[], Task]":
    if not path.is_file():
        raise InputError(f"There is no file {path}; write path/to/file.py:function.")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path} cannot be read as Python; its name must end in .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)
    sys.path.insert(0, str(path.parent.resolve()))
    spec.loader.exec_module(module)
    found = getattr(module, name, None)
    if not callable(found):
        functions = sorted(key for key, value in vars(module).items() if callable(value) and not key.startswith("_"))
        near = get_close_matches(name, functions, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise InputError(f"{path} has no function {name!r}.{hint}")
    return found  # type: ignore[no-any-return]

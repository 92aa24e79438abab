"""The option `--json`: everything that a verb found, to a file or to the terminal."""

import errno
import json
import os
import sys
from pathlib import Path
from typing import Any

from flyweight.errors import InputError

#: Instead of a file's name, the terminal.
TERMINAL = "-"


def check_writable(path: str) -> None:
    """Refuse a file that cannot be written, before minutes of work.

    Raises:
        InputError: says why not.
    """
    if path == TERMINAL:
        return
    file = Path(path).absolute()
    if file.is_dir():
        why = errno.EISDIR
    elif not file.parent.is_dir():
        why = errno.ENOENT
    elif not os.access(file if file.exists() else file.parent, os.W_OK):
        why = errno.EACCES
    else:
        return
    raise InputError(f"The JSON cannot be written to {path}: {os.strerror(why)}; change --json.")


def write_json(path: str, content: dict[str, Any]) -> None:
    """Write what was found.

    Raises:
        InputError: the file cannot be written; says why not.
    """
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    if path == TERMINAL:
        sys.stdout.write(text)
        return
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"The JSON cannot be written to {path}: {error.strerror}; change --json.") from error

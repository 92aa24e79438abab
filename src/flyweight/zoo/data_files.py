"""Data files that no package holds: found in one folder, which the user may choose."""

import os
from pathlib import Path

from flyweight.errors import InputError

_BESIDE = Path(__file__).resolve().parents[3] / "../shared/data"


def find_data(name: str) -> Path:
    """Return the path of a data file: in the folder `FLYWEIGHT_DATA`, or in `../shared/data` beside the repository.

    Raises:
        InputError: it is not there; says where it was looked for and how to name another folder.
    """
    chosen = os.environ.get("FLYWEIGHT_DATA")
    folder = Path(chosen or _BESIDE).expanduser()
    path = folder / name
    if not path.is_file():
        why = "FLYWEIGHT_DATA" if chosen else "../shared/data beside the repository"
        raise InputError(
            f"The data file {name} is not in {folder.resolve()} ({why}); "
            "put it there or set FLYWEIGHT_DATA to the folder that holds it."
        )
    return path

"""Data files that no package holds: found in one folder, which the user may choose."""

import os
from pathlib import Path

from flyweight.errors import InputError

_BESIDE = Path(__file__).resolve().parents[3] / "../shared/data"


def find_data(name: str) -> Path:
    """Return the path of a data file: in the folder `FLYWEIGHT_DATA`, or the default beside the checkout.

    Raises:
        InputError: it is not there; says where it was looked for and how to name another folder.
    """
    chosen = os.environ.get("FLYWEIGHT_DATA")
    folder = Path(chosen or _BESIDE).expanduser()
    path = folder / name
    if not path.is_file():
        where = folder.resolve() if chosen else f"which is not set, nor in {folder.resolve()}"
        raise InputError(
            f"The data file {name} is not in the folder FLYWEIGHT_DATA, {where}; "
            "put it there, or set FLYWEIGHT_DATA to the folder that holds it."
        )
    return path

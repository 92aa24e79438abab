"""What the verbs of `parallel` look at before minutes of work: where the result goes, and what torchrun says."""

import os
from pathlib import Path

from flyweight.errors import InputError


def check_place(path: Path) -> None:
    """Check that a file can be written, which otherwise would be found out with the work done.

    Raises:
        InputError: its folder is not there, or it is a folder itself.
    """
    if not path.parent.is_dir():
        raise InputError(f"{path} cannot be written: there is no folder {path.parent}; change --out.")
    if path.is_dir():
        raise InputError(f"{path} cannot be written: it is a folder; change --out.")


def rank_of_torchrun() -> tuple[int, int]:
    """Return the number of this process, and how many there are.

    Raises:
        InputError: RANK is set and not what torchrun sets beside it, as some schedulers do.
    """
    names = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    seen = {name: os.environ.get(name, "") for name in names}
    if all(seen.values()) and all(seen[name].isdecimal() for name in ("RANK", "WORLD_SIZE", "MASTER_PORT")):
        return int(seen["RANK"]), int(seen["WORLD_SIZE"])
    said = ", ".join(f"{name}={value}" if value else f"no {name}" for name, value in seen.items())
    raise InputError(
        f"RANK is set, as torchrun does, and with it {', '.join(names[1:])} are due; seen {said}. Begin it by torchrun,"
        " or unset RANK (env -u RANK flyweight ...) to use processes of this machine."
    )

"""A folder that is whole or absent: written beside its place, flushed to the disk, renamed into it."""

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from flyweight.errors import InputError

#: A full disk, a used-up quota, and a file system's largest file.
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def check_writable(target: Path) -> None:
    """Check that a folder may be made at a path.

    Raises:
        InputError: the folder that is to hold it is none, or is not writable.
    """
    folder = next(one for one in target.absolute().parents if one.exists())
    if not folder.is_dir():
        raise InputError(f"{target} cannot be written: {folder} is no folder; choose another path.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"{target} cannot be written: {folder} is not writable; choose another path.")


@contextmanager
def part_beside(target: Path) -> Iterator[Path]:
    """Make a folder beside the target that is gone afterwards, whatever happens, unless it was renamed."""
    part = target.parent / f".{target.name}.{secrets.token_hex(4)}.part"
    part.mkdir()
    try:
        yield part
    finally:
        shutil.rmtree(part, ignore_errors=True)


def put_in_place(part: Path, target: Path, overwrite: bool) -> None:
    """Rename a finished folder to its place; an old one is set aside first, and removed only then."""
    if not overwrite or not target.exists():
        part.rename(target)
        return
    aside = part.with_suffix(".old")
    try:
        target.rename(aside)
        part.rename(target)
    except BaseException:
        if aside.exists() and not target.exists():
            aside.rename(target)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def flush_folder(folder: Path) -> None:
    """Make renames in a folder last; file systems that cannot say so."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def disk_errors_in_words(target: Path, needed: int, what: str = "bundle") -> Iterator[None]:
    """Turn what the disk says while a folder is written into one line.

    Args:
        needed: bytes that it takes.
        what: the folder is, in a word.

    Raises:
        InputError: the disk is full or not writable, or the folder came into being meanwhile.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise InputError(
                f"The disk is full: the {what} {target} needs {needed:,} bytes; nothing was left behind. "
                "Free space or choose another path."
            ) from error
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY) and target.exists():
            raise InputError(f"{target} came into being meanwhile; choose another path, or overwrite it.") from error
        raise InputError(f"{target} cannot be written ({error.strerror}); choose another path.") from error

"""The files of a bundle on disk: which there may be, how large, and what they hash to. Links are never followed."""

import hashlib
import os
import stat
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import BinaryIO

from flyweight.bundle.entry import File
from flyweight.bundle.manifest import DATA, MANIFEST, MODEL, REPORT, SAMPLES, TIMING, VOCABULARIES
from flyweight.bundle.strict_json import MAX_BYTES
from flyweight.errors import BundleError

#: Every file that a bundle may hold and the most bytes that are read of it.
LIMITS: dict[str, int] = {
    MODEL: 2**30,
    DATA: 2**40,
    SAMPLES: MAX_BYTES,
    MANIFEST: MAX_BYTES,
    TIMING: 2**22,
    REPORT: 2**28,
    VOCABULARIES: 2**40,
}
OPTIONAL = frozenset({DATA, VOCABULARIES})
_CHUNK = 2**20


def check_folder(path: Path) -> None:
    """Check that `path` is a folder.

    Raises:
        BundleError: it is missing or no folder; where an interrupted write set an older bundle aside, says so.
    """
    if path.is_dir():
        return
    aside = sorted(path.parent.glob(f".{path.name}.*.old")) if path.parent.is_dir() else []
    if aside and not path.exists():
        raise BundleError(
            f"There is no bundle at {path}; an interrupted write left the old one at {aside[-1]}: rename it back."
        )
    if not path.exists():
        raise BundleError(f"There is no bundle at {path}: no such folder. Check the path.")
    raise BundleError(f"A bundle is a folder with {MANIFEST}; {path} is a file. Check the path.")


def list_sizes(
    path: Path, limits: Mapping[str, int] = LIMITS, optional: Collection[str] = OPTIONAL, *, beside: str | None = None
) -> dict[str, int]:
    """Return the bytes of each file of a bundle's folder, having read none.

    Args:
        limits: the files that there may be, and the most bytes of each.
        optional: those that need not be there.
        beside: what folders, that are not looked into, are called at the beginning; None allows none.

    Raises:
        BundleError: a file is missing, unknown, too large, or no regular file.
    """
    sizes = {}
    with os.scandir(path) as entries:
        for entry in entries:
            if beside is not None and entry.name.startswith(beside) and entry.is_dir(follow_symlinks=False):
                continue
            if entry.name not in limits:
                raise BundleError(f"{path} holds {entry.name[:80]!r}, which is not part of a bundle; remove it.")
            if not entry.is_file(follow_symlinks=False):
                raise BundleError(f"{path}/{entry.name} is a link or no plain file; copy the bundle with its files.")
            sizes[entry.name] = entry.stat(follow_symlinks=False).st_size
            if sizes[entry.name] > limits[entry.name]:
                raise _oversized(path / entry.name, sizes[entry.name], limits[entry.name])
    lost = sorted(limits.keys() - set(optional) - sizes.keys())
    if lost:
        raise BundleError(f"{path} lacks {lost[0]}: the bundle is incomplete, get it again or check the path.")
    return sizes


def read_bytes(file: Path, limit: int | None = None) -> bytes:
    """Return a file's content; links, pipes and oversized files are refused unread.

    Args:
        limit: the most bytes; None takes what `LIMITS` says of its name.

    Raises:
        BundleError: the file is missing, no plain file, or larger than its limit.
    """
    most = LIMITS[file.name] if limit is None else limit
    with opened(file) as stream:
        data = stream.read(most + 1)
    if len(data) > most:
        raise _oversized(file, len(data), most)
    return data


def check_file(file: Path, due: File) -> None:
    """Check a file's size, then its hash, reading it in pieces.

    Raises:
        BundleError: size or hash are not what the bundle says.
    """
    with opened(file) as stream:
        check_content(file, due, os.fstat(stream.fileno()).st_size, "")
        digest = hashlib.sha256()
        while piece := stream.read(_CHUNK):
            digest.update(piece)
    check_content(file, due, due.bytes, digest.hexdigest())


def check_content(file: Path, due: File, size: int, sha256: str) -> None:
    """Compare a size and, where not empty, a hash with what is due.

    Raises:
        BundleError: they differ.
    """
    if size != due.bytes:
        raise BundleError(
            f"{file} has {size:,} bytes, {due.bytes:,} are due: it was cut or altered. "
            "Get the bundle again from its source."
        )
    if sha256 and sha256 != due.sha256:
        raise BundleError(
            f"{file} hashes to {sha256[:12]}..., {due.sha256[:12]}... is due: it was altered or damaged. "
            "Get the bundle again from its source."
        )


def opened(file: Path) -> BinaryIO:
    """Open a plain file without following a link or waiting on a pipe.

    Raises:
        BundleError: it is missing, cannot be read or is no plain file.
    """
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(file, flags)
    except OSError as error:
        raise BundleError(f"{file} cannot be read ({error.strerror}); get the bundle again.") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise BundleError(f"{file} is no plain file; copy the bundle with its files.")
    return os.fdopen(descriptor, "rb")


def _oversized(file: Path, size: int, limit: int) -> BundleError:
    return BundleError(f"{file} has {size:,} bytes, at most {limit:,} are read. Get the bundle from its source.")

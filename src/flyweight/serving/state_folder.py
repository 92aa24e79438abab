"""A folder that keeps what a service serves, so that a restart begins where it ended."""

import contextlib
import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from flyweight.errors import FlyweightError, InputError
from flyweight.serving.rollout import Rollout

logger = logging.getLogger("flyweight.serving")
FORMAT = 1
FILE, LOCK = "rollouts.json", "lock"
#: A file that someone wrote by hand has the right checksum and may still hold a path that is a number.
_ROLLOUTS = TypeAdapter(list[Rollout])


class StateFolder:
    """The folder, held by one service at a time.

    Args:
        folder: made where it is not there.

    Raises:
        InputError: it cannot be written, or another service holds it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # The lock goes with the process, however that ends.
            self._lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise InputError(f"--state {folder} cannot be used: {error.strerror}.") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._lock)
            raise InputError(f"--state {folder} is used by another service; give each its own folder.") from error
        except OSError as error:
            os.close(self._lock)
            raise InputError(f"--state {folder} cannot be locked: {error.strerror}; put it on another disk.") from error

    def read(self) -> dict[str, Rollout]:
        """Return what was kept, by model; nothing, with the reason logged, where the file is damaged."""
        file = self.folder / FILE
        try:
            return rollouts_of(file.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            logger.error(
                "%s is damaged (%s); the service begins with the bundles of its command line. It is kept as %s.",
                file,
                error,
                _put_aside(file),
            )
            return {}

    def write(self, rollouts: Mapping[str, Rollout]) -> None:
        """Keep what is served: whole on the disk when this returns, or as it was before.

        Raises:
            FlyweightError: the disk is full or not to be written.
        """
        part = self.folder / f".{FILE}.part"
        try:
            with part.open("wb") as stream:
                stream.write(bytes_of(rollouts))
                stream.flush()
                os.fsync(stream.fileno())
            part.replace(self.folder / FILE)
            descriptor = os.open(self.folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            with contextlib.suppress(OSError):  # a disk that can only be read refuses that too
                part.unlink()
            raise FlyweightError(f"The state cannot be kept in {self.folder}: {error.strerror}.") from error

    def close(self) -> None:
        """Let another service have it."""
        os.close(self._lock)


def bytes_of(rollouts: Mapping[str, Rollout]) -> bytes:
    """Return rollouts as JSON with a checksum."""
    listed = _listed(rollouts[model] for model in sorted(rollouts))
    return json.dumps({"format": FORMAT, "sha256": _checksum(listed), "rollouts": listed}, indent=1).encode() + b"\n"


def rollouts_of(data: bytes) -> dict[str, Rollout]:
    """Return the rollouts that `bytes_of` wrote.

    Raises:
        ValueError, TypeError, KeyError, RecursionError: they are damaged, or of another format.
    """
    found = json.loads(data)
    if found["format"] != FORMAT:
        raise ValueError(f"it has format {found['format']!r}, and {FORMAT} is due")
    if found["sha256"] != _checksum(found["rollouts"]):
        raise ValueError("its checksum is not that of its content")
    try:
        rollouts = _ROLLOUTS.validate_python(found["rollouts"])
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False)[0]
        raise ValueError(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}") from None
    if json.loads(json.dumps(_listed(rollouts))) != found["rollouts"]:
        raise ValueError("it holds what this version of Flyweight does not know")
    return {rollout.model: rollout for rollout in rollouts}


def _listed(rollouts: Iterable[Rollout]) -> list[dict[str, Any]]:
    return [asdict(rollout) for rollout in rollouts]


def _checksum(listed: Any) -> str:
    return hashlib.sha256(json.dumps(listed, sort_keys=True).encode()).hexdigest()


def _put_aside(file: Path) -> str:
    aside = file.with_suffix(".damaged")
    try:
        file.replace(aside)
    except OSError as error:
        return f"{file} still: {error.strerror}"
    return str(aside)

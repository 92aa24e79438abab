"""A training over processes kept in its folder as it goes, each rank its own part, to go on from after a stop."""

import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from flyweight.distillation.checkpoint import write_checkpoint
from flyweight.errors import EngineError, InputError

#: Seconds between two times that a training is kept.
SECONDS = 60.0
MARK = "resume.json"
_OTHER = -1


class Kept:
    """Where a training is kept. Every method is called by all ranks together.

    What ranks wrote counts only once all have written: rank 0 then names it in one file.

    Args:
        folder: each host's own, or one that all share.
        identity: what tells this training from others.
        device: where ranks exchange what they know.
    """

    def __init__(self, folder: Path, identity: str, device: torch.device) -> None:
        self.folder, self.identity, self.device = folder, identity, device
        self.rank = dist.get_rank()
        self._last = time.monotonic()

    def found(self) -> dict[str, Any] | None:
        """Return this rank's part of what was kept, or None where a rank has none.

        Raises:
            InputError: the folder is of another training.
        """
        number = self._told_by_first(self._marked())
        if number == _OTHER:
            raise InputError(
                f"{self.folder} keeps another training (other settings, plan or start); remove {MARK} there to begin "
                "anew, or give this training a folder of its own."
            )
        there = torch.tensor(int(number > 0 and self._path(number).exists()), device=self.device)
        dist.all_reduce(there, dist.ReduceOp.MIN)
        return torch.load(self._path(number), weights_only=True) if int(there.item()) else None

    def due(self) -> bool:
        """Return whether rank 0 says that it is time."""
        return bool(self._told_by_first(int(time.monotonic() - self._last >= SECONDS)))

    def keep(self, number: int, contents: dict[str, Any]) -> None:
        """Write this rank's part, once `number` batches are behind.

        Raises:
            EngineError: it cannot be written; says why. What was kept before is still there.
        """
        before = self._told_by_first(self._marked())
        try:
            write_checkpoint(self._path(number), contents)
        except (OSError, RuntimeError) as error:  # PyTorch makes a RuntimeError of a full disk
            raise EngineError(
                f"The training cannot be kept in {self.folder} ({error}); make room there or give another folder. "
                "What was kept before is still there to go on from."
            ) from error
        dist.barrier()
        if self.rank == 0:
            part = self.folder / f"{MARK}.part"
            part.write_text(json.dumps({"number": number, "identity": self.identity}) + "\n")
            os.replace(part, self.folder / MARK)
        dist.barrier()
        if before not in (0, number):
            self._path(before).unlink(missing_ok=True)
        self._last = time.monotonic()

    def clear(self) -> None:
        """Remove what was kept: the training is over."""
        number = self._told_by_first(self._marked())
        if self.rank == 0:
            (self.folder / MARK).unlink(missing_ok=True)
        self._path(number).unlink(missing_ok=True)

    def _marked(self) -> int:
        """Return how many batches were behind when the training was last kept; 0 without any."""
        try:
            told = json.loads((self.folder / MARK).read_text())
            return int(told["number"]) if told["identity"] == self.identity else _OTHER
        except FileNotFoundError:
            return 0
        except (ValueError, KeyError, TypeError):
            return _OTHER

    def _told_by_first(self, value: int) -> int:
        told = torch.tensor(value, device=self.device)
        dist.broadcast(told, src=0)
        return int(told.item())

    def _path(self, number: int) -> Path:
        return self.folder / f"resume-{self.rank:05d}-{number}.pt"


def identity_of(*parts: object) -> str:
    """Return what tells a training from others, of values whose words say all about them."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()

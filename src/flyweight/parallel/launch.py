"""Processes of one machine that work together: begun, watched, and ended with the first that fails."""

import os
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException, spawn

from flyweight.cost.hardware import allowed_cores
from flyweight.errors import EngineError, InputError

#: Until a rank that waits for another gives up, where that one is still alive but silent.
PATIENCE = timedelta(seconds=60)
#: Processes for each core of this machine at most.
MOST = 8
#: What stands before the words of a rank that was given something wrong.
REFUSED = "refused: "
#: What a rank does: its number, how many there are, and the folder where it leaves what it made.
Work = Callable[[int, int, Path], None]


class RankLostError(EngineError):
    """A rank was killed; what it did, it would have done to the end."""


def run_ranks(work: Work, ranks: int) -> dict[str, Any]:
    """Run a function in so many processes, which find each other over loopback, and return what they left.

    When one fails, or is killed, the others are ended at once. Nothing of theirs stays: no process, port or file.

    Args:
        work: can be pickled; what it saves in the folder (`torch.save`, name.pt: tensors and plain values) is returned
            by name.

    Raises:
        EngineError: one failed; with its traceback.
        RankLostError: one was killed.
        InputError: there are far more than cores; or what one of them refused, in its words.
    """
    cores = allowed_cores()
    if not 1 <= ranks <= MOST * cores:
        raise InputError(
            f"{ranks} processes were asked for; this machine has {cores} cores, and takes from 1 to {MOST * cores}. "
            "Each holds PyTorch and a model; for more machines, use torchrun."
        )
    with tempfile.TemporaryDirectory(prefix="flyweight-ranks-") as folder:
        try:
            _run(work, ranks, folder)
        except ProcessRaisedException as error:
            rank, said = _first_failure(Path(folder)) or (error.error_index, error.msg)
            if said.startswith(REFUSED):  # the user's to mend, and no fault of a rank
                raise InputError(said.removeprefix(REFUSED)) from None
            raise EngineError(f"Rank {rank} of {ranks} failed; the others were stopped.\n{said.strip()}") from None
        except ProcessExitedException as error:
            how = f"by signal {error.signal_name}" if error.signal_name else f"with exit code {error.exit_code}"
            raise RankLostError(
                f"Rank {error.error_index} of {ranks} ended {how}; the others were stopped. Killed by the system, it "
                "was probably out of memory."
            ) from error
        return {file.stem: torch.load(file, weights_only=True) for file in sorted(Path(folder).glob("*.pt"))}


def _run(work: Work, ranks: int, folder: str) -> None:
    """Begin the ranks and wait for them; interrupted, end them first."""
    begun = spawn(_rank, (work, ranks, folder), nprocs=ranks, join=False)  # type: ignore[no-untyped-call]
    try:
        while not begun.join():
            pass
    except ProcessRaisedException:
        # Those that waited for one that was killed fail too, and may be seen first. `join` ends the rest with SIGTERM.
        for rank, process in enumerate(begun.processes):
            if process.exitcode == -signal.SIGKILL:
                raise ProcessExitedException(
                    "killed", error_index=rank, error_pid=process.pid, exit_code=-9, signal_name="SIGKILL"
                ) from None
        raise
    finally:
        for process in begun.processes:
            if process.is_alive():
                process.kill()
            process.join()
        for file in begun.error_files:  # that of a rank which failed stays otherwise
            Path(file).unlink(missing_ok=True)


def _rank(rank: int, work: Work, ranks: int, folder: str) -> None:
    """Be one process: a thread of its own, and nothing heard from outside the machine."""
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    with joined(rank, ranks, f"file://{folder}/.meeting", gpus=False):
        try:
            work(rank, ranks, Path(folder))
        except InputError as error:
            _note_failure(folder, rank, f"{REFUSED}{error}")
            raise
        except Exception:  # told before the group is left, which makes the others fail
            _note_failure(folder, rank, traceback.format_exc())
            raise


def _note_failure(folder: str, rank: int, said: str) -> None:
    Path(folder, f"{time.monotonic_ns()}-{rank}.failed").write_text(said)


def _first_failure(folder: Path) -> tuple[int, str] | None:
    """Return the rank that failed first, and its traceback: what fails later fails because that one is gone."""
    failed = sorted(folder.glob("*.failed"), key=lambda file: int(file.stem.split("-")[0]))
    return (int(failed[0].stem.split("-")[1]), failed[0].read_text()) if failed else None


@contextmanager
def joined(rank: int, ranks: int, meeting: str = "env://", *, gpus: bool = True) -> Iterator[torch.device]:
    """Join the group of all ranks; nccl and a GPU where each rank has one, gloo and the processor elsewhere.

    Args:
        gpus: whether they may be used.
        meeting: where ranks find each other, as `torch.distributed.init_process_group` takes it; `env://` is what
            `torchrun` sets.
    """
    on_gpus = gpus and torch.cuda.is_available() and torch.cuda.device_count() >= ranks
    backend = "nccl" if on_gpus else "gloo"
    dist.init_process_group(backend, init_method=meeting, rank=rank, world_size=ranks, timeout=PATIENCE)
    try:
        yield torch.device("cuda", rank) if on_gpus else torch.device("cpu")
    finally:
        dist.destroy_process_group()

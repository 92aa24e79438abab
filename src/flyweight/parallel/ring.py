"""What a stage sends to the next one of its machine: slots of memory that both see, and two counts of them.

Sent through sockets, stages take 1.2 to 1.6 times as long (`docs/parallel.md`): the kernel copies
them in and out, and a thread of gloo's wakes for each piece. Here the sender copies once and the receiver computes on
the slot itself. Both sleep while they wait: whoever polls takes the time of the core that it waits for.
"""

from collections.abc import Sequence

import torch
import torch.multiprocessing as mp
from torch import Tensor

from flyweight.errors import InputError
from flyweight.parallel.launch import PATIENCE

#: Micro-batches that may lie between two stages: one is read while the next is written.
SLOTS = 2


class Ring:
    """Passes the tensors of one micro-batch after another to the next process.

    Made by the process that begins both, and given to them as they begin. The memory has no name: it is gone with the
    last process that holds it, however that ends.

    Args:
        patience: seconds until a process that waits gives up.
    """

    def __init__(self, patience: float = PATIENCE.total_seconds()) -> None:
        context = mp.get_context("spawn")
        self._full, self._free = context.Semaphore(0), context.Semaphore(0)
        self._reader, self._writer = context.Pipe(duplex=False)
        self._slots: list[tuple[Tensor, ...]] = []
        self._at = 0
        self._patience = patience

    def put(self, tensors: Sequence[Tensor]) -> None:
        """Copy a micro-batch into the next slot; wait until there is one.

        The first has as many rows as any later one.

        Raises:
            InputError: the machine has not as much shared memory.
            TimeoutError: the next process read none of them for too long.
        """
        if not self._slots:
            self._slots = [tuple(map(_shared, tensors)) for _ in range(SLOTS)]
            self._writer.send(self._slots)
        if not self._free.acquire(timeout=self._patience):
            raise TimeoutError(f"The next stage has taken nothing for {self._patience:g} s.")
        for slot, tensor in zip(self._slots[self._at], tensors, strict=True):
            slot[: len(tensor)].copy_(tensor)
        self._full.release()
        self._at = (self._at + 1) % SLOTS

    def take(self, rows: int) -> tuple[Tensor, ...]:
        """Return the next micro-batch, of so many rows, where it lies; it is overwritten after `give_back`.

        Raises:
            TimeoutError: the process before sent none for too long.
        """
        if not self._full_or_handed():
            raise TimeoutError(f"The stage before has sent nothing for {self._patience:g} s.")
        return tuple(tensor[:rows] for tensor in self._slots[self._at])

    def give_back(self) -> None:
        """Let the slot that was taken be written again."""
        self._free.release()
        self._at = (self._at + 1) % SLOTS

    def _full_or_handed(self) -> bool:
        """Wait for a micro-batch; before the first, for the slots themselves."""
        if not self._slots:
            if not self._reader.poll(self._patience):
                return False
            self._slots = self._reader.recv()
            for _ in range(SLOTS):  # only now may the sender write, and end: its memory is held here too
                self._free.release()
        return self._full.acquire(timeout=self._patience)


def _shared(tensor: Tensor) -> Tensor:
    """Return memory of a tensor's shape and type that can be seen by another process."""
    try:
        made = torch.empty_like(tensor, memory_format=torch.contiguous_format)
        made.untyped_storage().share_memory_()
        return made
    except RuntimeError as error:
        size = SLOTS * tensor.numel() * tensor.element_size()
        raise InputError(
            f"{size / 1e6:.3g} MB of shared memory for what one stage sends to the next could not be had ({error}). "
            "Cut batches into more micro-batches, or let the system have more (a container: --shm-size)."
        ) from error

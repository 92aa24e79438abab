"""One rank of a pipeline of which all ranks are processes of this machine: inference, over shared memory."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from flyweight.parallel.partition import Partition
from flyweight.parallel.pipeline import Batch
from flyweight.parallel.ring import Ring


@dataclass(frozen=True)
class Ends:
    """What a rank takes from and puts into; the first rank has nothing before it, the last nothing behind."""

    before: Ring | None
    behind: Ring | None


def rings_between(ranks: int) -> tuple[Ring, ...]:
    """Return what joins so many ranks, for `ends_of`."""
    return tuple(Ring() for _ in range(ranks - 1))


def ends_of(rings: tuple[Ring, ...], rank: int) -> Ends:
    """Return a rank's ends."""
    both = (None, *rings, None)
    return Ends(both[rank], both[rank + 1])


def infer_beside(
    partition: Partition, rank: int, batches: Iterable[Batch], micro_batches: int, ends: Ends
) -> Iterator[Tensor]:
    """Yield the outputs of each batch on the last rank, nothing on the others.

    Every rank is given the same batches, and reads of them what its stage does. Micro-batches are as large as they must
    be for the first batch; of another batch there may be more, or fewer.
    """
    module = partition.module(rank).eval()
    size = 0
    for inputs, target in batches:
        rows = len(target)
        size = size or -(-rows // micro_batches)
        outputs: Tensor | None = None
        for begin in range(0, rows, max(size, 1)):
            count = min(size, rows - begin)
            given = {name: inputs[name][begin : begin + count] for name in module.reads}
            with torch.inference_mode():
                sent = ends.before.take(count) if ends.before else ()
                made = module(*sent, **given)
                if ends.behind:
                    ends.behind.put(made)
                else:  # copied, for it may lie in the slot that is given back
                    outputs = made.new_empty((rows, *made.shape[1:])) if outputs is None else outputs
                    outputs[begin : begin + count] = made
                if ends.before:
                    ends.before.give_back()
        if outputs is not None:
            yield outputs

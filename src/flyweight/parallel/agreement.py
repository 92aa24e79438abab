"""Whether all processes have made the same model and read the same data: each makes its own, and none looks again."""

import hashlib
from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor

from flyweight.errors import InputError

#: Values of a tensor that are compared, evenly spaced: a table of any size is told apart by as many.
SAMPLED = 256
#: How far they may be apart, relative to the largest: processors of two kinds train to other last digits.
TOLERANCE = 1e-3


def check_alike(tensors: Mapping[str, Tensor], device: torch.device) -> None:
    """Check that a rank has what the first one has; every rank calls this at the same time.

    Args:
        tensors: weights and a batch, by name, of any shape; those on the device "meta" are passed over.
        device: where ranks exchange what they know.

    Raises:
        InputError: a tensor differs; names it, and what is mostly the reason.
    """
    own = {name: _sampled(value) for name, value in tensors.items() if value.device.type != "meta"}
    mine = torch.cat([*own.values(), torch.empty(0, dtype=torch.float32)]).to(device)
    size = torch.tensor(len(mine), device=device)
    dist.broadcast(size, src=0)
    first = mine.clone() if len(mine) == int(size) else torch.empty(int(size), device=device)
    dist.broadcast(first, src=0)
    if len(mine) != len(first):
        raise InputError(f"{_WORDS[0]} tensors of other sizes. {_WORDS[1]}")
    pieces = torch.split(first.cpu(), [len(values) for values in own.values()])
    for (name, values), due in zip(own.items(), pieces, strict=True):
        if len(values) and float((values - due).abs().max()) > TOLERANCE * float(due.abs().max()):
            raise InputError(f"{_WORDS[0]} another {name!r}. {_WORDS[1]}")


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """Return what tells tensors from others, of as many values of each."""
    digest = hashlib.sha256()
    for name, value in tensors.items():
        digest.update(f"{name} {tuple(value.shape)}".encode())
        if value.device.type != "meta":
            digest.update(_sampled(value).numpy().tobytes())
    return digest.hexdigest()


_WORDS = (
    "The task is made anew in each process, and this one has got",
    "Let the function that makes it return the same each time: load weights from a file, or seed what it draws "
    "(torch.manual_seed) and trains, and let no loader shuffle without a seed.",
)


def _sampled(value: Tensor) -> Tensor:
    """Return values of a tensor, evenly spaced, as float32 on the processor."""
    flat = value.detach().reshape(-1)
    at = torch.linspace(0, len(flat) - 1, min(len(flat), SAMPLED), dtype=torch.float64).long()
    return torch.nan_to_num(flat[at.to(flat.device)].cpu().float())

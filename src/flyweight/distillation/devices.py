"""Where training runs: on the model's device, or on many under torchrun, each process with its share of the batches.

Gradients are averaged by `DistributedDataParallel`; everything else is computed alike in every process.
"""

import copy
import os
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Place:
    """This process among those that train together: `rank` of `world`, its model on `device`."""

    rank: int = 0
    world: int = 1
    device: torch.device = CPU

    def spread(self, model: nn.Module) -> nn.Module:
        """Return the model as it is called in training: itself, or with its gradients averaged over processes."""
        if self.world == 1:
            return model
        return nn.parallel.DistributedDataParallel(model, find_unused_parameters=True)

    def agrees(self, fine: bool) -> bool:
        """Return whether all processes say so."""
        if self.world == 1:
            return fine
        flag = torch.tensor(float(fine), device=self.device)
        dist.all_reduce(flag, dist.ReduceOp.MIN)
        return bool(flag.item())

    def visitor(self, model: nn.Module) -> nn.Module:
        """Return a model, or a copy of it on this device, that takes and gives tensors in main memory."""
        own = next((tensor.device for tensor in model.parameters()), self.device)
        return at_home(model if own == self.device else copy.deepcopy(model).to(self.device), self.device)


def find_place(model: nn.Module, *, alone: bool = False) -> Place:
    """Return where to train: the model's own device, or this process's GPU under `torchrun` with NCCL.

    Args:
        alone: see every batch whole, whatever other processes there are: they share each step, not the batches.
    """
    device = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
    if not (dist.is_available() and dist.is_initialized()):
        return Place(device=device)
    if dist.get_backend() == "nccl":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return Place(device=device) if alone else Place(dist.get_rank(), dist.get_world_size(), device)


class Elsewhere(nn.Module):
    """A model on another device, called with tensors in main memory and returning them there."""

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        super().__init__()
        self.model = model
        self.device = device

    def forward(self, **inputs: Tensor) -> Tensor:
        """Return the model's outputs."""
        outputs: Tensor = self.model(**{name: value.to(self.device) for name, value in inputs.items()})
        return outputs.cpu()


def at_home(model: nn.Module, device: torch.device) -> nn.Module:
    """Return a model that takes and gives tensors in main memory."""
    return model if device.type == "cpu" else Elsewhere(model, device)


def inner(model: nn.Module) -> nn.Module:
    """Return the model itself, without what moves its tensors."""
    return model.model if isinstance(model, Elsewhere) else model

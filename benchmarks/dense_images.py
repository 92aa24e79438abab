"""What the two cases on images share: a net of a pruned one's widths trained from scratch, and a base's work."""

import copy
from dataclasses import dataclass

import torch
from torch import nn

import flyweight as fw
from flyweight.cost.macs import count_macs
from flyweight.distillation.distill import Distill
from flyweight.task.change import Change
from flyweight.zoo.image_training import fit_images
from flyweight.zoo.images import Images
from flyweight.zoo.recipe import Recipe


@dataclass(frozen=True)
class Bfloat16:
    """A distillation whose convolutions run in bfloat16, as in the training of the bases: weights stay float32."""

    step: Distill

    @property
    def name(self) -> str:
        """The step's own."""
        return self.step.name

    def apply(self, task: fw.Task) -> Change:
        """Apply the step."""
        # The cache would keep the weights of the first step for all of them.
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
            return self.step.apply(task)


def work_of(task: fw.Task) -> int:
    """Return the multiply-accumulates of one row of a task's model."""
    inputs, _ = next(iter(task.validation))
    return count_macs(task.model, {name: values[:1] for name, values in inputs.items()}).total


def trained_anew(model: nn.Module, data: Images, recipe: Recipe) -> nn.Module:
    """Return a net of the same layers, started anew and trained as the base was, with all its epochs."""
    fresh = started_anew(model, recipe.seed)
    fit_images(fresh.train(), data, recipe)
    return fresh.eval()


def started_anew(model: nn.Module, seed: int) -> nn.Module:
    """Return a copy with PyTorch's own starting values: uniform filters and matrices, norms of 1 and 0."""
    fresh = copy.deepcopy(model)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for name, tensor in [*fresh.named_parameters(), *fresh.named_buffers()]:
            if tensor.ndim > 1:
                nn.init.kaiming_uniform_(tensor, a=5**0.5)
            elif name.endswith(("weight", "running_var")):
                tensor.fill_(1)
            else:
                tensor.zero_()
    return fresh

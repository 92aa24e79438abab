"""Training of the dense benchmarks' image models: one cycle of AdamW, every image distorted anew in every epoch."""

import torch
import torch.nn.functional as F
from torch import nn

from dense_data import Images, distorted
from flyweight.zoo.recipe import Recipe, Watch, one_cycle, take_step


def fit_images(model: nn.Module, data: Images, recipe: Recipe, watch: Watch | None = None) -> None:
    """Train a classifier in place, every image distorted anew in every epoch.

    Raises:
        FlyweightError: the loss is no longer a number.
    """
    generator = torch.Generator().manual_seed(recipe.seed)
    model.to(memory_format=torch.channels_last)  # a third faster on CPUs
    optimizer, schedule = one_cycle(model, recipe, data.rows // recipe.batch)
    for epoch in range(recipe.epochs):
        for rows in torch.randperm(data.rows, generator=generator).split(recipe.batch)[: data.rows // recipe.batch]:
            images = distorted(data.pixels[rows].float() / 255, data.distortion, generator)
            with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bfloat16):
                outputs = model(image=images.contiguous(memory_format=torch.channels_last))
                loss = F.cross_entropy(outputs.float(), data.labels[rows], label_smoothing=recipe.smoothing)
            take_step(loss, optimizer, schedule)
        if watch:
            watch(epoch, model)
    model.to(memory_format=torch.contiguous_format)

"""Training of image classifiers: one cycle of AdamW, every image distorted anew in every epoch."""

import torch
import torch.nn.functional as F
from torch import nn

from flyweight.zoo.distortion import distorted
from flyweight.zoo.images import Images
from flyweight.zoo.recipe import Recipe, Watch, one_cycle, take_step


def fit_images(model: nn.Module, data: Images, recipe: Recipe, watch: Watch | None = None) -> None:
    """Train a classifier in place, every image distorted anew in every epoch.

    Raises:
        FlyweightError: the loss is no longer a number.
    """
    generator = torch.Generator().manual_seed(recipe.seed)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a third faster on CPUs
    steps = data.rows // recipe.batch
    optimizer, schedule = one_cycle(model, recipe, steps)
    for epoch in range(recipe.epochs):
        for rows in torch.split(torch.randperm(data.rows, generator=generator), recipe.batch)[:steps]:
            images = distorted(data.pixels[rows].float() / 255, data.distortion, generator)
            with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bfloat16):
                outputs = model(image=images.contiguous(memory_format=torch.channels_last))
                loss = F.cross_entropy(outputs.float(), data.labels[rows], label_smoothing=recipe.smoothing)
            take_step(loss, optimizer, schedule)
        if watch:
            watch(epoch, model)
    model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]

"""Labelled images in memory, read batch by batch, with distorted copies where a recovery is to see more of them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from flyweight.zoo.distortion import STILL, Distortion, distorted

#: The seed of every split and shuffle of images: the splits are the same for every seed of training.
SPLIT_SEED = 2025


@dataclass(frozen=True, eq=False)
class Images:
    """A split of labelled images as a re-iterable of `({"image": (rows, channels, height, width)}, labels (rows,))`.

    Values are float32 in [0, 1]. Every pass gives the same batches, distorted copies included.

    Args:
        pixels: (rows, channels, height, width), uint8.
        labels: (rows,), int64.
        size: rows of a batch.
        copies: how many times each image comes in one pass; all but the first are distorted, and all are shuffled.
        distortion: of the copies.
    """

    pixels: Tensor
    labels: Tensor
    size: int = 256
    copies: int = 1
    distortion: Distortion = STILL

    @property
    def rows(self) -> int:
        """Images in the split, without copies."""
        return len(self.labels)

    def __len__(self) -> int:
        return -(-self.rows * self.copies // self.size)

    def __iter__(self) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        generator = torch.Generator().manual_seed(SPLIT_SEED)
        total = self.rows * self.copies
        order = torch.arange(total) if self.copies == 1 else torch.randperm(total, generator=generator)
        for part in torch.split(order, self.size):
            rows = part % self.rows
            images = self.pixels[rows].float() / 255
            if self.copies > 1:
                again = (part >= self.rows).view(-1, 1, 1, 1)
                images = torch.where(again, distorted(images, self.distortion, generator), images)
            yield {"image": images}, self.labels[rows]

    def with_copies(self, copies: int) -> "Images":
        """Return the same images so many times each a pass."""
        return replace(self, copies=copies)

    def head(self, rows: int) -> "Images":
        """Return the first images only."""
        return replace(self, pixels=self.pixels[:rows], labels=self.labels[:rows])


@dataclass(frozen=True, eq=False)
class ImageSplits:
    """Train, validation and test of one data set, with the SHA-256 of what a model is trained on."""

    train: Images
    validation: Images
    test: Images
    fingerprint: str

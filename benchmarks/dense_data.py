"""The images of the dense benchmarks, read from disk and split.

The files lie in `../shared/data` beside the repository, or where `FLYWEIGHT_DATA` says; none is part of the product.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from flyweight.zoo.cache import fingerprint
from flyweight.zoo.data_files import find_data

#: The seed of every split and shuffle here: the splits are the same for every seed of training.
SPLIT_SEED = 2025


@dataclass(frozen=True)
class Distortion:
    """How far images are moved and relit at random, each drawn evenly between -x and +x.

    Args:
        shift: of the height and width, as a share of it.
        turn: degrees.
        scale: of the size, and `shear` of the slant, as a share.
        light: of the contrast and of the mean brightness, as a share of them.
    """

    shift: float = 0.0
    turn: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    light: float = 0.0


def distorted(images: Tensor, by: Distortion, generator: torch.Generator) -> Tensor:
    """Return images (rows, channels, height, width) in [0, 1], each moved and relit by its own draw.

    What comes in from outside an image repeats its edge.
    """
    draw = torch.rand(8, len(images), generator=generator) * 2 - 1
    turn = draw[0] * by.turn * torch.pi / 180
    wide, high, slant = 1 + draw[1] * by.scale, 1 + draw[2] * by.scale, draw[3] * by.shear
    across, down = draw[4] * 2 * by.shift, draw[5] * 2 * by.shift
    first = torch.stack([wide * turn.cos(), slant - turn.sin(), across], 1)
    second = torch.stack([turn.sin(), high * turn.cos(), down], 1)
    grid = F.affine_grid(torch.stack([first, second], 1), list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    if not by.light:
        return moved
    contrast, gain = (1 + draw[6:] * by.light).view(2, -1, 1, 1, 1)
    mean = moved.mean((1, 2, 3), keepdim=True)
    return ((moved - mean) * contrast + mean * gain).clamp(0, 1)


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
    distortion: Distortion = Distortion()

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
        for part in order.split(self.size):
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
class Splits:
    """Train, validation and test of one data set, with the SHA-256 of what a model is trained on."""

    train: Any
    validation: Any
    test: Any
    fingerprint: str


def mnist(validation_rows: int = 5_000) -> Splits:
    """Return MNIST's 60,000 digits less a random 5,000 for validation, and its 10,000 test digits: (1, 28, 28)."""
    data = np.load(find_data("mnist.npz"))
    order = np.random.default_rng(SPLIT_SEED).permutation(len(data["y_train"]))
    held, kept = order[:validation_rows], order[validation_rows:]
    rows = [(data[f"x_{part}"], data[f"y_{part}"]) for part in ("train", "test")]
    (pixels, labels), test = rows
    move = Distortion(shift=0.08, turn=12, scale=0.12, shear=0.12)
    return _image_splits((pixels[kept], labels[kept]), (pixels[held], labels[held]), test, move)


def gtsrb(share: float = 0.15) -> Splits:
    """Return the traffic signs, (3, 32, 32), 43 classes; whole tracks are held out for validation.

    The images of a track are frames of one sign driven past, nearly alike, so an image whose neighbours were trained on
    says nothing. `share` of each class's tracks is held out, at least one where there are four, none where there are
    two. The test images come from other tracks again, but which of them belong together is not published: intervals on
    them take the rows as independent.
    """
    data = np.load(find_data("gtsrb_subset.npz"))
    pixels, labels, tracks = (data[name] for name in ("x_train", "y_train", "track"))
    random = np.random.default_rng(SPLIT_SEED)
    held = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        own = random.permutation(np.unique(tracks[labels == label]))
        count = max(round(share * len(own)), int(len(own) >= 4))
        held |= (labels == label) & np.isin(tracks, own[:count])
    order = random.permutation(np.flatnonzero(~held))
    move = Distortion(shift=0.1, turn=10, scale=0.15, shear=0.1, light=0.4)
    train, validation = (pixels[order], labels[order]), (pixels[held], labels[held])
    return _image_splits(train, validation, (data["x_test"], data["y_test"]), move)


def pneumonia() -> Splits:
    """Return PneumoniaMNIST's chest x-rays, (1, 28, 28), label 1 for pneumonia, in its own three splits."""
    data = np.load(find_data("pneumoniamnist.npz"))
    train, validation, test = ((data[f"{name}_images"], data[f"{name}_labels"]) for name in ("train", "val", "test"))
    order = np.random.default_rng(SPLIT_SEED).permutation(len(train[1]))
    move = Distortion(shift=0.08, turn=10, scale=0.12, light=0.3)
    return _image_splits((train[0][order], train[1][order]), validation, test, move)


def _image_splits(
    train: tuple[Any, Any], validation: tuple[Any, Any], test: tuple[Any, Any], move: Distortion
) -> Splits:
    def images(pixels: Any, labels: Any) -> Images:
        first = pixels[:, None] if pixels.ndim == 3 else pixels.transpose(0, 3, 1, 2)  # (rows, channels, height, width)
        flat = torch.from_numpy(labels.reshape(-1).astype(np.int64))
        return Images(torch.from_numpy(np.ascontiguousarray(first)), flat, distortion=move)

    parts = [images(*part) for part in (train, validation, test)]
    content = {"pixels": parts[0].pixels.numpy(), "labels": parts[0].labels.numpy()}
    return Splits(*parts, fingerprint(content))

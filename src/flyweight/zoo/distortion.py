"""Images moved and relit at random, so that a small data set does not run out of them."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


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


#: No distortion.
STILL = Distortion()


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
    lit: Tensor = (moved - mean) * contrast + mean * gain
    return lit.clamp(0, 1)

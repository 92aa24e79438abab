"""A small residual network for small images (He et al. 2015, arXiv 1512.03385), with 1 x 1 shortcuts (option B)."""

import torch.nn.functional as F
from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions with batch norm beside a shortcut; the sum is rectified.

    Args:
        wide: channels in.
        out: channels out.
        stride: of the first convolution; the shortcut is a 1 x 1 convolution where it or the channels change.
    """

    def __init__(self, wide: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(wide, out, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or wide != out:
            self.shortcut = nn.Sequential(nn.Conv2d(wide, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        """Return (rows, out, height / stride, width / stride) for (rows, wide, height, width)."""
        branch = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(branch)) + self.shortcut(x))


class ResNet(nn.Module):
    """A 3 x 3 stem, stages of residual blocks, each on half the image and wider, the mean of the image, a linear layer.

    Args:
        channels: of the image.
        classes: outputs, one logit each.
        widths: channels of each stage; every stage but the first halves height and width.
        blocks: residual blocks a stage.
        stem_stride: 2 halves the image at the start, for a quarter of the work.

    Example:
        >>> import torch
        >>> ResNet(classes=43)(image=torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 43])
    """

    def __init__(
        self,
        channels: int = 3,
        classes: int = 10,
        widths: tuple[int, ...] = (32, 64, 128),
        blocks: int = 1,
        stem_stride: int = 1,
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, widths[0], 3, stem_stride, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(widths[0])
        stages, wide = [], widths[0]
        for number, width in enumerate(widths):
            strides = [1 if number == 0 else 2] + [1] * (blocks - 1)
            entries = [wide] + [width] * (blocks - 1)
            stages.append(nn.Sequential(*(ResidualBlock(e, width, s) for e, s in zip(entries, strides, strict=True))))
            wide = width
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(wide, classes)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (rows, classes) for images (rows, channels, height, width) with values in [0, 1]."""
        x = self.stages(F.relu(self.norm(self.stem(image))))  # (rows, widths[-1], height, width)
        return self.head(x.mean((2, 3)))  # type: ignore[no-any-return]

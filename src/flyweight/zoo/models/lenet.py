"""LeNet-300-100, the fully connected digit classifier that pruning papers start with (LeCun et al. 1998, fig. 9)."""

from torch import Tensor, nn


class LeNet300100(nn.Module):
    """An image flattened through hidden layers of 300 and 100 rectified units: 266,610 parameters for 28 x 28 digits.

    Han et al. 2015 (arXiv 1506.02626, table 3) prune this network to 22 thousand weights, 12 times fewer, at 1.59%
    error from 1.64%.

    Args:
        pixels: values of one image, all channels.
        hidden: widths of the hidden layers.
        classes: outputs, one logit each.

    Example:
        >>> import torch
        >>> LeNet300100()(image=torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """

    def __init__(self, pixels: int = 784, hidden: tuple[int, ...] = (300, 100), classes: int = 10) -> None:
        super().__init__()
        widths = (pixels, *hidden)
        layers: list[nn.Module] = []
        for wide, narrow in zip(widths, hidden, strict=False):
            layers += [nn.Linear(wide, narrow), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], classes))

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (rows, classes) for images (rows, channels, height, width) with values in [0, 1]."""
        return self.layers(image.flatten(1))  # type: ignore[no-any-return]

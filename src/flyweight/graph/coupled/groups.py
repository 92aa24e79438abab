"""What can be cut from a model: places, units and groups."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["neurons", "channels", "heads", "embedding"]


@dataclass(frozen=True)
class Place:
    """Some indices of one dimension of one tensor.

    Args:
        tensor: the parameter's or buffer's name in the model that was traced.
        dim: the dimension.
        index: the indices.
    """

    tensor: str
    dim: int
    index: tuple[int, ...]

    def __repr__(self) -> str:
        return f"Place({self.tensor!r}, {self.dim}, {self.index})"


@dataclass(frozen=True)
class Unit:
    """The least that can be cut: a neuron, a channel, a head, one dimension of an embedding.

    Args:
        places: all that goes with it.
    """

    places: tuple[Place, ...]


@dataclass(frozen=True)
class Group:
    """Units that lie along the same axes, so that any of them can go, and one at least must stay.

    Args:
        name: the first module that produces them ("layer1.0.conv1").
        kind: what a unit is. Outputs of linear layers are "neurons", also those of a residual stream.
        units: in the order of the producer's outputs.
        layers: all modules that lose something with a unit.
    """

    name: str
    kind: Kind
    units: tuple[Unit, ...]
    layers: tuple[str, ...]

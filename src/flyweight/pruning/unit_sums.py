"""Sums over the units of a group, made in a few operations however many units there are."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from flyweight.graph.coupling import Group


@dataclass(frozen=True, eq=False)
class Lane:
    """Where the units of a group lie in one dimension of one tensor.

    Args:
        tensor: the tensor's name.
        dim: the dimension that is cut.
        index: (k,) places of it, those of all units one after the other.
        unit: (k,) the unit that each belongs to.
    """

    tensor: str
    dim: int
    index: Tensor
    unit: Tensor


def lanes_of(group: Group) -> tuple[Lane, ...]:
    """Return a group's places, tensor by tensor."""
    found: dict[tuple[str, int], tuple[list[int], list[int]]] = {}
    for number, unit in enumerate(group.units):
        for place in unit.places:
            index, owner = found.setdefault((place.tensor, place.dim), ([], []))
            index.extend(place.index)
            owner.extend([number] * len(place.index))
    return tuple(
        Lane(tensor, dim, torch.tensor(index), torch.tensor(owner)) for (tensor, dim), (index, owner) in found.items()
    )


def sum_lane(lane: Lane, values: Tensor, units: int) -> Tensor:
    """Return the sum of a tensor's values over each unit, (units,).

    Example: the rows of a (3, 4) weight, a unit each, give its three row sums.
    """
    others = [dim for dim in range(values.ndim) if dim != lane.dim % values.ndim]
    along = values.sum(others) if others else values
    return along.new_zeros(units).index_add(0, lane.unit, along[lane.index])


def tensors_of(groups: Mapping[str, tuple[Lane, ...]]) -> tuple[str, ...]:
    """Return the names of all tensors of groups, each once."""
    return tuple(dict.fromkeys(lane.tensor for lanes in groups.values() for lane in lanes))

"""Multiply-accumulates of a model after a cut, without building it."""

import math
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flyweight.graph.coupled.axes import Atom, Dim, at_rows
from flyweight.graph.coupled.grouping import Grouping, grouping
from flyweight.graph.traced import TracedModel


@dataclass(frozen=True, eq=False)
class _Length:
    """How long an axis is after a cut: places that always stay, and how many go with each unit of each group."""

    fixed: int
    units: dict[str, npt.NDArray[np.int64]]

    def left(self, keep: Mapping[str, Sequence[int]]) -> int:
        found = self.fixed
        for name, places in self.units.items():
            found += int((places[list(keep[name])] if name in keep else places).sum())
        return found


@dataclass(frozen=True, eq=False)
class _Work:
    """Products of lengths: each the part that no cut changes, and the axes that may get shorter."""

    lengths: list[_Length]
    products: list[tuple[int, list[int]]]


_KNOWN: "weakref.WeakKeyDictionary[TracedModel, _Work]" = weakref.WeakKeyDictionary()


def macs_of(traced: TracedModel, keep: Mapping[str, Sequence[int]]) -> int:
    """Return the multiply-accumulates of one row after a cut: linear layers, convolutions, products and attention.

    Args:
        traced: counted once; further calls take microseconds for each axis that can be cut.
        keep: by name of a group, the units that stay, each once; groups that are not named stay whole.

    Raises:
        InputError: an unknown group, a unit that it does not have, none left.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> macs_of(trace(model, {"input": torch.zeros(2, 4)}), {"0": [0, 2]})  # 4 x 2 + 2 x 2
        12
    """
    if traced not in _KNOWN:
        _KNOWN[traced] = _count(grouping(traced))
    work = _KNOWN[traced]
    grouping(traced).check(keep)
    lengths = [length.left(keep) for length in work.lengths]
    return sum(constant * math.prod(lengths[at] for at in axes) for constant, axes in work.products)


def _count(found: Grouping) -> _Work:
    lengths: list[_Length] = []
    known: dict[bytes, int] = {}
    products: list[tuple[int, list[int]]] = []
    for dim in found.analysis.flow.work:
        constant, axes = _constant(dim, found), []
        for atom in _changing(dim, found):
            assert atom.ids is not None
            key = atom.ids.tobytes()
            if key not in known:
                known[key] = len(lengths)
                lengths.append(_length(atom.ids, found))
            axes.append(known[key])
        products.append((constant, axes))
    return _Work(lengths, products)


def _changing(dim: Dim, found: Grouping) -> list[Atom]:
    return [atom for atom in dim if atom.ids is not None and bool((found.group[atom.ids] >= 0).any())]


def _constant(dim: Dim, found: Grouping) -> int:
    """The product of the lengths that never change; a length that depends on the rows is that of one row."""
    changing = _changing(dim, found)
    total = 1
    for atom in dim:
        if not any(atom is one for one in changing):
            total *= at_rows(atom.size, 1)
    return total


def _length(ids: npt.NDArray[np.int64], found: Grouping) -> _Length:
    group, unit = found.group[ids], found.unit[ids]
    units = {
        found.groups[number].name: np.bincount(unit[group == number], minlength=len(found.groups[number].units))
        for number in np.unique(group[group >= 0]).tolist()
    }
    return _Length(int((group < 0).sum()), units)

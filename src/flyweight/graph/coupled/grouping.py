"""From united indices to named groups of units."""

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flyweight.errors import InputError
from flyweight.graph.coupled.analysis import Analysis, analyse
from flyweight.graph.coupled.axes import Ids
from flyweight.graph.coupled.groups import Group, Kind, Place, Unit
from flyweight.graph.coupled.labels import Axis
from flyweight.graph.traced import TracedModel
from flyweight.task.change import Skipped


@dataclass(frozen=True, eq=False)
class Grouping:
    """Groups of a model, and where each index stands in them.

    Args:
        analysis: what its operators demand.
        groups: what can be cut.
        skipped: what cannot, with the reason.
        group: (ids,) number of the group of each index, -1 where nothing can be cut.
        unit: (ids,) number of its unit within the group.
    """

    analysis: Analysis
    groups: tuple[Group, ...]
    skipped: tuple[Skipped, ...]
    group: Ids
    unit: Ids

    def stays(self, keep: Mapping[str, Sequence[int]]) -> npt.NDArray[np.bool_]:
        """Return (ids,) whether each index stays when of the named groups only these units do.

        Raises:
            InputError: an unknown group, a unit that it does not have, none left.
        """
        self.check(keep)
        stays = np.ones(len(self.group), dtype=np.bool_)
        for number, group in enumerate(self.groups):
            if group.name in keep:
                kept = np.zeros(len(group.units), dtype=np.bool_)
                kept[list(keep[group.name])] = True
                mine = self.group == number
                stays[mine] = kept[self.unit[mine]]
        return stays

    def check(self, keep: Mapping[str, Sequence[int]]) -> None:
        """Raise InputError for an unknown group, a unit that it does not have, none left."""
        counts = {group.name: len(group.units) for group in self.groups}
        for name, units in keep.items():
            if name not in counts:
                known = ", ".join(counts) or "none"
                raise InputError(f"There is no group {name!r} to cut; the model's groups are: {known}.")
            if not len(units):
                raise InputError(f"Group {name!r} must keep at least one of its {counts[name]} units; seen none.")
            if min(units) < 0 or max(units) >= counts[name]:
                wrong = next(unit for unit in units if not 0 <= unit < counts[name])
                raise InputError(f"Group {name!r} has units 0 to {counts[name] - 1}; seen {wrong}.")


_KNOWN: "weakref.WeakKeyDictionary[TracedModel, Grouping]" = weakref.WeakKeyDictionary()


def grouping(traced: TracedModel) -> Grouping:
    """Return the groups of a traced model; computed once for each model."""
    if traced not in _KNOWN:
        _KNOWN[traced] = _grouping(analyse(traced))
    return _KNOWN[traced]


def _grouping(analysis: Analysis) -> Grouping:
    signature = _signatures(analysis)
    members: dict[int, list[int]] = {}  # by signature: the sets of indices that are its units
    for ids, _ in analysis.flow.labels.produced:  # in the order of the operators
        for part in dict.fromkeys(analysis.part[ids].tolist()):
            if part not in analysis.why:
                members.setdefault(int(signature[part]), []).append(part)
    found = [list(dict.fromkeys(units)) for units in members.values()]
    group_of, unit_of = np.full(len(analysis.part), -1), np.zeros(len(analysis.part), dtype=np.int64)
    for number, units in enumerate(units for units in found if len(units) > 1):
        group_of[units], unit_of[units] = number, np.arange(len(units))
    group, unit = group_of[analysis.part], unit_of[analysis.part]
    groups = _named(analysis, group, unit, int(group_of.max(initial=-1)) + 1)
    alone = {units[0] for units in found if len(units) == 1}
    return Grouping(analysis, groups, tuple(_skipped(analysis, alone)), group, unit)


def _signatures(analysis: Analysis) -> Ids:
    """Return a number for each set of indices that is the same for sets that lie along the same axes."""
    generator = np.random.default_rng(0)
    signature = np.zeros(len(analysis.part), dtype=np.int64)
    for axis in analysis.flow.labels.axes:
        signature[np.unique(analysis.part[axis.ids])] += generator.integers(-(2**62), 2**62)
    return signature


def _named(analysis: Analysis, group: Ids, unit: Ids, count: int) -> tuple[Group, ...]:
    places: list[dict[int, list[Place]]] = [{} for _ in range(count)]
    layers: list[dict[str, None]] = [{} for _ in range(count)]
    for axis in analysis.flow.labels.axes:
        mine = group[axis.ids]
        for number in np.unique(mine[mine >= 0]).tolist() if axis.dim >= 0 else ():
            layers[number][_layer(axis)] = None
            for which, index in _by_unit(unit[axis.ids], mine == number):
                places[number].setdefault(which, []).append(Place(axis.tensor, axis.dim, index))
    names = _names(analysis, group)
    kinds = _kinds(analysis, group, count)
    return tuple(
        Group(
            name=names[number],
            kind=kinds[number],
            units=tuple(Unit(tuple(places[number][which])) for which in sorted(places[number])),
            layers=tuple(layers[number]),
        )
        for number in range(count)
    )


def _names(analysis: Analysis, group: Ids) -> dict[int, str]:
    """Name each group after the first layer that produces it, and of two with one name the second after its tensor."""
    axes = analysis.flow.labels.axes
    owner = np.full(len(group), -1)
    for number, axis in enumerate(axes):
        if axis.dim >= 0:
            owner[axis.ids] = number
    names: dict[int, str] = {}
    for ids, _ in analysis.flow.labels.produced:
        stored = ids[(owner[ids] >= 0) & (group[ids] >= 0)]
        numbers, first = np.unique(group[stored], return_index=True)
        for number, at in zip(numbers.tolist(), first.tolist(), strict=True):
            if number not in names:
                names[number] = _free_name(axes[owner[stored[at]]], set(names.values()))
    return names


def _layer(axis: Axis) -> str:
    return axis.tensor.rpartition(".")[0] or axis.tensor


def _free_name(axis: Axis, taken: set[str]) -> str:
    layer = _layer(axis)
    own = () if axis.tensor.endswith("weight") else (axis.tensor,)  # "experts.inlet", but "first#2" for a second part
    wanted: tuple[str, ...] = (layer, *own, *(f"{layer}#{number}" for number in range(2, len(taken) + 3)))
    return next(name for name in wanted if name not in taken)


def _by_unit(unit: Ids, mine: npt.NDArray[np.bool_]) -> list[tuple[int, tuple[int, ...]]]:
    """Return for each unit the places along an axis that are its own."""
    at = np.flatnonzero(mine)
    order = at[np.argsort(unit[at], kind="stable")]
    numbers, starts = np.unique(unit[order], return_index=True)
    pieces = np.split(order, starts[1:])
    return [(number, tuple(piece.tolist())) for number, piece in zip(numbers.tolist(), pieces, strict=True)]


def _kinds(analysis: Analysis, group: Ids, count: int) -> list[Kind]:
    kinds: list[Kind] = ["neurons"] * count
    labels = analysis.flow.labels
    ordered: tuple[tuple[Kind, list[Ids]], ...] = (
        ("channels", [ids for ids, kind in labels.produced if kind == "channels"]),
        ("embedding", [ids for ids, kind in labels.produced if kind == "embedding"]),
        ("heads", labels.heads),
    )
    for kind, arrays in ordered:
        for ids in arrays:
            for number in np.unique(group[ids]).tolist():
                if number >= 0:
                    kinds[number] = kind
    return kinds


def _skipped(analysis: Analysis, alone: set[int]) -> list[Skipped]:
    """Return the layers some of whose outputs cannot be cut, one line for each layer and reason."""
    found: list[Skipped] = []
    for axis in analysis.flow.labels.axes:
        if axis.dim < 0:
            continue
        parts = analysis.part[axis.ids[analysis.produced[axis.ids]]].tolist()
        reasons: dict[str, int] = {}
        for part in parts:
            reason = analysis.why.get(part, "they are all one unit" if part in alone else "")
            if reason:
                reasons[reason] = reasons.get(reason, 0) + 1
        for reason, times in reasons.items():
            share = f"its {times}" if times == len(axis.ids) else f"{times} of its {len(axis.ids)}"
            found.append(Skipped(_layer(axis), f"{share} outputs stay: {reason}", "prune"))
    return list(dict.fromkeys(found))

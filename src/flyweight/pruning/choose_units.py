"""Which units go: the cheapest pieces of groups, cut so that every width lands on a multiple."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import gcd

from torch import Tensor

from flyweight.graph.coupling import Group

#: Widths land on multiples of this where none is asked for. Measured (benchmarks/widths.py): the engines' time rises in
#: steps of 16, the floats of a vector register; a convolution of 36 channels takes as long as one of 48.
MULTIPLE = 16
Keep = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Slice:
    """Units of one group that go together.

    Args:
        group: its name.
        units: which, in the order in which they would go.
        cost: what the loss would feel, per unit or per multiply-accumulate.
    """

    group: str
    units: tuple[int, ...]
    cost: float


def step_of(group: Group, multiple: int | None) -> int:
    """Return how many units of a group go at a time.

    Heads go one by one. Where no multiple is asked for, a group narrower than twice the usual one is cut in halves, and
    an embedding, whose width is but a part of what a layer reads, in quarters, both rounded down to a power of two.
    """
    count = len(group.units)
    if group.kind == "heads":
        return 1
    wide = max((len(place.index) for place in group.units[0].places[:1]), default=1)
    part = count * wide // (4 if group.kind == "embedding" else 2)
    wanted = multiple if multiple is not None else min(MULTIPLE, 1 << max(0, part.bit_length() - 1))
    return max(1, wanted // gcd(wanted, wide))


def slices_of(name: str, saliency: Tensor, step: int, gain: float = 1.0) -> list[Slice]:
    """Return what can go of a group, piece by piece, cheapest first; one step of units always stays.

    The first piece is smaller where the width is no multiple of the step.

    Args:
        saliency: (units,).
        step: units of a piece.
        gain: what a unit's removal gains: 1, or multiply-accumulates.

    Example:
        >>> [piece.units for piece in slices_of("a", torch.tensor([5.0, 1.0, 4.0, 2.0, 3.0]), step=2)]
        [(1,), (3, 4)]
    """
    order = saliency.argsort(stable=True).tolist()
    values = saliency.tolist()
    pieces, at = [], 0
    while len(order) - at > step:
        size = (len(order) - at) % step or step
        units = tuple(order[at : at + size])
        pieces.append(Slice(name, units, sum(values[unit] for unit in units) / (size * max(gain, 1e-9))))
        at += size
    return pieces


def in_order(pieces: Sequence[Sequence[Slice]]) -> list[Slice]:
    """Return all pieces, cheapest first, those of one group in their own order."""
    ready: list[tuple[float, int, int]] = []
    for number, own in enumerate(pieces):
        highest = 0.0
        for place, piece in enumerate(own):
            highest = max(highest, piece.cost)
            ready.append((highest, number, place))
    return [pieces[number][place] for _, number, place in sorted(ready)]


def kept(groups: Sequence[Group], gone: Sequence[Slice]) -> Keep:
    """Return the units that stay, of the groups that lose any."""
    lost: dict[str, set[int]] = {}
    for piece in gone:
        lost.setdefault(piece.group, set()).update(piece.units)
    return {
        group.name: tuple(unit for unit in range(len(group.units)) if unit not in lost[group.name])
        for group in groups
        if group.name in lost
    }


def by_count(ordered: Sequence[Slice], units: int) -> list[Slice]:
    """Return the first pieces that come nearest to so many units; of two as near, fewer."""
    taken, chosen = 0, []
    for piece in ordered:
        if taken + len(piece.units) / 2 >= units:
            break
        chosen.append(piece)
        taken += len(piece.units)
    return chosen


def by_macs(ordered: Sequence[Slice], limit: float, macs_after: Callable[[Sequence[Slice]], int]) -> list[Slice] | None:
    """Return the fewest first pieces without which the model is within a limit, or None if all are too few.

    Pieces that turn out not to be needed, because a later and larger one went, are given back, dearest first.

    Args:
        macs_after: multiply-accumulates of a row without some pieces.
    """
    if macs_after(ordered) > limit:
        return None
    low, high = 0, len(ordered)
    while low < high:
        middle = (low + high) // 2
        if macs_after(ordered[:middle]) <= limit:
            high = middle
        else:
            low = middle + 1
    chosen = list(ordered[:low])
    done: set[str] = set()  # groups that need all that is chosen of them
    for piece in reversed(ordered[:low]):
        if piece.group in done:
            continue
        without = [one for one in chosen if one is not piece]
        if macs_after(without) <= limit:
            chosen = without
        else:
            done.add(piece.group)
    return chosen

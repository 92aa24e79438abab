"""Values side by side of which some are the request's: `cat([spread(u), i, spread(w)], dim)`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from flyweight.rewrite.emit import emit, shape_of
from flyweight.rewrite.expanded import same
from flyweight.rewrite.spread import SPREAD

aten = torch.ops.aten
_COPIES = frozenset(
    {
        aten.slice.Tensor,
        *(getattr(aten, name).default for name in ("alias", "detach", "clone", "lift_fresh", "lift_fresh_copy")),
    }
)


@dataclass(frozen=True, eq=False)
class Mixed:
    """A concatenation of values of the request and of the rows.

    Args:
        parts: in order.
        dim: along which, 1 or more.
        widths: of the parts along it.
    """

    parts: tuple[fx.Node, ...]
    dim: int
    widths: tuple[int, ...]

    @property
    def of_request(self) -> list[fx.Node]:
        """The parts that are spread."""
        return [part for part in self.parts if is_spread(part)]

    @property
    def of_rows(self) -> list[fx.Node]:
        """The parts that are not."""
        return [part for part in self.parts if not is_spread(part)]

    @property
    def share(self) -> float:
        """What part of the numbers is the request's."""
        own = sum(width for part, width in zip(self.parts, self.widths, strict=True) if is_spread(part))
        return own / sum(self.widths)

    def starts(self) -> list[int]:
        """Return where each part begins."""
        return [sum(self.widths[:place]) for place in range(len(self.widths))]


def mixed(node: Any) -> Mixed | None:
    """Return what a concatenation of both sides puts side by side, None for anything else."""
    if not isinstance(node, fx.Node) or node.target is not aten.cat.default:
        return None
    parts, dim = parts_of(node), dim_of(node)
    sides = {is_spread(part) for part in parts}
    widths = [(shape_of(part) or (None,) * (dim + 1))[dim] for part in parts]
    if len(sides) < 2 or dim == 0 or not all(isinstance(width, int) for width in widths):
        return None
    return Mixed(tuple(parts), dim, tuple(widths))  # type: ignore[arg-type]


def handed_on(node: Any) -> Any:
    """Return what copies, and slices of everything, hand on as it was."""
    while isinstance(node, fx.Node) and node.target in _COPIES:
        shape, given = shape_of(node), shape_of(node.args[0])
        if node.target is aten.slice.Tensor and not (shape and given and all(map(same, shape, given))):
            break
        node = node.args[0]
    return node


def parts_of(join: fx.Node) -> list[fx.Node]:
    """Return what a `cat` or `stack` reads, in order."""
    parts: Any = join.args[0] if join.args else join.kwargs["tensors"]
    return list(parts)


def dim_of(join: fx.Node) -> int:
    """Return the dimension, 0 or more, along which a `cat` or `stack` puts values side by side."""
    dim: Any = join.args[1] if len(join.args) > 1 else join.kwargs.get("dim", 0)
    return int(dim) % len(shape_of(join) or (0,))


def is_spread(node: Any) -> bool:
    """Return whether a node brings a value of the request to the rows."""
    return isinstance(node, fx.Node) and node.target is SPREAD


def runs(parts: Sequence[fx.Node]) -> list[list[fx.Node]]:
    """Return the parts with neighbours of one side together."""
    found: list[list[fx.Node]] = []
    for part in parts:
        if found and is_spread(found[-1][-1]) == is_spread(part):
            found[-1].append(part)
        else:
            found.append([part])
    return found


def beside(body: fx.GraphModule, before: fx.Node, parts: Sequence[fx.Node], dim: int) -> fx.Node:
    """Return parts of one side, side by side along `dim`: spread ones before they are spread."""
    if len(parts) == 1:
        return parts[0]
    return on_side(body, before, parts, lambda given: emit(body, before, aten.cat.default, given, dim))


def on_side(
    body: fx.GraphModule, before: fx.Node, parts: Sequence[fx.Node], make: Callable[[list[fx.Node]], fx.Node]
) -> fx.Node:
    """Return what `make` makes of parts of one side: of spread ones, for each request, and spread after that."""
    if not is_spread(parts[0]):
        return make(list(parts))
    given: list[Any] = [part.args[0] for part in parts]
    return emit(body, before, SPREAD, make(given), parts[0].args[1])

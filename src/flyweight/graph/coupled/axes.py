"""The dimensions of a tensor as products of axes, so that reshaping keeps track of which units lie where.

A dimension of 4 * rows elements, made of 4 heads side by side for each row, is two atoms: one of `rows`, one of 4 that
knows its heads. `flatten` and `view` only move atoms from one dimension to another, or split one in two.
"""

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import sympy  # type: ignore[import-untyped]  # a dependency of torch
import torch
from torch import fx

#: A length: a number, or an expression such as 4 * rows.
Size: TypeAlias = int | Any
#: The unit that each place along an axis belongs to.
Ids = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Atom:
    """One factor of a dimension.

    Args:
        size: how long it is.
        ids: (size,) units, places of one unit are cut together; None where nothing can be cut.
        why: what it is, where nothing can be cut ("the model's input 'image'").
    """

    size: Size
    ids: Ids | None = None
    why: str = ""


#: A dimension is the product of its atoms, the slowest first; one of size 1 has none.
Dim = tuple[Atom, ...]
#: A tensor, dimension by dimension.
Value = tuple[Dim, ...]


def size_of(length: "int | torch.SymInt") -> Size:
    """Return a dimension's length as a number, or as the expression that a symbolic one stands for."""
    if isinstance(length, int):
        return length
    expression = length.node.expr
    return int(expression) if expression.is_number else expression


def shape_of(node: fx.Node) -> tuple[Size, ...]:
    """Return the shape that a node's tensor was traced with."""
    return tuple(size_of(length) for length in node.meta["val"].shape)


def divide(size: Size, by: Size) -> Size | None:
    """Return `size / by` if that is a whole number for any number of rows, else None.

    Example:
        >>> divide(12, 4), divide(12, 5)
        (3, None)
    """
    if isinstance(size, int) and isinstance(by, int):
        return None if size % by else size // by
    if size == by:
        return 1
    quotient = sympy.cancel(sympy.sympify(size) / sympy.sympify(by))
    if sympy.fraction(quotient)[1] != 1:
        return None
    return int(quotient) if quotient.is_number else quotient


def whole(length: Size, why: str) -> Dim:
    """Return a dimension of which nothing can be cut."""
    return () if length == 1 else (Atom(length, None, why),)


def fixed(shape: tuple[Size, ...], why: str) -> Value:
    """Return a tensor of which nothing can be cut."""
    return tuple(whole(length, why) for length in shape)


def length_of(dim: Dim) -> Size:
    """Return how long a dimension is."""
    length: Any = 1
    for atom in dim:
        length = length * atom.size
    return int(length) if isinstance(length, sympy.Expr) and length.is_number else length


def at_rows(size: Size, rows: int) -> int:
    """Return a length for a number of rows, which every symbol in it stands for."""
    return size if isinstance(size, int) else int(size.subs(dict.fromkeys(size.free_symbols, rows)))


def labelled(dim: Dim) -> list[Atom]:
    """Return the atoms of a dimension that have units."""
    return [atom for atom in dim if atom.ids is not None]


def why_whole(dim: Dim) -> str:
    """Return what a dimension without units is."""
    return next((atom.why for atom in dim if atom.ids is None), "an axis of fixed length")


def spread(dim: Dim, of: Atom) -> Ids:
    """Return the units of one atom at each place of the whole dimension, all of whose sizes are numbers.

    Example: two channels of three pixels each, flattened, give [0, 0, 0, 1, 1, 1].
    """
    assert of.ids is not None
    at = next(number for number, atom in enumerate(dim) if atom is of)
    before, after = length_of(dim[:at]), length_of(dim[at + 1 :])
    assert isinstance(before, int)
    assert isinstance(after, int)
    return np.tile(np.repeat(of.ids, after), before)

"""Which places of which axes are cut together: units of single indices, united as the operators demand.

Every index of every dimension of every weight starts as a unit of its own. An operator that reads two axes side by side
unites their units place by place; one that does not bear a cut freezes the units that it reads, with the reason.
"""

from dataclasses import dataclass, field

import numpy as np

from flyweight.graph.coupled.axes import (
    Atom,
    Dim,
    Ids,
    Size,
    Value,
    divide,
    fixed,
    labelled,
    length_of,
    spread,
    whole,
    why_whole,
)

#: How a split of one axis in two is read: whole rows of it are units ("heads"), or the same place of every row.
Split = tuple[str, int]


@dataclass(frozen=True, eq=False)
class Axis:
    """One dimension of one stored tensor, or of a piece of a computed one, which no cut may empty (`dim` -1).

    Args:
        tensor: its name, of the parameter or buffer or of the node.
        dim: which dimension.
        ids: (length,) the units along it.
    """

    tensor: str
    dim: int
    ids: Ids


@dataclass(eq=False)
class Labels:
    """The units met so far, what unites them and what freezes them.

    Args:
        choices: for each split of an axis in two, 0 to take whole rows as units, 1 to take the same place of each row.
    """

    choices: dict[Split, int] = field(default_factory=dict)
    count: int = 0
    united: list[tuple[Ids, Ids]] = field(default_factory=list)
    frozen: list[tuple[Ids, str]] = field(default_factory=list)
    produced: list[tuple[Ids, str]] = field(default_factory=list)
    heads: list[Ids] = field(default_factory=list)
    normed: list[Ids] = field(default_factory=list)
    splits: dict[Split, Ids] = field(default_factory=dict)
    axes: list[Axis] = field(default_factory=list)

    def fresh(self, length: int) -> Ids:
        """Return new units, one for each place."""
        self.count += length
        return np.arange(self.count - length, self.count, dtype=np.int64)

    def unite(self, one: Ids, other: Ids) -> None:
        """Cut the units of two arrays together, place by place."""
        self.united.append((one, other))

    def freeze(self, what: Dim | Value, why: str) -> None:
        """Never cut these units, for this reason."""
        for part in what:
            if isinstance(part, tuple):
                self.freeze(part, why)
            elif part.ids is not None:
                self.frozen.append((part.ids, why))

    def meet(self, one: Dim, other: Dim) -> Dim:
        """Cut two dimensions together that are read side by side, and return what comes out; a size of 1 broadcasts."""
        if not one or not other:
            return one or other
        if len(one) == len(other) and all(a.size == b.size for a, b in zip(one, other, strict=True)):
            return tuple(self._pair(a, b) for a, b in zip(one, other, strict=True))
        if not labelled(one) and not labelled(other):
            return one
        first, second = self.flat(one), self.flat(other)
        if first is None or second is None:
            self.freeze(one + other, f"joined with {why_whole(one + other)}")
            return whole(length_of(one), why_whole(one + other))
        self.unite(first, second)
        return one if len(one) >= len(other) else other

    def _pair(self, one: Atom, other: Atom) -> Atom:
        if one.ids is not None and other.ids is not None:
            self.unite(one.ids, other.ids)
            return one
        fixed_one = one if one.ids is None else other
        self.freeze((one, other), f"joined with {fixed_one.why}")
        return fixed_one

    def meet_all(self, one: Value, other: Value) -> Value:
        """Cut two tensors together that are read element by element, with broadcasting."""
        longer, shorter = (one, other) if len(one) >= len(other) else (other, one)
        ahead = len(longer) - len(shorter)
        return longer[:ahead] + tuple(self.meet(a, b) for a, b in zip(longer[ahead:], shorter, strict=True))

    def flat(self, dim: Dim) -> Ids | None:
        """Return one array of units for a whole dimension; None if its length depends on the rows.

        Of two axes with units, multiplied, only the one with more of them stays free.
        """
        length = length_of(dim)
        if not isinstance(length, int):
            return None
        free = sorted(labelled(dim), key=lambda atom: -len(np.unique(atom.ids)))  # type: ignore[arg-type]
        if not free:
            ids = np.repeat(self.fresh(1), length)
            self.frozen.append((ids[:1], f"joined with {why_whole(dim)}"))
            return ids
        for atom in free[1:]:
            self.freeze((atom,), "each of its units is spread over all units of another axis")
        return spread(dim, free[0])

    def join(self, dims: list[Dim], why: str) -> Dim:
        """Return dimensions laid end to end."""
        length = sum(length_of(dim) for dim in dims)
        arrays = [self.flat(dim) for dim in dims] if any(labelled(dim) for dim in dims) else []
        if not arrays or any(array is None for array in arrays):
            for dim in dims:
                self.freeze(dim, f"joined end to end with {why}")
            return whole(length, why)
        return (Atom(length, np.concatenate([array for array in arrays if array is not None])),)

    def cut_out(self, dim: Dim, start: int, stop: int, node: str) -> Dim:
        """Return the places `start` to `stop` of a dimension, as a piece that no cut may empty."""
        ids = self.flat(dim) if labelled(dim) else None
        if ids is None:
            self.freeze(dim, "a part of it is taken, and its length depends on the number of rows")
            return whole(stop - start, why_whole(dim))
        if stop - start == 1:
            self.frozen.append((ids[start:stop], "a single value is read by its place"))
            return ()
        self.axes.append(Axis(node, -1, ids[start:stop]))
        return (Atom(stop - start, ids[start:stop]),)

    def reshape(self, value: Value, shape: tuple[Size, ...], node: str) -> Value:
        """Return a tensor in another shape, its elements in the same order."""
        rest = [atom for dim in value for atom in dim][::-1]
        dims: list[Dim] = []
        splits = 0
        for size in shape:
            dim: list[Atom] = []
            while size != 1:
                if not rest:
                    return self._lost(value, shape)
                atom = rest.pop()
                if (left := divide(size, atom.size)) is not None:
                    dim.append(atom)
                    size = left
                elif (inner := divide(atom.size, size)) is not None:
                    first, second = self._split(atom, size, inner, (node, splits))
                    splits += 1
                    dim.append(first)
                    rest.append(second)
                    size = 1
                else:
                    merged = self._merged((atom, rest.pop())) if rest else None
                    if merged is None:
                        return self._lost(value, shape)
                    rest.append(merged)
            dims.append(tuple(dim))
        return tuple(dims)

    def _merged(self, dim: Dim) -> Atom | None:
        if not labelled(dim):
            return Atom(length_of(dim), None, why_whole(dim))
        ids = self.flat(dim)
        return None if ids is None else Atom(len(ids), ids)

    def _lost(self, value: Value, shape: tuple[Size, ...]) -> Value:
        why = "a reshape that mixes units with a length that depends on the number of rows"
        self.freeze(value, why)
        return fixed(shape, f"the result of {why}")

    def _split(self, atom: Atom, outer: Size, inner: Size, key: Split) -> tuple[Atom, Atom]:
        """Split an axis in two; unless its units say which part they lie along, `choices` does."""
        if atom.ids is None or not isinstance(outer, int) or not isinstance(inner, int):
            self.freeze((atom,), "split into parts whose length depends on the number of rows")
            return Atom(outer, None, atom.why), Atom(inner, None, atom.why)
        grid = atom.ids.reshape(outer, inner)
        rows, columns = Atom(outer, grid[:, 0].copy()), Atom(inner, grid[0].copy())
        if (grid == grid[:, :1]).all():
            return rows, Atom(inner, None, "the inside of a unit")
        if (grid == grid[:1]).all():
            return Atom(outer, None, "repeats of a unit"), columns
        self.splits[key] = atom.ids
        if self.choices.get(key, 0) == 0:
            self.unite(grid[:, 1:].ravel(), np.repeat(grid[:, 0], inner - 1))
            return rows, Atom(inner, None, f"the {inner} values of a head")
        self.unite(grid[1:].ravel(), np.tile(grid[0], outer - 1))
        return Atom(outer, None, f"the {outer} parts of an axis"), columns

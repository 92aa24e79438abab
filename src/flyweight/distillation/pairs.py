"""New pairs of a request and a candidate, which the teacher scores: rows that nobody has labelled and it never learned.

Within a batch the request fields of some rows are put beside the candidate fields of others. A candidate field may
depend on the request too (household x product, the price in that store): then taking it along from the other row would
make a row that cannot be. Such a field is found by looking: some request field and some candidate field together
determine it and the candidate field alone does not. It is looked up for the new pair in what training has; a pair that
training never had gets the id that such pairs have in validation, if they all have the same (the unknown id). Where
they do not, the new row is dropped. Fields that nothing determines (a display location, a sampled price) move with the
candidate. What cannot be told from data: a cross whose pairs seldom repeat, and histories: they stay with their role.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from flyweight.errors import InputError
from flyweight.task.batches import Batch
from flyweight.task.task import Task

#: Rows looked at to find out what depends on what, rows that are remembered, and how often a pair must have been seen
#: again, always with the same value, for the value to be taken as determined.
LOOKED_AT, REMEMBERED, EVIDENCE = 150_000, 5_000_000, 200
#: Unseen pairs in validation that must agree for their common value to be taken as the unknown one.
UNSEEN = 20
Columns = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Cross:
    """A candidate field that a request field and a candidate field determine.

    Args:
        name, request, candidate: the field and the two that determine it.
        width: ids of the candidate field, so that a pair is `request * width + candidate`.
        keys: pairs that training has, sorted, (pairs,) int64.
        values: the field's value for each, (pairs,).
        unknown: its value for all other pairs; None where they have no common one.
    """

    name: str
    request: str
    candidate: str
    width: int
    keys: Tensor
    values: Tensor
    unknown: float | None

    def look_up(self, columns: Columns) -> tuple[Tensor, Tensor]:
        """Return the field for each row, and whether it is known, both (rows,)."""
        key = columns[self.request].long() * self.width + columns[self.candidate].long()
        at = torch.searchsorted(self.keys, key).clamp_max(len(self.keys) - 1)
        seen = self.keys[at] == key
        if self.unknown is None:
            return self.values[at], seen
        other = torch.full_like(self.values[at], self.unknown)
        return torch.where(seen, self.values[at], other), torch.ones_like(seen)


@dataclass(frozen=True)
class Recombination:
    """How rows of a batch are put together anew: which fields go with the request, and which must be looked up."""

    request: tuple[str, ...]
    candidate: tuple[str, ...]
    crosses: tuple[Cross, ...]

    def draw(self, inputs: Columns, count: int, generator: torch.Generator) -> tuple[Columns, Tensor]:
        """Return up to `count` new rows of a batch's fields, and the row that each has its request from."""
        rows = len(next(iter(inputs.values())))
        count = count if rows > 1 else 0
        one = torch.randint(rows, (count,), generator=generator)
        other = (one + torch.randint(1, max(rows, 2), (count,), generator=generator)) % rows
        made = {name: inputs[name][one] for name in self.request}
        made |= {name: inputs[name][other] for name in self.candidate}
        known = torch.ones(count, dtype=torch.bool)
        for cross in self.crosses:
            made[cross.name], there = cross.look_up(made)
            known &= there
        return {name: made[name][known] for name in inputs}, one[known]


def find_recombination(task: Task) -> Recombination:
    """Find out from the data how rows may be put together anew.

    Raises:
        InputError: the task has no request fields or no candidate fields, or its batches are no rows.
    """
    request = tuple(name for name, one in task.inputs.items() if one.role == "request")
    candidate = tuple(name for name, one in task.inputs.items() if one.role == "candidate")
    if not request or not candidate or len(request) + len(candidate) < len(task.inputs):
        raise InputError(
            "resampled= makes new pairs of a request and a candidate, so every input must be a Field of role "
            f'"request" or "candidate"; seen {", ".join(f"{name}: {one.role}" for name, one in task.inputs.items())}.'
        )
    train, whole = _columns(task.batches("train"), task)
    found = _find_crosses(train, request, candidate, task)
    validation, _ = _columns(task.batches("validation"), task)
    crosses = tuple(_cross(name, *pair, train, validation, task, whole=whole) for name, pair in found.items())
    return Recombination(request, tuple(name for name in candidate if name not in found), crosses)


def _columns(batches: Iterable[Batch], task: Task) -> tuple[Columns, bool]:
    """Return the fields of one value a row, up to REMEMBERED rows, and whether that is all; ids as int32."""
    parts: dict[str, list[Tensor]] = {}
    rows, whole = 0, True
    for inputs, target, _ in batches:
        if any(len(value) != len(target) for value in inputs.values()):
            raise InputError("resampled= needs batches of rows; an input here is longer or shorter than the target.")
        if rows >= REMEMBERED:
            whole = False
            break
        rows += len(target)
        for name, value in inputs.items():
            if value.ndim == 1:
                parts.setdefault(name, []).append(value.int() if task.inputs[name].is_id else value)
    return {name: torch.cat(values) for name, values in parts.items()}, whole


def _find_crosses(
    train: Columns, request: tuple[str, ...], candidate: tuple[str, ...], task: Task
) -> dict[str, tuple[str, str]]:
    """Return the crossed fields with the request and the candidate field that determine each: the coarsest pair."""
    sample = {name: values[:LOOKED_AT] for name, values in train.items()}
    sample |= {name: values.long() for name, values in sample.items() if task.inputs[name].is_id}
    asked = [name for name in request if name in sample and task.inputs[name].is_id]
    items = [name for name in candidate if name in sample and task.inputs[name].is_id]
    fields = [name for name in candidate if name in sample]
    best: dict[str, tuple[int, str, str]] = {}
    for item in items:
        alone = _determined(sample[item], {name: sample[name] for name in fields})[0]
        open_fields = [name for name in fields if name != item and name not in alone]
        for asker in asked:
            key = sample[asker] * _width(task, item) + sample[item]
            found, pairs = _determined(key, {name: sample[name] for name in open_fields})
            for name in found:
                best[name] = min(best.get(name, (pairs, asker, item)), (pairs, asker, item))
    return {name: (asker, item) for name, (_, asker, item) in best.items()}


def _determined(key: Tensor, fields: Columns) -> tuple[list[str], int]:
    """Return the fields that always have the same value where the key has, and how many different keys there are."""
    ordered, order = torch.sort(key)
    again = ordered[1:] == ordered[:-1]
    repeats = int(again.sum())
    if repeats < EVIDENCE:
        return [], len(key) - repeats
    first, second = order[:-1][again], order[1:][again]
    same = [name for name, values in fields.items() if bool((values[first] == values[second]).all())]
    return same, len(key) - repeats


def _cross(
    name: str, asker: str, item: str, train: Columns, validation: Columns, task: Task, *, whole: bool
) -> Cross:
    width = _width(task, item)
    keys, order = torch.sort(train[asker].long() * width + train[item].long())
    first = torch.ones_like(keys, dtype=torch.bool)
    first[1:] = keys[1:] != keys[:-1]
    values = train[name][order[first]]
    cross = Cross(name, asker, item, width, keys[first], values.long() if task.inputs[name].is_id else values, None)
    other = validation[name][~cross.look_up(validation)[1]]
    agreed = whole and len(other) >= UNSEEN and bool((other == other[0]).all())
    unknown = other[0].item() if agreed else None
    return Cross(name, asker, item, width, cross.keys, cross.values, unknown)


def _width(task: Task, name: str) -> int:
    return task.inputs[name].rows or 1

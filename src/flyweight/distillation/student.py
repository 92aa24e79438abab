"""A thinner copy of a model: fewer units a layer, fewer blocks, its weights those of the teacher that stay."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from flyweight.distillation.depth import copy_of, leave_out_blocks
from flyweight.errors import InputError
from flyweight.graph.coupled.groups import Group
from flyweight.graph.coupling import find_groups
from flyweight.graph.shrink import try_shrink
from flyweight.graph.trace import trace
from flyweight.graph.traced import TracedModel, tensor_of
from flyweight.task.change import Skipped


@dataclass(frozen=True)
class Thinner:
    """How much thinner a student is than the model it is derived from.

    Args:
        width: share of the units of each layer (neurons, channels, heads) that stay, in (0, 1].
        depth: share of the repeated blocks that stay, in (0, 1].

    Raises:
        InputError: a share is outside (0, 1], or both are 1.

    Example:
        >>> Thinner(width=0.25)
        Thinner(width=0.25, depth=1.0)
    """

    width: float = 0.5
    depth: float = 1.0

    def __post_init__(self) -> None:
        for name in ("width", "depth"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 1:
                raise InputError(f"Thinner {name} must be a share in (0, 1]; seen {value!r}.")
        if self.width == self.depth == 1:
            raise InputError("Thinner(width=1, depth=1) is the model itself; give a share below 1.")


@dataclass(frozen=True, eq=False)
class Student:
    """A student and how it came about.

    Args:
        model: its weights are the teacher's where they were kept.
        done: one plain dict for each layer or block that is thinner.
        skipped: what is as it was, and why.
    """

    model: nn.Module
    done: tuple[dict[str, Any], ...] = ()
    skipped: tuple[Skipped, ...] = ()


def make_student(model: nn.Module, thinner: Thinner, inputs: dict[str, Tensor]) -> Student:
    """Return a thinner copy of a model.

    Units are kept by the size of their weights: where training is short, a better start than fresh weights or units by
    chance (docs/distillation.md).

    Args:
        model: left as it is.
        thinner: how much thinner.
        inputs: a batch of two rows or more, by the names of the model's arguments.

    Raises:
        ExportError: its width cannot be changed because the model cannot be traced.
        InputError: nothing in it can be made thinner.
    """
    done: list[dict[str, Any]] = []
    skipped: list[Skipped] = []
    student = copy_of(model)
    if thinner.depth < 1:
        shallower = leave_out_blocks(student, inputs, thinner.depth)
        student = shallower.model
        done += [{"what": "block left out", "name": name} for name in shallower.left_out]
        skipped += shallower.skipped
    if thinner.width < 1:
        student, widths, left = _narrow(student, thinner.width, inputs)
        done += widths
        skipped += left
    if not done:
        why = "; ".join(str(one) for one in skipped[:3]) or "it has no repeated blocks and no layers that can be cut"
        raise InputError(f"No thinner student can be derived from the model: {why}. Give one as student=.")
    return Student(student, tuple(done), tuple(skipped))


def _narrow(
    model: nn.Module, width: float, inputs: dict[str, Tensor]
) -> tuple[nn.Module, list[dict[str, Any]], tuple[Skipped, ...]]:
    traced = trace(model, inputs)
    groups, skipped = find_groups(traced)
    thinned = {group.name: group for group in groups if group.kind != "embedding"}  # tables stay as they are
    counts = {name: max(1, round(width * len(group.units))) for name, group in thinned.items()}
    keep = {name: strongest(traced, group, counts[name]) for name, group in thinned.items()}
    shrunk = try_shrink(traced, keep)
    done: list[dict[str, Any]] = [
        {"what": thinned[name].kind, "name": name, "before": len(thinned[name].units), "after": len(kept)}
        for name, kept in shrunk.kept.items()
    ]
    left = (Skipped(one.what, one.why, "distill") for one in (*skipped, *shrunk.skipped))
    return shrunk.model, done, tuple(left)


def strongest(traced: TracedModel, group: Group, count: int) -> tuple[int, ...]:
    """Return the units of the largest weights, in order: the sum of squares over all that goes with a unit."""
    sizes = torch.zeros(len(group.units), dtype=torch.float64)
    for number, unit in enumerate(group.units):
        for place in unit.places:
            tensor = tensor_of(traced.body, place.tensor).detach()
            if tensor.is_floating_point() and tensor.ndim > 1:
                sizes[number] += tensor.index_select(place.dim, torch.tensor(place.index)).double().square().sum()
    return tuple(sorted(torch.topk(sizes, count).indices.tolist()))

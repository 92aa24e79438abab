"""Cutting units out of a model for good: smaller weights, and a graph that knows it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, fx, nn

from flyweight.graph.coupled.grouping import Grouping, grouping
from flyweight.graph.coupled.predicted_macs import macs_of
from flyweight.graph.coupled.proof import fault, replace, samples, zeroed
from flyweight.graph.coupled.surgery import Cut, correct, reshape
from flyweight.graph.trace import trace
from flyweight.graph.traced import TracedModel, clean, tensor_of
from flyweight.task.change import Skipped

__all__ = ["Shrunk", "macs_of", "shrink", "silenced", "try_shrink"]

Keep = Mapping[str, Sequence[int]]


@dataclass(frozen=True, eq=False)
class Shrunk:
    """A smaller model.

    Args:
        model: it.
        kept: the units that stayed, of each group that was cut.
        skipped: groups that were left whole after all, each with what went wrong.
    """

    model: TracedModel
    kept: dict[str, tuple[int, ...]]
    skipped: tuple[Skipped, ...]


def shrink(traced: TracedModel, keep: Keep, inputs: Mapping[str, Tensor] | None = None) -> TracedModel:
    """Return a smaller model in which only these units of the named groups are left; `traced` stays as it is.

    Args:
        traced: see `find_groups` for its groups.
        keep: by name of a group, the units that stay; groups that are not named stay whole.
        inputs: a batch to check the result on; made-up numbers and ids if there is none.

    Raises:
        InputError: an unknown group, a unit that it does not have, none left; the model does not run on made-up inputs.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> small = shrink(trace(model, {"input": torch.zeros(2, 4)}), {"0": [0, 2]})
        >>> {name: tuple(weight.shape) for name, weight in small.body.named_parameters()}
        {'0.weight': (2, 4), '0.bias': (2,), '2.weight': (2, 2), '2.bias': (2,)}
    """
    return try_shrink(traced, keep, inputs).model


def try_shrink(traced: TracedModel, keep: Keep, inputs: Mapping[str, Tensor] | None = None) -> Shrunk:
    """Return a smaller model as `shrink` does, with what was kept and which groups were left whole after all.

    Every smaller model is run, on two numbers of rows if no inputs are given, and, where no norm takes a mean over what
    was cut, compared with the model in which the cut units are zero. If one fails, its groups are tried one by one, and
    what fails is left.
    """
    found = grouping(traced)
    wanted = {name: tuple(sorted(set(units))) for name, units in keep.items()}
    batches = samples(traced) if inputs is None else [dict(inputs)]
    model, why = _attempt(traced, found, wanted, batches)
    kept: dict[str, tuple[int, ...]] = wanted
    skipped: list[Skipped] = []
    if why:
        kept = {}
        for name, units in wanted.items():
            tried, why = _attempt(traced, found, {**kept, name: units}, batches)
            if tried is None:
                skipped.append(Skipped(name, f"left whole: {why}", "prune"))
            else:
                model, kept = tried, {**kept, name: units}
    return Shrunk(model or trace(traced, {}), kept, tuple(skipped))


def silenced(traced: TracedModel, keep: Keep) -> TracedModel:
    """Return the model, as large as it was, with all weights of units that do not stay set to zero.

    What `shrink` returns gives the same outputs, except for norms that take a mean over what was cut.
    """
    found = grouping(traced)
    return zeroed(traced, found, found.stays(keep))


def _attempt(
    traced: TracedModel, found: Grouping, keep: Keep, batches: list[dict[str, Tensor]]
) -> tuple[TracedModel | None, str]:
    stays = found.stays(keep)
    try:
        model = _smaller(traced, found, stays)
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        return None, f"the smaller model cannot be built: {str(error).splitlines()[0]}"
    why = fault(traced, model, found, stays, batches)
    return (None, why) if why else (model, "")


def _smaller(traced: TracedModel, found: Grouping, stays: npt.NDArray[np.bool_]) -> TracedModel:
    model = trace(traced, {})
    cut = Cut(found.analysis.flow, stays)
    for old, new in zip(list(traced.body.graph.nodes), list(model.body.graph.nodes), strict=True):
        correct(cut, old, new)
        reshape(cut, old, new)
    replace(traced, model, _tensors(traced, found, stays))
    for node in model.body.graph.find_nodes(op="call_module"):
        if _is_table(model.body, node):
            module: Any = model.body.get_submodule(str(node.target))
            module.embedding_dim = module.weight.shape[1]
    clean(model.body)
    return model


def _tensors(traced: TracedModel, found: Grouping, stays: npt.NDArray[np.bool_]) -> dict[str, Tensor]:
    """Return what is left of each tensor that loses something."""
    tensors: dict[str, Tensor] = {}
    for axis in found.analysis.flow.labels.axes:
        left = stays[axis.ids]
        if axis.dim >= 0 and not left.all():
            tensor = tensors.get(axis.tensor, tensor_of(traced.body, axis.tensor).detach())
            index = torch.from_numpy(np.flatnonzero(left)).to(tensor.device)
            tensors[axis.tensor] = tensor.index_select(axis.dim, index)
    return tensors


def _is_table(body: fx.GraphModule, node: fx.Node) -> bool:
    return isinstance(body.get_submodule(str(node.target)), (nn.Embedding, nn.EmbeddingBag))

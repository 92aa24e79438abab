"""Masks over single weights: which stay, by saliency, freely or n of every m along a row; put on and kept on."""

import copy
import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from flyweight.errors import InputError
from flyweight.graph.traced import TracedModel, tensor_of
from flyweight.pruning.activations import weight_readers

Masks = dict[str, Tensor]


def prunable_weights(traced: TracedModel) -> tuple[str, ...]:
    """Return the names of the weights of linear and convolution layers."""
    return tuple(
        name for name in weight_readers(traced) if isinstance(tensor_of(traced.body, name), nn.Parameter)
    )


def parse_pattern(pattern: str) -> tuple[int, int]:
    """Return n and m of a pattern "n:m", n of every m weights of a row stay.

    Raises:
        InputError: it is no such pattern.

    Example:
        >>> parse_pattern("2:4")
        (2, 4)
    """
    found = re.fullmatch(r"(\d+):(\d+)", pattern) if isinstance(pattern, str) else None
    if found is None or not 0 < int(found[1]) < int(found[2]):
        raise InputError(f'pattern must be "n:m" with 0 < n < m, as in "2:4"; seen {pattern!r}.')
    return int(found[1]), int(found[2])


def free_masks(saliency: Mapping[str, Tensor], ratio: float, *, scope: str = "global") -> Masks:
    """Return masks that take away a share of all weights, those that matter least.

    At least one weight of each layer stays.

    Args:
        saliency: by the weights' names.
        ratio: the share that goes.
        scope: "global" ranks all weights together, "layer" takes the share of every layer.

    Example:
        >>> free_masks({"w": torch.tensor([[3.0, 1.0], [2.0, 4.0]])}, 0.5)["w"].tolist()
        [[True, False], [False, True]]
    """
    if scope == "layer":
        return {name: _largest(values, round(values.numel() * (1 - ratio))) for name, values in saliency.items()}
    joined = torch.cat([values.reshape(-1) for values in saliency.values()])
    kept = _largest(joined, round(len(joined) * (1 - ratio)))
    sizes = [values.numel() for values in saliency.values()]
    parts = zip(saliency.items(), torch.split(kept, sizes), strict=True)
    return {name: part.reshape(values.shape) | _largest(values, 1) for (name, values), part in parts}


def pattern_masks(saliency: Mapping[str, Tensor], pattern: str) -> tuple[Masks, dict[str, str]]:
    """Return masks that keep the n that matter most of every m neighbours in a row's inputs, and why others have none.

    The inputs of a convolution's filter are its channels at one position, as engines with such kernels read them.
    """
    n, m = parse_pattern(pattern)
    masks, left = {}, {}
    for name, values in saliency.items():
        if values.shape[1] % m:
            left[name] = f"its {values.shape[1]} inputs are no multiple of {m}"
            continue
        inputs_last = values.movedim(1, -1)
        runs = inputs_last.reshape(-1, m)
        chosen = torch.zeros_like(runs, dtype=torch.bool).scatter(1, runs.topk(n, 1).indices, True)
        masks[name] = chosen.reshape(inputs_last.shape).movedim(-1, 1).contiguous()
    return masks, left


def with_masks(traced: TracedModel, masks: Mapping[str, Tensor]) -> TracedModel:
    """Return a copy of a traced model whose masked weights are 0."""
    changed = copy.deepcopy(traced)
    keep_masks(masks)(changed)
    return changed


def keep_masks(masks: Mapping[str, Tensor]) -> Callable[[nn.Module], None]:
    """Return what puts masks on again after each step of a training, in place."""

    def put_on(model: nn.Module) -> None:
        assert isinstance(model, TracedModel)
        with torch.no_grad():
            for name, mask in masks.items():
                weight = tensor_of(model.body, name)
                weight.mul_(mask.to(weight.device))

    return put_on


def density(masks: Mapping[str, Tensor]) -> float:
    """Return the share of weights that stay."""
    return sum(int(mask.sum()) for mask in masks.values()) / max(1, sum(mask.numel() for mask in masks.values()))


def _largest(values: Tensor, count: int) -> Tensor:
    flat = values.reshape(-1)
    chosen = torch.zeros(len(flat), dtype=torch.bool)
    chosen[flat.topk(max(1, count)).indices] = True
    return chosen.reshape(values.shape)

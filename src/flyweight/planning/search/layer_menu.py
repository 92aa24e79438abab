"""What each layer may become: whole or of low rank, in float32 or int8, with bytes, work and time of each."""

import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from flyweight.pruning.ranks import Split, split_weight
from flyweight.task.scores import call_model, evaluating
from flyweight.task.task import Task

#: Ranks on the menu, as far as they save work.
RANKS = (1, 2, 4, 8, 16, 32, 64)
#: Rows whose inputs a layer's directions are weighed by, and calls that a time is the median of.
WEIGHED_ROWS, CALLS = 8_192, 9
KINDS = (nn.Linear, nn.Conv1d, nn.Conv2d)


@dataclass(frozen=True, eq=False)
class LayerOption:
    """One thing that a layer may become.

    Args:
        words: "whole", "rank 16", "rank 16 int8", ...
        rank: None for whole; bits: of a weight, 32 or 8.
        bytes: of its weights; macs: of one row; milliseconds: of a request in PyTorch, on its own.
        change: by how much its weight changes, of the weight's shape; None for not at all.
    """

    words: str
    rank: int | None
    bits: int
    bytes: int
    macs: int
    milliseconds: float
    change: Tensor | None


@dataclass(frozen=True, eq=False)
class LayerItem:
    """A layer and its options, the first of which leaves it as it is."""

    name: str
    options: tuple[LayerOption, ...]


@dataclass(eq=False)
class _Seen:
    """What a layer reads: one batch as it came, and sums of squares over all."""

    module: nn.Module
    inputs: Tensor
    calls: int = 0


def layer_menu(task: Task, model: nn.Module, request: dict[str, Tensor]) -> tuple[LayerItem, ...]:
    """Return the layers that run once for a call, with their options.

    Args:
        model: whose layers they are, the task's own or one whose tables are coded.
        request: a call whose layers are timed.
    """
    rows = max(len(value) for value in request.values())
    seen = _watch(task, model)
    timed = _inputs(model, request, seen)
    return tuple(
        LayerItem(name, _options(one.module, one.inputs, timed.get(name), rows))
        for name, one in seen.items()
        if one.calls == 1
    )


def rounded(weight: Tensor) -> Tensor:
    """Return a weight as int8 with a scale for each output holds it, symmetric, in float32."""
    scale = weight.detach().flatten(1).abs().amax(1).clamp_min(1e-12) / 127
    shape = (-1, *[1] * (weight.ndim - 1))
    return (weight / scale.view(shape)).round().clamp(-127, 127) * scale.view(shape)


def _watch(task: Task, model: nn.Module) -> dict[str, _Seen]:
    """Run a batch and note what each layer reads."""
    inputs, target, _ = next(task.batches("validation"))
    whole = any(len(value) != len(target) for value in inputs.values())
    few = inputs if whole else {name: value[:WEIGHED_ROWS] for name, value in inputs.items()}
    rows = len(target) if whole else len(target[:WEIGHED_ROWS])
    return _called(model, few, rows)


def _called(model: nn.Module, inputs: dict[str, Tensor], rows: int) -> dict[str, _Seen]:
    seen: dict[str, _Seen] = {}
    handles = []
    for name, module in model.named_modules():
        if type(module) not in KINDS:
            continue

        def note(one: nn.Module, given: tuple[Tensor, ...], _: Tensor, name: str = name) -> None:
            known = seen.setdefault(name, _Seen(one, given[0].detach()))
            known.calls += 1

        handles.append(module.register_forward_hook(note))
    try:
        with evaluating(model), torch.no_grad():
            call_model(model, inputs, rows)
    finally:
        for handle in handles:
            handle.remove()
    return {name: one for name, one in seen.items() if len(one.inputs) == rows}


def _inputs(model: nn.Module, request: dict[str, Tensor], seen: dict[str, _Seen]) -> dict[str, Tensor]:
    rows = max(len(value) for value in request.values())
    return {name: one.inputs for name, one in _called(model, request, rows).items() if name in seen}


def _options(module: nn.Module, inputs: Tensor, timed: Tensor | None, rows: int) -> tuple[LayerOption, ...]:
    weight = module.weight.detach().float()  # type: ignore[operator]
    assert isinstance(weight, Tensor)
    places = _places(module, inputs)
    milliseconds = _milliseconds(module, timed)
    whole = LayerOption("whole", None, 32, 4 * weight.numel(), places * weight.numel(), milliseconds, None)
    eight = LayerOption(
        "int8", None, 8, weight.numel(), whole.macs, milliseconds, rounded(weight) - weight
    )
    found = [whole, eight]
    if isinstance(module, nn.Linear):
        split = split_weight(weight, _moments(inputs), torch.zeros(len(weight)), places)
        for rank in RANKS:
            if split.cost(min(rank, len(split.damage) - 1)) < 0.8 * whole.macs and rank < len(split.damage) - 1:
                found += _of_rank(weight, split, rank, milliseconds * split.cost(rank) / whole.macs)
    return tuple(found)


def _of_rank(weight: Tensor, split: Split, rank: int, milliseconds: float) -> list[LayerOption]:
    inner, outer = split.halves(rank)
    numbers, macs = inner.numel() + outer.numel(), split.cost(rank)
    low = outer @ inner
    both = rounded(outer) @ rounded(inner)
    return [
        LayerOption(f"rank {rank}", rank, 32, 4 * numbers, macs, milliseconds, low - weight),
        LayerOption(f"rank {rank} int8", rank, 8, numbers, macs, milliseconds, both - weight),
    ]


def _moments(inputs: Tensor) -> Tensor:
    flat = inputs.reshape(-1, inputs.shape[-1]).float()
    return flat.T @ flat / len(flat)


def _places(module: nn.Module, inputs: Tensor) -> int:
    """Return how often a layer's weights are used for one row."""
    with torch.no_grad():
        out = module(inputs[:1])
    weight = module.weight
    assert isinstance(weight, Tensor)
    return max(1, int(out.numel()) // int(weight.shape[0]))


def _milliseconds(module: nn.Module, inputs: Tensor | None) -> float:
    """Return the median time of a layer on what a request gives it; 0 where the request does not reach it."""
    if inputs is None:
        return 0.0
    taken = []
    with torch.inference_mode():
        for _ in range(CALLS + 2):
            begin = time.perf_counter()
            module(inputs)
            taken.append(1000 * (time.perf_counter() - begin))
    return sorted(taken[2:])[CALLS // 2]

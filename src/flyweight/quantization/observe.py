"""What flows through a traced model on calibration data: histograms of tensors, and each channel's size and mean."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from flyweight.errors import InputError
from flyweight.graph.traced import TracedModel, module_of
from flyweight.quantization.histogram import Histogram
from flyweight.task.scores import evaluating
from flyweight.task.task import Task

#: Rows whose activations are looked at, unless told otherwise.
ROWS = 2_048
#: Batches of the training data that the rows are drawn from.
_LOOKED_AT = 64
Inputs = dict[str, Tensor]


@dataclass(eq=False)
class Seen:
    """What was seen of one tensor.

    Args:
        histogram: of all its numbers.
        largest: the largest magnitude of each channel, (channels,); one channel where they were not told apart.
        total: sum of each channel, (channels,) float64.
        each: how many numbers a channel had.
    """

    histogram: Histogram
    largest: Tensor
    total: Tensor
    each: int = 0

    @property
    def mean(self) -> Tensor:
        """Mean of each channel, (channels,) float32."""
        return (self.total / max(self.each, 1)).float()


def calibration(task: Task, rows: int = ROWS, seed: int = 0) -> list[Inputs]:
    """Return inputs of about so many training rows: whole batches, drawn by seed from the first 64.

    Raises:
        InputError: the train split is empty.
    """
    found: list[tuple[Inputs, int]] = []
    for inputs, target, _ in task.batches("train"):
        found.append((inputs, len(target)))
        if len(found) == _LOOKED_AT:
            break
    if not found:
        raise InputError("The train split is empty; calibration needs at least one batch.")
    chosen: list[Inputs] = []
    for place in np.random.default_rng(seed).permutation(len(found)):
        inputs, size = found[place]
        short = size > rows and all(len(value) == size for value in inputs.values())
        chosen.append({name: value[:rows] for name, value in inputs.items()} if short else inputs)
        rows -= size
        if rows <= 0:
            break
    return chosen


def observe(traced: TracedModel, batches: Iterable[Inputs], channels: Mapping[str, int | None]) -> dict[str, Seen]:
    """Run batches through a traced model and look at some of its tensors.

    Args:
        traced: run in evaluation mode.
        batches: inputs by name.
        channels: for each node to look at, by name, the dimension of its channels; None where they do not matter.

    Returns:
        What was seen of each node.

    Raises:
        InputError: a tensor holds NaN or infinite values; names the layer and says how many.
    """
    watch = _Watch(traced, channels)
    with evaluating(traced), torch.no_grad():
        for inputs in batches:
            watch.run(*(inputs[name] for name in traced.names))
    for name, seen in watch.seen.items():
        if seen.histogram.bad:
            where = module_of(watch.nodes[name]) or name
            raise InputError(
                f"The output of {name!r} in module {where!r} holds {seen.histogram.bad:,} NaN or infinite values of "
                f"{seen.histogram.count + seen.histogram.bad:,} on calibration data; the model overflows there. "
                "Mend that layer before it is quantised."
            )
    return watch.seen


class _Watch(fx.Interpreter):
    """Runs a graph node by node and looks at the results."""

    def __init__(self, traced: TracedModel, channels: Mapping[str, int | None]) -> None:
        super().__init__(traced.body)
        self.channels = channels
        self.seen: dict[str, Seen] = {}
        self.nodes = {node.name: node for node in traced.body.graph.nodes if node.name in channels}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.name in self.channels and isinstance(value, Tensor) and value.is_floating_point():
            self._look(n.name, value, self.channels[n.name])
        return value

    def _look(self, name: str, value: Tensor, dim: int | None) -> None:
        by_channel = value.reshape(1, -1) if dim is None else value.movedim(dim, 0).reshape(value.shape[dim], -1)
        seen = self.seen.get(name)
        if seen is None:
            none = torch.zeros(len(by_channel))
            seen = self.seen[name] = Seen(Histogram(), none, none.double())
        seen.histogram.add(value)
        if by_channel.numel():
            seen.largest = torch.maximum(seen.largest, by_channel.abs().amax(1))
            seen.total = seen.total + by_channel.sum(1, dtype=torch.float64)
            seen.each += by_channel.shape[1]


def unseen(names: Sequence[str], seen: Mapping[str, Seen]) -> tuple[str, ...]:
    """Return the nodes that no number passed through on calibration data."""
    return tuple(name for name in names if name not in seen or not seen[name].histogram.count)

"""Range smoothing: what is hard to round in activations is moved into the weights, channel by channel.

Xiao et al. 2023, "SmoothQuant" (arXiv:2211.10438), equation 4: with `s_j = max|X_j|^a / max|W_j|^(1 - a)` the layer
reads `X_j / s_j` and its weights are `s_j W_j`. Exact, and only where the factors go into what comes before.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

from flyweight.graph.traced import TracedModel
from flyweight.quantization.observe import Inputs, observe
from flyweight.quantization.rescale import rescale
from flyweight.quantization.sites import STEP, Site, channels_read
from flyweight.task.change import Skipped

#: Factors stay within this of 1, so that dead channels do no harm.
_MOST = 1e4


def smooth(
    traced: TracedModel, sites: Sequence[Site], rows: Sequence[Inputs], strength: float
) -> tuple[list[dict[str, Any]], list[Skipped]]:
    """Smooth the ranges of what integer layers read, in place.

    Args:
        traced: a copy that may be written to.
        sites: the layers that will run in integers.
        rows: calibration inputs.
        strength: a, from 0 (all difficulty stays in the activations) to 1 (all goes to the weights).

    Returns:
        A record for each tensor that was smoothed, and the layers that were left, with the reason.
    """
    readers: dict[str, list[Site]] = {}
    for site in sites:
        readers.setdefault(site.input, []).append(site)
    seen = observe(traced, rows, {name: channels_read(layers[0]) for name, layers in readers.items()})
    nodes: dict[str, fx.Node] = {node.name: node for node in traced.body.graph.nodes}
    done: list[dict[str, Any]] = []
    left: list[Skipped] = []
    for name, layers in readers.items():
        how = None
        if name in seen and len({channels_read(site) for site in layers}) == 1:
            largest = [_largest(traced, site) for site in layers]
            if all(len(one) == len(seen[name].largest) for one in largest):
                factors = 1 / smoothing(seen[name].largest, torch.stack(largest).amax(0), strength)
                how = rescale(traced, nodes[name], layers, factors)
        if how is None:
            why = "its ranges were not smoothed: nothing before it can take the factors exactly"
            left += [Skipped(site.name, why, STEP) for site in layers]
        else:
            done.append({"what": "smoothing", "layers": [site.name for site in layers], "strength": strength})
    return done, left


def smoothing(activation: Tensor, weight: Tensor, strength: float) -> Tensor:
    """Return `s = activation^a / weight^(1 - a)` for the largest magnitudes of each channel, (channels,).

    Channels in which nothing flows, or that nothing hears, keep 1. The factors are brought to a geometric mean of 1.

    Example:
        >>> smoothing(torch.tensor([16.0, 4.0]), torch.tensor([1.0, 1.0]), 0.5).tolist()
        [1.4142135381698608, 0.7071067690849304]
    """
    alive = (activation > 0) & (weight > 0)
    found = activation.clamp_min(1e-30) ** strength / weight.clamp_min(1e-30) ** (1 - strength)
    logs = torch.where(alive, found.log(), 0.0)
    centred = logs - logs.sum() / alive.sum().clamp_min(1)
    return torch.where(alive, centred.exp().clamp(1 / _MOST, _MOST), 1.0)


def _largest(traced: TracedModel, site: Site) -> Tensor:
    weight = site.tensor(traced).detach()
    return weight.movedim(site.in_axis, 0).flatten(1).abs().amax(1)

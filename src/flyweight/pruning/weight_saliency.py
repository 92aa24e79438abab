"""How much each single weight of linear and convolution layers matters, comparable between layers.

"taylor": the square of weight x gradient, averaged over pieces of calibration rows; "fisher" is the same number for a
single weight. "magnitude": a weight's share of the squares of its layer's weights that are no smaller (LAMP, Lee et al.
2021, arXiv 2010.07611, eq. 2), which lets layers of different scale compare. "activation": |weight| times the norm of
the feature it reads (Wanda, Sun et al. 2024, arXiv 2306.11695, eq. 1), then shared out as in LAMP.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from flyweight.graph.traced import TracedModel, tensor_of
from flyweight.pruning.activations import features_of, input_features, weight_readers
from flyweight.pruning.calibration import CALIBRATION_ROWS, calibration_pieces
from flyweight.pruning.gradients import feel_weights
from flyweight.pruning.saliency import check_saliency
from flyweight.task.progress import stage
from flyweight.task.task import Task


def weight_saliency(
    task: Task,
    traced: TracedModel,
    names: Sequence[str],
    saliency: str = "taylor",
    *,
    seed: int = 0,
    rows: int = CALIBRATION_ROWS,
) -> dict[str, Tensor]:
    """Return how much each weight matters, float32 of the weight's shape, by the weight's name; larger matters more.

    Args:
        traced: the model, left as it is.
        names: weights of linear and convolution layers.
        seed: of the calibration rows, and of "random".
        rows: how many train rows are looked at.

    Raises:
        InputError: the saliency is unknown, or needs a loss that cannot be computed.
    """
    check_saliency(saliency)
    weights = {name: tensor_of(traced.body, name).detach() for name in names}
    if saliency == "random":
        generator = torch.Generator().manual_seed(seed)
        drawn = {name: torch.rand(weight.shape, generator=generator) for name, weight in weights.items()}
        return {name: values * (weights[name] != 0) for name, values in drawn.items()}  # what is gone stays gone
    if saliency == "magnitude":
        return {name: lamp(weight.square()) for name, weight in weights.items()}
    pieces = calibration_pieces(task, seed=seed, rows=rows)
    with stage(f"Measuring {saliency} saliency", seconds=5.0):
        if saliency == "activation":
            norms = _feature_norms(traced, names, (inputs for inputs, _ in pieces))
            return {name: lamp(weight.square() * norms.get(name, 1.0)) for name, weight in weights.items()}
        totals = {name: torch.zeros_like(weight) for name, weight in weights.items()}
        count = 0
        for felt in feel_weights(task, traced, names, pieces, needed_by=saliency):
            count += 1
            for name, (value, gradient) in felt.weights.items():
                totals[name] += (value * gradient).square()
        return {name: total / max(count, 1) for name, total in totals.items()}


def lamp(squares: Tensor) -> Tensor:
    """Return each square divided by the sum of those that are no smaller; the largest gets 1.

    Example:
        >>> lamp(torch.tensor([4.0, 1.0, 5.0])).tolist()
        [0.4444444477558136, 0.10000000149011612, 1.0]
    """
    flat = squares.reshape(-1).double()
    ordered, order = flat.sort()
    above = ordered.flip(0).cumsum(0).flip(0)  # of each and all that are larger
    scores = torch.empty_like(flat)
    scores[order] = ordered / above.clamp_min(torch.finfo(torch.float64).tiny)
    return scores.float().reshape(squares.shape)


def _feature_norms(traced: TracedModel, names: Sequence[str], inputs: Iterable[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return the mean square of the features that each weight reads, shaped to meet the weight."""
    readers = weight_readers(traced)
    read = {name: readers[name] for name in names if name in readers and features_of(readers[name]) is not None}
    totals: dict[str, Tensor] = {}
    for seen in input_features(traced, set(read.values()), inputs, power=2):
        for name, node in read.items():
            totals[name] = totals.get(name, torch.zeros(1)) + seen[node]
    ranks = {name: tensor_of(traced.body, name).ndim for name in totals}
    return {name: total.float().view(1, -1, *[1] * (ranks[name] - 2)) for name, total in totals.items()}

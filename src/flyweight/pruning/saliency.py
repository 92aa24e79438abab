"""How much each unit matters: what the loss would feel if it were gone, or a cheaper guess.

"taylor": the square of the loss's first-order change, per piece of calibration rows, averaged (Molchanov et al. 2019,
arXiv 1906.10771, eq. 8). "fisher": mean squared gradient times squared weight, the diagonal second-order change (LeCun
et al. 1990; Theis et al. 2018). "magnitude": the weights' norm (Li et al. 2017). "activation": mean absolute value of
what the unit gives to the layers that read it. "random": the control that every saliency must beat.
"""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from flyweight.errors import InputError
from flyweight.graph.coupling import Group
from flyweight.graph.traced import TracedModel, tensor_of
from flyweight.pruning.activations import mean_activations
from flyweight.pruning.calibration import CALIBRATION_ROWS, calibration_pieces
from flyweight.pruning.gradients import Felt, feel_weights
from flyweight.pruning.unit_sums import Lane, lanes_of, sum_lane, tensors_of
from flyweight.task.progress import stage
from flyweight.task.task import Task

Lanes = dict[str, tuple[Lane, ...]]
SALIENCIES = ("taylor", "fisher", "magnitude", "activation", "random")
#: Saliencies that are an estimate of a change of the loss, so that units of different layers compare as they are.
ABSOLUTE = frozenset({"taylor", "fisher", "random"})


def check_saliency(name: str) -> None:
    """Refuse an unknown saliency.

    Raises:
        InputError: names the known ones.
    """
    if name not in SALIENCIES:
        raise InputError(f"Saliency {name!r} is unknown; use one of {', '.join(SALIENCIES)}.")


def unit_saliency(
    task: Task,
    traced: TracedModel,
    groups: Sequence[Group],
    saliency: str = "taylor",
    *,
    seed: int = 0,
    rows: int = CALIBRATION_ROWS,
) -> dict[str, Tensor]:
    """Return how much each unit matters, by group; larger matters more.

    Values of "taylor" and "fisher" are in squared units of loss and in units of loss, and compare between groups as
    they are; "magnitude" and "activation" are divided by their group's mean, which makes groups comparable in what is
    below their own average only.

    Args:
        traced: the model, left as it is.
        groups: of `graph.coupling.find_groups`.
        seed: of the calibration rows, and of "random".
        rows: how many train rows are looked at.

    Returns:
        Name of the group -> (units,) float64.

    Raises:
        InputError: the saliency is unknown, or needs a loss that cannot be computed.
    """
    check_saliency(saliency)
    lanes = {group.name: lanes_of(group) for group in groups}
    units = {group.name: len(group.units) for group in groups}
    if saliency == "random":
        generator = torch.Generator().manual_seed(seed)
        return {name: torch.rand(count, generator=generator, dtype=torch.float64) for name, count in units.items()}
    with stage(f"Measuring {saliency} saliency", seconds=5.0):
        if saliency == "magnitude":
            return {name: _relative(_magnitude(traced, own, units[name])) for name, own in lanes.items()}
        pieces = calibration_pieces(task, seed=seed, rows=rows)
        if saliency == "activation":
            found = mean_activations(traced, lanes, units, (inputs for inputs, _ in pieces))
            return {
                name: _relative(found[name] if name in found else _magnitude(traced, own, units[name]))
                for name, own in lanes.items()
            }
        names = [name for name in tensors_of(lanes) if tensor_of(traced.body, name).is_floating_point()]
        names = [name for name in names if isinstance(tensor_of(traced.body, name), torch.nn.Parameter)]
        felt = feel_weights(task, traced, names, pieces, needed_by=saliency)
        return _averaged(felt, lanes, units, _FELT[saliency])


def _averaged(
    pieces: Iterable[Felt], lanes: Lanes, units: dict[str, int], rule: Callable[[Tensor, Lane, int], Tensor]
) -> dict[str, Tensor]:
    totals = {name: torch.zeros(count, dtype=torch.float64) for name, count in units.items()}
    count = 0
    for felt in pieces:
        count += 1
        products = {name: value * gradient for name, (value, gradient) in {**felt.weights, **felt.lookups}.items()}
        for name, own in lanes.items():
            for lane in own:
                if lane.tensor in products:
                    totals[name] += rule(products[lane.tensor], lane, units[name]).double()
    return {name: total / max(count, 1) for name, total in totals.items()}


def _taylor(products: Tensor, lane: Lane, units: int) -> Tensor:
    """Square the sum of weight x gradient of each tensor's share of a unit.

    Tensor by tensor: what a unit's own filter and its readers feel is nearly the same number, which would count twice
    in a sum; and changes of opposite sign do not cancel between the layers of a residual stream.
    """
    return sum_lane(lane, products, units).square()


def _fisher(products: Tensor, lane: Lane, units: int) -> Tensor:
    return sum_lane(lane, products.square(), units)


_FELT: dict[str, Callable[[Tensor, Lane, int], Tensor]] = {"taylor": _taylor, "fisher": _fisher}


def _magnitude(traced: TracedModel, lanes: tuple[Lane, ...], units: int) -> Tensor:
    """Return the root of the sum of squares of each unit's weights, matrices and filters only."""
    total = torch.zeros(units, dtype=torch.float64)
    for lane in lanes:
        weight = tensor_of(traced.body, lane.tensor).detach()
        if weight.ndim > 1 and weight.is_floating_point():
            total += sum_lane(lane, weight.square(), units).double()
    return total.sqrt()


def _relative(values: Tensor) -> Tensor:
    mean = values.mean()
    return values / mean if float(mean) > 0 else values

"""Training of a two-tower model to retrieve: the right item against those that came up for others in the step."""

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from flyweight.zoo.recipe import Recipe, Watch, one_cycle, take_step


def fit_in_batch(
    model: nn.Module,
    request: Mapping[str, Tensor],
    relevant: NDArray[np.int64],
    recipe: Recipe,
    watch: Watch | None = None,
) -> None:
    """Train a model with `request(**fields)` and `candidates(item_id=...)` in place.

    A step takes `recipe.batch` requests and draws `recipe.negatives` of the relevant items of each, with replacement;
    what was drawn for the others are the wrong ones, but for those that are relevant to the request itself.

    Args:
        request: the request fields, each (requests, ...).
        relevant: (requests, width), ids from 1, -1 where there are fewer; every request has at least one.
        recipe: how; `negatives` is the number of items drawn for a request, at least 1.

    Raises:
        FlyweightError: the loss is no longer a number.
    """
    generator = torch.Generator().manual_seed(recipe.seed)
    wanted = torch.from_numpy(relevant)  # (requests, width)
    log_share = draw_log_shares(wanted)
    optimizer, schedule = one_cycle(model, recipe, -(-len(wanted) // recipe.batch))
    for epoch in range(recipe.epochs):
        for rows in torch.split(torch.randperm(len(wanted), generator=generator), recipe.batch):
            drawn = _draw(wanted[rows], recipe.negatives, generator)  # (batch, each)
            asked = model.request(**{name: values[rows] for name, values in request.items()})  # type: ignore[operator]
            offered = model.candidates(item_id=drawn.reshape(-1))  # type: ignore[operator]
            logits = asked @ offered.T  # (batch, batch * each)
            take_step(in_batch_loss(logits, drawn, wanted[rows], log_share), optimizer, schedule)
        if watch:
            watch(epoch, model)


def in_batch_loss(logits: Tensor, drawn: Tensor, wanted: Tensor, log_share: Tensor) -> Tensor:
    """Return the mean softmax loss of the drawn items, each against all drawn ones that its request does not want.

    An item comes up as a wrong one in proportion to how often it is relevant, which would teach the model to score
    popular items low. Wrong logits are lowered by `log(n q)`, n wrong items of the step, each drawn with chance q, so
    that their sum estimates the sum over all items (Yi et al. 2019, section 3; the right item, which is not drawn by
    chance, is left as it is: Khrylchenko et al. 2025, arXiv 2507.09331).

    Args:
        logits: (batch, batch * each), of all drawn items for each request.
        drawn: (batch, each), ids.
        wanted: (batch, width), ids, -1 where there are fewer.
        log_share: (items,), the log of q.
    """
    batch, each = drawn.shape
    columns = drawn.reshape(-1)
    own = torch.zeros(batch, len(log_share) + 1, dtype=torch.bool).scatter_(1, wanted + 1, True)  # column 0: padding
    wrong = ~own[:, columns + 1]  # (batch, batch * each)
    count = wrong.sum(1, keepdim=True).clamp(min=1)
    corrected = (logits - log_share[columns] - count.log()).masked_fill(~wrong, -torch.inf)
    right = logits.view(batch, batch, each).diagonal().T  # (batch, each), of what was drawn for the request itself
    # A request that wants everything drawn has nothing to be told apart from: no loss, and no infinity in gradients.
    others = torch.logsumexp(corrected.masked_fill(~wrong.any(1, keepdim=True), -1e4), 1, keepdim=True)
    return F.softplus(others - right).mean()


def draw_log_shares(wanted: Tensor) -> Tensor:
    """Return (items,) the log of the chance that an item drawn for a request drawn at random is this one.

    Example: request 0 wants items 1 and 2, request 1 wants item 2: 1 / 4 and 3 / 4.
    """
    known = wanted >= 0
    weight = (known / known.sum(1, keepdim=True))[known] / len(wanted)
    return torch.bincount(wanted[known], weights=weight.double()).float().log()


def _draw(wanted: Tensor, each: int, generator: torch.Generator) -> Tensor:
    """Return (requests, each) of what each request wants, evenly and with replacement; padding stands last."""
    count = (wanted >= 0).sum(1, keepdim=True)
    place = (torch.rand(len(wanted), each, generator=generator) * count).long()
    return wanted.gather(1, torch.minimum(place, count - 1))

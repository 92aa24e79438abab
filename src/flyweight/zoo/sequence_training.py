"""Training of SASRec: at every position of a sequence, the next item against wrong ones drawn at random."""

import math
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from flyweight.zoo.models.sasrec import SASRec
from flyweight.zoo.recipe import Recipe, Watch, one_cycle, take_step

Sequence = NDArray[np.int32]


def fit_histories(model: SASRec, sequences: list[Sequence], recipe: Recipe, watch: Watch | None = None) -> None:
    """Train SASRec in place on sequences of ids in time order, the newest of each as many as the model holds and one.

    The loss is the softmax over the right item and the drawn ones, whose logits are raised by log(items / drawn) so
    that their sum is an unbiased estimate of the sum over all items (Bengio and Senecal 2008). Id 0 is always among the
    wrong ones. Sequences of like length share a step, so that little of it is padding.

    Raises:
        FlyweightError: the loss is no longer a number.
    """
    generator = torch.Generator().manual_seed(recipe.seed)
    longest = model.positions.num_embeddings + 1
    sequences = [items[-longest:] for items in sequences if len(items) > 1]
    optimizer, schedule = one_cycle(model, recipe, -(-len(sequences) // recipe.batch))
    for epoch in range(recipe.epochs):
        for rows in _like_lengths(sequences, recipe.batch, generator):
            loss = next_item_loss(model, padded([sequences[i] for i in rows]), recipe, generator)
            take_step(loss, optimizer, schedule)
        if watch:
            watch(epoch, model)


def padded(sequences: list[Sequence]) -> Tensor:
    """Return ids (rows, longest), int64, each sequence at the end of its row and 0 before it."""
    longest = max(map(len, sequences))
    rows = np.zeros((len(sequences), longest), dtype=np.int64)
    for row, items in zip(rows, sequences, strict=True):
        row[longest - len(items) :] = items
    return torch.from_numpy(rows)


def next_item_loss(model: SASRec, ids: Tensor, recipe: Recipe, generator: torch.Generator) -> Tensor:
    """Return the mean loss over all positions of ids (rows, length) that have an item before them."""
    history, target = ids[:, :-1], ids[:, 1:]
    known = history != 0
    target, items = target[known], model.items.num_embeddings  # (positions,)
    drawn = 1 + torch.randperm(items - 1, generator=generator)[: recipe.negatives]
    drawn = torch.cat([torch.zeros(1, dtype=torch.long), drawn])
    place = torch.full((items,), -1).index_put((drawn,), torch.arange(len(drawn)))[target]  # of the right one, or -1
    hit = torch.nonzero(place >= 0).squeeze(1)
    with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bfloat16):
        position = model.encode(history)[known]  # (positions, dim)
        wrong = F.linear(position, model.items(drawn)).float()  # (positions, drawn)
        right = (position * model.items(target)).sum(1).float()
    wrong = wrong.index_put((hit, place[hit]), torch.tensor(-torch.inf))  # drawn by accident
    others = torch.logsumexp(wrong, 1) + math.log(items / len(drawn))
    return F.softplus(others - right).mean()


def _like_lengths(sequences: list[Sequence], size: int, generator: torch.Generator) -> Iterator[list[int]]:
    """Yield batches of sequence numbers in random order, each of nearly one length."""
    lengths = torch.tensor([len(items) for items in sequences])
    order = torch.argsort(lengths + torch.rand(len(lengths), generator=generator))
    batches = torch.split(order, size)
    for number in torch.randperm(len(batches), generator=generator).tolist():
        yield batches[number].tolist()

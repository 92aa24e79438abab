"""The task "beauty-candidates": SASRec as a ranker, scoring the candidates of a request instead of every item.

The same weights as "beauty-sasrec". A request is a history; its candidates are the item that came next and items drawn
evenly from all others that the history does not hold, as in SASRec's own evaluation (section IV.B of the paper, which
draws 100). Drawn candidates are easier than the whole catalogue: compare these figures with no other protocol's.
"""

import numpy as np
import torch
from torch import Tensor

from flyweight.task.field import Field
from flyweight.task.task import Task
from flyweight.zoo import beauty
from flyweight.zoo.batches import Batches
from flyweight.zoo.beauty_sasrec import trained_sasrec
from flyweight.zoo.models.sasrec import CandidateSASRec
from flyweight.zoo.progress import Progress, silent

#: Candidates of a request: the one that came next and the others.
CANDIDATES = 21
#: Requests of train, validation and test: in a flat batch every candidate carries the whole history.
REQUESTS = (2_000, 500, 2_000)


def beauty_candidates(progress: Progress = silent) -> Task:
    """Return SASRec as a ranker of 21 candidates a request on Amazon Beauty: AUC within a request, their mean.

    The first call trains for about two minutes; later ones read the weights from the cache.

    Args:
        progress: told how far the training is.

    Raises:
        InputError: the data file is not there; says where it was looked for.
    """
    data = beauty.load()
    encoder, _ = trained_sasrec(0, progress)
    train, validation, test = (
        with_candidates(split, requests, seed)
        for seed, (split, requests) in enumerate(zip((data.train, data.validation, data.test), REQUESTS, strict=True))
    )
    return Task(
        model=CandidateSASRec(encoder).eval(),
        inputs={**data.fields, "item_id": Field("candidate", beauty.ITEMS + 1)},
        train=train,
        validation=validation,
        test=test,
        metric="gauc",
        group="request_id",
        name="SASRec on Amazon Beauty, candidates",
    )


def with_candidates(split: Batches, requests: int, seed: int, items: int = beauty.ITEMS) -> Batches:
    """Return rows of (history, item_id) with target 1 for the item that came next and 0 for items drawn.

    Args:
        split: rows of one history each, the target the next item's id.
        requests: so many of its rows, drawn; all where there are fewer.
        seed: of both draws.
        items: ids 1 to `items` are drawn from; more than a history and its candidates.
    """
    random = np.random.default_rng(seed)
    kept = np.sort(random.permutation(split.rows)[:requests])
    history, target = split.ids[kept], split.target[kept].long()
    wrong = torch.from_numpy(random.integers(1, items + 1, (len(kept), CANDIDATES - 1)))
    while bool((again := _taken(wrong, history, target)).any()):
        wrong[again] = torch.from_numpy(random.integers(1, items + 1, int(again.sum())))
    item = torch.cat([target.unsqueeze(1), wrong], 1)  # (requests, candidates)
    ids = torch.cat([history.repeat_interleave(CANDIDATES, 0), item.reshape(-1, 1).to(history.dtype)], 1)
    bought = torch.zeros(len(kept), CANDIDATES)
    bought[:, 0] = 1
    request = torch.arange(len(kept)).repeat_interleave(CANDIDATES)
    widths = {**split.widths, "item_id": 1}
    return Batches(widths, ids, bought.reshape(-1), {"request_id": request}, size=CANDIDATES * 100)


def _taken(wrong: Tensor, history: Tensor, target: Tensor) -> Tensor:
    """Return which of the items drawn, (requests, drawn), the history holds or are the one that came next."""
    return (wrong.unsqueeze(2) == history.unsqueeze(1)).any(2) | (wrong == target.unsqueeze(1))

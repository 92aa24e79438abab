"""Training on sequences: the loss by its formula, and that it learns."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from flyweight.zoo.models.sasrec import SASRec
from flyweight.zoo.recipe import Recipe
from flyweight.zoo.sequence_training import fit_histories, next_item_loss, padded


def test_the_loss_with_every_item_drawn_is_the_softmax_over_all():
    torch.manual_seed(0)
    model = SASRec(items=20, length=6, dim=8).eval()
    torch.nn.init.normal_(model.items.weight)
    ids = padded([np.array([3, 1, 4, 9]), np.array([5, 2])])
    recipe = Recipe(epochs=1, rate=0.1, decay=0.0, negatives=19)
    found = next_item_loss(model, ids, recipe, torch.Generator().manual_seed(0))
    history, target = ids[:, :-1], ids[:, 1:]
    scores = F.linear(model.encode(history), model.items.weight)[history != 0]
    torch.testing.assert_close(found, F.cross_entropy(scores, target[history != 0]))


def test_sequences_are_padded_before():
    assert padded([np.array([3, 1]), np.array([5])]).tolist() == [[3, 1], [0, 5]]


@pytest.mark.usefixtures("one_thread")
def test_sasrec_learns_what_follows():
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    ring = [(random.integers(1, 11) + np.arange(6) - 1) % 10 + 1 for _ in range(64)]  # each item, then the next
    model = SASRec(items=11, length=6, dim=16, hidden=16, dropout=0.0).train()
    fit_histories(model, ring, Recipe(epochs=20, rate=0.01, decay=0.0, batch=16, negatives=5))
    ids = torch.tensor([[0, 0, 0, 0, 4, 5], [0, 0, 0, 8, 9, 10]])
    assert model.eval()(ids).argmax(1).tolist() == [6, 1]

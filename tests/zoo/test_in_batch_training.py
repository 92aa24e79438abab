"""In-batch training: the loss by its formula, without bias, and that a model learns to retrieve."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from flyweight.zoo.in_batch_training import draw_log_shares, fit_in_batch, in_batch_loss
from flyweight.zoo.models.two_tower import TwoTower
from flyweight.zoo.recipe import Recipe
from flyweight.zoo.retrieval import build_retriever


def test_shares_of_draws_by_hand():
    shares = draw_log_shares(torch.tensor([[1, 2], [2, -1]])).exp()
    torch.testing.assert_close(shares, torch.tensor([0, 1 / 4, 3 / 4]))


def test_the_loss_is_the_formula():
    logits = torch.randn(2, 2, generator=torch.Generator().manual_seed(0))
    wanted = torch.tensor([[1], [2]])
    found = in_batch_loss(logits, wanted, wanted, draw_log_shares(wanted))
    # One wrong item each, drawn with chance 1/2: its exp stands for exp / (1 * 1/2).
    right, wrong = logits.diagonal(), logits.fliplr().diagonal() - np.log(0.5)
    expected = F.cross_entropy(torch.stack([right, wrong], dim=1), torch.zeros(2, dtype=torch.long))
    torch.testing.assert_close(found, expected)


def test_the_corrected_sum_estimates_the_sum_over_all_items():
    """Popular items come up more often and count less: on average the sum of exp over all items."""
    random = torch.Generator().manual_seed(0)
    share = torch.tensor([0.6, 0.3, 0.1])
    scores = torch.tensor([0.5, -0.2, 1.0])
    drawn = torch.multinomial(share, 400_000, replacement=True, generator=random)
    estimate = torch.exp(scores[drawn] - share.log()[drawn]).mean()
    assert float(estimate) == pytest.approx(float(scores.exp().sum()), rel=0.01)


def test_an_item_that_another_request_wants_too_is_no_wrong_answer_for_either():
    logits = torch.tensor([[0.0, 50.0, 1.0], [50.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    drawn, wanted = torch.tensor([[1], [2], [3]]), torch.tensor([[1, 2], [2, 1], [3, -1]])
    loss = in_batch_loss(logits, drawn, wanted, draw_log_shares(wanted))
    assert loss < 5  # the scores of 50 are of wanted items


def test_a_step_in_which_all_want_everything_drawn_has_no_loss_and_finite_gradients():
    logits = torch.randn(2, 2, requires_grad=True)
    wanted = torch.tensor([[1, 2], [1, 2]])
    loss = in_batch_loss(logits, torch.tensor([[1], [2]]), wanted, draw_log_shares(wanted))
    loss.backward()
    assert loss.item() == 0
    assert bool(torch.isfinite(logits.grad).all())


@pytest.mark.usefixtures("one_thread")
def test_a_model_learns_what_each_user_wants():
    torch.manual_seed(0)
    users, items = 21, 31
    wanted = np.array([[1 + (user * 3 + step) % 30 for step in range(3)] for user in range(1, users)])
    request = {"user_id": torch.arange(1, users), "history": torch.zeros(users - 1, 1, dtype=torch.long)}
    model = TwoTower(users, items, dim=16, init_std=0.1).train()
    fit_in_batch(model, request, wanted, Recipe(epochs=40, rate=0.03, decay=0.0, batch=10, negatives=2))
    found = build_retriever(model.eval(), [{"item_id": torch.arange(1, items)}]).retrieve(request, 3).rows + 1
    assert np.mean([len(set(a) & set(b)) / 3 for a, b in zip(found, wanted, strict=True)]) > 0.95

"""Each loss against its closed form, and zero where student and teacher agree."""

import math

import pytest
import torch
import torch.nn.functional as F

import flyweight as fw
from flyweight.distillation.losses import (
    default_distill_loss,
    draw_pairs,
    listwise,
    outputs_loss,
    pairwise,
    score_regression,
    soft_columns,
    soft_logit,
)

DRAWN = torch.Generator().manual_seed(0)
ONE, OTHER = torch.randn(6, 5, generator=DRAWN), torch.randn(6, 5, generator=DRAWN)
LISTS = torch.tensor([4, 9, 4, 9, 4, 7])


def test_soft_columns_is_kl_of_softmax_times_t_squared() -> None:
    p, q = F.softmax(OTHER / 3, 1), F.softmax(ONE / 3, 1)
    expected = 9 * (p * (p / q).log()).sum(1).mean()
    assert soft_columns(ONE, OTHER, 3.0).item() == pytest.approx(expected.item(), rel=1e-5)


def test_soft_logit_is_soft_columns_with_a_zero_beside() -> None:
    one, other = ONE[:, 0], OTHER[:, 0]
    columns = [torch.stack([torch.zeros(6), scores], 1) for scores in (one, other)]
    assert soft_logit(one, other, 2.0).item() == pytest.approx(soft_columns(*columns, 2.0).item(), rel=1e-5)


def test_soft_targets_at_high_temperature_are_score_regression() -> None:
    """Hinton et al. 2015, eq. 4: for centred logits the gradient tends to (z - v) / N, that of mean((z - v)^2) / 2."""
    one, other = ((scores - scores.mean(1, keepdim=True)).double() for scores in (ONE, OTHER))
    assert soft_columns(one, other, 1e3).item() == pytest.approx(score_regression(one, other).item() / 2, rel=1e-2)


@pytest.mark.parametrize("name", ["soft", "score", "pairwise", "listwise"])
@pytest.mark.parametrize("output", ["logit", "probability", "columns"])
def test_agreement_costs_nothing_and_has_no_gradient(name: str, output: str) -> None:
    scores = (ONE if output == "columns" else ONE[:, 0]).clone()
    teacher = torch.sigmoid(scores) if output == "probability" else scores
    student = teacher.clone().requires_grad_()
    loss = outputs_loss(name, output, 2.0)(student, teacher, LISTS)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert student.grad is not None
    assert student.grad.abs().max().item() < 1e-5


def test_pairwise_of_two_entries_is_the_divergence_of_their_order() -> None:
    student, teacher = torch.tensor([0.3, -0.2]), torch.tensor([1.0, 3.0])
    p, q = 1 / (1 + math.exp(-(1 - 3) / 2)), 1 / (1 + math.exp(-(0.3 + 0.2) / 2))
    expected = 4 * (p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q)))
    assert pairwise(student, teacher, None, 2.0).item() == pytest.approx(expected, rel=1e-5)


def test_pairwise_does_not_see_a_shift_of_a_whole_list() -> None:
    shift = LISTS.float()
    assert pairwise(ONE[:, 0] + shift, ONE[:, 0], LISTS).item() == pytest.approx(0, abs=1e-6)
    assert pairwise(ONE[:, 0] + shift, ONE[:, 0], None).item() > 0.01


def test_pairs_are_within_lists_and_each_once() -> None:
    first, second = draw_pairs(LISTS, 6, partners=8)
    assert bool((LISTS[first] == LISTS[second]).all())
    assert {frozenset(pair) for pair in zip(first.tolist(), second.tolist(), strict=True)} == {
        frozenset(pair) for pair in [(0, 2), (0, 4), (2, 4), (1, 3)]
    }
    assert len(first) == 4


def test_pairwise_without_a_pair_is_zero() -> None:
    assert pairwise(ONE[:3, 0], OTHER[:3, 0], torch.arange(3)).item() == 0.0


def test_listwise_is_the_mean_of_the_softmax_divergence_of_lists() -> None:
    student, teacher = ONE[:, 1], OTHER[:, 1]
    parts = [soft_columns(student[one == LISTS][None], teacher[one == LISTS][None], 2.0) for one in (4, 9)]
    expected = torch.stack(parts).mean()  # the list of one entry says nothing
    assert listwise(student, teacher, LISTS, 2.0).item() == pytest.approx(expected.item(), rel=1e-5)


def test_listwise_survives_large_scores() -> None:
    assert math.isfinite(listwise(ONE[:, 0] * 1e4, OTHER[:, 0] * 1e4, LISTS).item())


def test_soft_targets_of_plain_numbers_are_refused() -> None:
    with pytest.raises(fw.InputError, match="use 'score', 'pairwise' or 'listwise'"):
        outputs_loss("soft", "value", 1.0)
    assert default_distill_loss("value") == "score"
    assert default_distill_loss("logit") == "soft"

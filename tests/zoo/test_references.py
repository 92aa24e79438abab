"""References by their formulas."""

import torch

from flyweight.zoo.batches import Batches
from flyweight.zoo.references import count_scores, rate_scores


def batches(items, target):
    return Batches({"item": 1}, torch.tensor(items).reshape(-1, 1), torch.tensor(target), {})


TRAIN = batches([0] * 10 + [1] * 10, [1] * 9 + [0] + [1] + [0] * 9)
TEST = batches([0, 1, 2], [0, 0, 1])


def test_rate_shrinks_towards_the_mean():
    expected = [(9 + 2 * 0.5) / 12, (1 + 2 * 0.5) / 12, 0.5]
    torch.testing.assert_close(rate_scores(TRAIN, TEST, "item"), torch.tensor(expected, dtype=torch.float64))


def test_count_is_of_positives():
    assert count_scores(TRAIN, TEST, "item").tolist() == [9, 1, 0]

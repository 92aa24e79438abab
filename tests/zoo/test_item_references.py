"""References over all items and the quality of lists, by numbers counted by hand."""

import math

import numpy as np
import pytest
import torch

from flyweight.errors import InputError
from flyweight.zoo.item_references import (
    item_cosines,
    item_counts,
    neighbour_scores,
    next_shares,
    own_scores,
    popularity_scores,
)
from flyweight.zoo.retrieval_quality import judge

#: Baskets {1, 2}, {1, 2, 3}, {1}, {3}: item 1 is in three of them, items 2 and 3 in two.
BASKET, ITEM = np.array([0, 0, 1, 1, 1, 2, 3]), np.array([1, 2, 1, 2, 3, 1, 3])
COUNTS = item_counts(ITEM, items=5)


def best_first(scores):
    return torch.argsort(-scores, stable=True).tolist()


def test_popularity_is_the_count_and_the_same_for_all():
    scores = popularity_scores(COUNTS, torch.tensor([[1], [3]]))
    assert scores.tolist() == [[0, 3, 2, 2, 0]] * 2


def test_own_items_come_by_count_then_the_popular():
    scores = own_scores(COUNTS, torch.tensor([[3, 3, 2, 0]]))
    assert best_first(scores[0])[:3] == [3, 2, 1]
    assert scores[0, 0] == 0


def test_cosines_of_four_baskets():
    weights = item_cosines(BASKET, ITEM, items=5).to_dense()
    expected = torch.zeros(5, 5)
    expected[1, 2] = expected[2, 1] = 2 / math.sqrt(3 * 2)
    expected[1, 3] = expected[3, 1] = 1 / math.sqrt(3 * 2)
    expected[2, 3] = expected[3, 2] = 1 / 2
    expected[[1, 2, 3], [1, 2, 3]] = 1
    torch.testing.assert_close(weights, expected)


def test_a_pair_given_twice_counts_once():
    twice = item_cosines(np.tile(BASKET, 2), np.tile(ITEM, 2), items=5)
    torch.testing.assert_close(twice.to_dense(), item_cosines(BASKET, ITEM, items=5).to_dense())


def test_shares_of_what_came_next():
    weights = next_shares(np.array([1, 1, 1, 4]), np.array([2, 2, 3, 1]), items=5).to_dense()
    expected = torch.zeros(5, 5)
    expected[2, 1], expected[3, 1], expected[1, 4] = 2 / 3, 1 / 3, 1
    torch.testing.assert_close(weights, expected)


def test_neighbours_add_up_over_the_history_and_popularity_decides_ties():
    weights = item_cosines(BASKET, ITEM, items=5)
    scores = neighbour_scores(weights, COUNTS, torch.tensor([[2, 3], [0, 0]]))
    expected = weights.to_dense()[:, [2, 3]].sum(1)
    torch.testing.assert_close(scores[0], expected, atol=1e-5, rtol=0)
    assert best_first(scores[1])[:3] == [1, 2, 3]


def test_quality_of_lists_by_hand():
    found = np.array([[5, 2, 9], [1, 2, 3]])
    relevant = np.array([[2, 7, -1, -1, -1], [1, 2, 3, 4, 5]])
    quality = judge(found, relevant)
    assert quality.recall.tolist() == [1 / 2, 3 / 5]
    assert quality.ndcg.tolist() == pytest.approx([(1 / math.log2(3)) / (1 + 1 / math.log2(3)), 1])


def test_quality_refuses_requests_without_anything_relevant():
    with pytest.raises(InputError, match="Request 1 has no relevant item"):
        judge(np.zeros((2, 1), dtype=int), np.array([[1], [-1]]))
    with pytest.raises(InputError, match="There are 2 lists of items for 1 requests"):
        judge(np.zeros((2, 1), dtype=int), np.array([[1]]))

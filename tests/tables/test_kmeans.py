"""Weighted k-means against its definition and against scikit-learn's."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from torch import Tensor

from flyweight.tables.kmeans import BLOCK_ROWS, SAMPLE_ROWS, assign, weighted_kmeans


def drawn(rows: int, dim: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, dim, generator=generator), torch.rand(rows, generator=generator) ** 3


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def error(rows: Tensor, weights: Tensor, centroids: Tensor) -> float:
    nearest = torch.cdist(rows.double(), centroids.double()).min(1).values
    return float((weights.double() * nearest.square()).sum())


@given(rows=st.integers(2, 60), dim=st.integers(1, 6), clusters=st.integers(1, 16), seed=st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_error_is_never_worse_than_that_of_the_weighted_mean(rows: int, dim: int, clusters: int, seed: int) -> None:
    values, weights = drawn(rows, dim, seed)
    mean = (values * weights[:, None]).sum(0, keepdim=True) / weights.sum()
    found = weighted_kmeans(values, weights, clusters, seeded())
    assert error(values, weights, found) <= error(values, weights, mean) * (1 + 1e-4) + 1e-6


@given(seed=st.integers(0, 1000), power=st.integers(-20, 20))
@settings(max_examples=30, deadline=None)
def test_scale_of_the_weights_does_not_matter(seed: int, power: int) -> None:
    values, weights = drawn(50, 3, seed)
    one, other = (weighted_kmeans(values, weights * scale, 4, seeded(seed)) for scale in (1.0, 2.0**power))
    assert torch.allclose(one, other, rtol=1e-4, atol=1e-5)


def test_one_cluster_is_the_weighted_mean() -> None:
    values, weights = drawn(100, 5, 1)
    expected = np.average(values.numpy(), axis=0, weights=weights.numpy())
    assert weighted_kmeans(values, weights, 1, seeded())[0].tolist() == pytest.approx(expected.tolist(), abs=1e-6)


@pytest.mark.parametrize(("rows", "dim", "clusters"), [(300, 2, 4), (1000, 8, 16), (500, 16, 8)])
def test_error_is_close_to_that_of_scikit_learn(rows: int, dim: int, clusters: int) -> None:
    values, weights = drawn(rows, dim, rows)
    theirs = KMeans(clusters, n_init=3, random_state=0).fit(values.numpy(), sample_weight=weights.numpy()).inertia_
    ours = error(values, weights, weighted_kmeans(values, weights, clusters, seeded()))
    assert ours <= 1.1 * theirs


def test_separate_clumps_are_all_found() -> None:
    clumps = 10.0 * torch.eye(8)
    values = (clumps[:, None] + 0.01 * torch.randn(8, 30, 8, generator=seeded())).reshape(-1, 8)
    found = weighted_kmeans(values, torch.ones(240), 8, seeded(1))
    assert torch.cdist(clumps, found).min(1).values.max() < 0.01


def test_rows_without_weight_do_not_matter() -> None:
    values = torch.tensor([[1.0], [3.0], [1000.0]])
    assert weighted_kmeans(values, torch.tensor([1.0, 1.0, 0.0]), 1, seeded()).tolist() == [[2.0]]
    assert weighted_kmeans(values, torch.zeros(3), 1, seeded()).item() == pytest.approx(1004 / 3)


def test_more_clusters_than_distinct_rows_repeat_them_exactly() -> None:
    values = torch.tensor([[1.0, 2.0], [1.0, 2.0], [5.0, 5.0]])
    found = weighted_kmeans(values, torch.ones(3), 16, seeded())
    assert error(values, torch.ones(3), found) == 0


def test_rows_beyond_the_sample_and_the_block_are_assigned_to_their_nearest() -> None:
    count = max(BLOCK_ROWS, SAMPLE_ROWS) + 17
    values, weights = drawn(count, 2, 3)
    centroids = weighted_kmeans(values, weights, 5, seeded())
    nearest = torch.cdist(values, centroids).argmin(1)
    assert float((assign(values, centroids).long() == nearest).float().mean()) > 0.9999

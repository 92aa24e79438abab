"""Weighted k-means over the rows of a table: the codebook with the least weighted squared error.

Lloyd, "Least squares quantization in PCM", 1982; seeding by Arthur & Vassilvitskii, "k-means++", 2007. Centroids are
learned on a seeded sample of rows and every row is then assigned block by block, so memory is bounded by the block.
"""

import torch
from torch import Tensor

#: Rows the centroids are learned from. 16 centroids in 16 dimensions are settled long before this many.
SAMPLE_ROWS = 32_768
#: Rows whose distances are held at once while assigning.
BLOCK_ROWS = 32_768
ITERATIONS = 12


def weighted_kmeans(rows: Tensor, weights: Tensor, clusters: int, generator: torch.Generator) -> Tensor:
    """Return centroids that minimise `1/2 sum_i w_i ||x_i - c(i)||^2`.

    Args:
        rows: (n, dim) float32.
        weights: (n,) non-negative; a row of weight zero does not matter.
        clusters: how many centroids; no more than n are used, the others stay zero.
        generator: the source of randomness, so that the same seed gives the same codebook.

    Returns:
        (clusters, dim) float32. For one cluster the weighted mean.

    Example:
        >>> rows = torch.tensor([[0.0], [0.0], [6.0]])
        >>> weighted_kmeans(rows, torch.tensor([1.0, 1.0, 1.0]), 1, torch.Generator()).tolist()
        [[2.0]]
    """
    if len(rows) > SAMPLE_ROWS:
        chosen = torch.randint(len(rows), (SAMPLE_ROWS,), generator=generator)
        rows, weights = rows[chosen], weights[chosen]
    weights = weights.to(torch.float32)
    if not bool(weights.sum() > 0):
        weights = torch.ones_like(weights)
    if clusters == 1:
        return (rows * weights[:, None]).sum(0, keepdim=True) / weights.sum()
    centroids = _seed(rows, weights, clusters, generator)
    for _ in range(ITERATIONS):
        member = torch.zeros(len(rows), clusters)  # (n, clusters): the row's weight at its nearest centroid
        member.scatter_(1, assign(rows, centroids).long()[:, None], weights[:, None])
        mass, total = member.sum(0), member.T @ rows
        moved = torch.where(mass[:, None] > 0, total / mass.clamp_min(1e-30)[:, None], centroids)
        if torch.equal(moved, centroids):
            break
        centroids = moved
    return centroids


def assign(rows: Tensor, centroids: Tensor) -> Tensor:
    """Return the index of the nearest centroid of each row, (n,) uint8, block by block; at most 256 centroids."""
    offset = centroids.square().sum(1)  # (clusters,); a row's own norm does not change which is nearest
    nearest = torch.empty(len(rows), dtype=torch.uint8)
    for start in range(0, len(rows), BLOCK_ROWS):
        block = rows[start : start + BLOCK_ROWS]
        scores = torch.addmm(offset, block, centroids.T, alpha=-2.0)  # (block, clusters)
        nearest[start : start + BLOCK_ROWS] = scores.argmin(1).to(torch.uint8)
    return nearest


def _seed(rows: Tensor, weights: Tensor, clusters: int, generator: torch.Generator) -> Tensor:
    """Draw first centroids far from each other: the next one with probability `w_i d_i^2` (k-means++)."""
    centroids = torch.zeros(clusters, rows.shape[1])
    chance = weights
    distance = torch.full((len(rows),), torch.inf)
    for index in range(clusters):
        if not bool(chance.sum() > 0):  # fewer distinct rows than clusters
            break
        place = torch.searchsorted(
            chance.double().cumsum(0), torch.rand((), generator=generator).double() * chance.double().sum()
        )
        centroids[index] = rows[min(int(place), len(rows) - 1)]
        distance = torch.minimum(distance, (rows - centroids[index]).square().sum(1))
        chance = weights * distance
    return centroids

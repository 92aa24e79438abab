"""Whether an engine's scores are the reference's, up to rounding."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Largest allowed difference, relative to a score's own size, and to the largest score's.
TOLERANCE = 1e-4
#: Of a model rounded to few bits an engine may differ by so much of what the rounding itself does: kernels that fuse
#: layers round in fewer places. A ResNet on chest x-rays, unfused, lies 4% of the rounding away
#: from PyTorch, fused 52% (ONNX Runtime) and 65% (OpenVINO); all lie 0.0105 to 0.0107 from the unrounded scores, as
#: PyTorch does. Two roundings that have nothing in common are 141% apart.
SHARE = 1.0


@dataclass(frozen=True)
class Agreement:
    """How far scores lie from the reference's.

    Args:
        max_abs: largest absolute difference; infinite where one of the two is not a number.
        max_rel: largest of `|score - reference| / max(|reference|, scale)`, with the scale of the reference: the
            median of the sizes of its scores.
        same_order: whether the candidates come in the same order, but for swaps of scores closer than the tolerance.
        ok: same shape, every difference within the tolerance, same order.
        words: what was seen, for reports and errors.
    """

    max_abs: float
    max_rel: float
    same_order: bool
    ok: bool
    words: str


def agreement(
    reference: NDArray[Any], scores: NDArray[Any], tolerance: float = TOLERANCE, *, noise: float = 0.0
) -> Agreement:
    """Compare scores with a reference of the same candidates, shape (rows,) or (rows, columns).

    A score near zero is a difference of large terms, so it is held to the tolerance of the scores' scale, not its own.
    The order is compared down the rows of each column; scores closer than the tolerance may swap.

    Args:
        noise: for a model rounded to few bits, by how much the rounding moves the reference, root mean square: scores
            then agree when they lie within that, root mean square, in any order.

    Example:
        >>> agreement(np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 3.00001])).ok
        True
    """
    old, new = np.asarray(reference, np.float64), np.asarray(scores, np.float64)
    if old.shape != new.shape:
        words = f"shape {new.shape} instead of {old.shape}"
        return Agreement(float("inf"), float("inf"), False, False, words)
    if not old.size:
        return Agreement(0.0, 0.0, True, True, "no scores to compare")
    if not np.isfinite(old).all() or not np.isfinite(new).all():
        bad = int((~np.isfinite(new)).sum())
        words = f"{bad:,} of {new.size:,} scores are not finite" if bad else "the reference's scores are not finite"
        return Agreement(float("inf"), float("inf"), False, False, words)
    scale = float(np.median(np.abs(old))) or float(np.abs(old).max()) or 1.0
    difference = np.abs(new - old)
    bound = np.maximum(np.abs(old), scale)  # like old
    max_abs, max_rel = float(difference.max()), float((difference / bound).max())
    columns = (old.reshape(len(old), -1), new.reshape(len(new), -1), bound.reshape(len(old), -1))
    swapped = _swapped(*columns, tolerance)
    ok = max_rel <= tolerance and not swapped
    words = f"largest difference {max_abs:.2g}, {max_rel:.2g} relative, over {old.size:,} scores"
    if swapped:
        words += f"; {swapped:,} of them in another order"
    if noise and not ok:
        apart = float(np.sqrt(np.mean(np.square(difference))))
        words += f"; {apart:.2g} root mean square, {apart / noise:.0%} of what rounding does to them"
        ok = apart <= SHARE * noise
    return Agreement(max_abs, max_rel, not swapped, ok, words)


def _swapped(old: NDArray[np.float64], new: NDArray[np.float64], bound: NDArray[np.float64], tolerance: float) -> int:
    """Count rows that a row has overtaken which lay lower in the reference by more than the tolerance."""
    count = 0
    for before, after, size in zip(old.T, new.T, bound.T, strict=True):
        order = np.argsort(before, kind="stable")
        ranked, moved = before[order], after[order]
        highest = np.maximum.accumulate(moved)  # of the new scores up to each place
        below = np.searchsorted(ranked, ranked - tolerance * size[order])  # how many lie lower by more
        has = below > 0
        count += int((highest[below[has] - 1] > moved[has]).sum())
    return count

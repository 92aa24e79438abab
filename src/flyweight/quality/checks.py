"""What a metric's arguments must be, each refusal in words: what is wrong, what was seen, what to do."""

from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flyweight.errors import InputError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


def check_scores(name: str, outputs: ArrayLike, targets: ArrayLike, *, infinite: bool = False) -> Floats:
    """Return outputs as float64 with one row a target, free of NaN (and of infinity unless `infinite`).

    Raises:
        InputError: there are no rows, the lengths differ, or a score is not a number.
    """
    scores = np.asarray(outputs, dtype=np.float64)
    rows = np.shape(targets)[0] if np.ndim(targets) else 0
    if scores.ndim == 0 or len(scores) == 0 or rows == 0:
        raise InputError(f"{name} needs at least one row; seen {scores.size} scores and {np.size(targets)} targets.")
    if len(scores) != rows:
        raise InputError(f"{name} needs one row of scores a target; seen {len(scores):,} rows and {rows:,} targets.")
    bad = np.isnan(scores) if infinite else ~np.isfinite(scores)
    if bad.any():
        kind = "NaN" if infinite else "NaN or infinite"
        raise InputError(
            f"{name}: {int(bad.sum()):,} of {scores.size:,} scores are {kind}; find the layer or weight they come from."
        )
    return scores


def check_binary(name: str, outputs: ArrayLike, targets: ArrayLike, *, infinite: bool = False) -> tuple[Floats, Bools]:
    """Return `(scores, positive)`, both of shape (rows,), for 0/1 targets.

    Raises:
        InputError: as `check_scores`, or a shape is not (rows,), or a target is neither 0 nor 1.
    """
    scores = check_scores(name, outputs, targets, infinite=infinite)
    truth = np.asarray(targets)
    if scores.ndim != 1 or truth.ndim != 1:
        raise InputError(
            f"{name} needs one score and one target a row, both of shape (rows,); "
            f"seen scores {scores.shape} and targets {truth.shape}."
        )
    odd = (truth != 0) & (truth != 1)
    if odd.any():
        raise InputError(
            f"{name} needs 0/1 targets; {int(odd.sum()):,} of {len(truth):,} are not, the first is {truth[odd][0]!s}."
        )
    return scores, truth == 1


def check_probabilities(name: str, outputs: ArrayLike, targets: ArrayLike) -> tuple[Floats, Bools]:
    """Return `(probabilities, positive)`, both of shape (rows,).

    Raises:
        InputError: as `check_binary`, or a score lies outside [0, 1].
    """
    scores, positive = check_binary(name, outputs, targets)
    low, high = float(scores.min()), float(scores.max())
    if low < 0 or high > 1:
        raise InputError(
            f"{name} needs probabilities in [0, 1]; seen {low:.4g} to {high:.4g}. Put logits through a sigmoid first."
        )
    return scores, positive


def check_both_classes(name: str, positive: Bools) -> None:
    """Raise `InputError` unless there is at least one positive and one negative row."""
    if positive.all() or not positive.any():
        raise InputError(
            f"{name} needs both classes; all {len(positive):,} targets are {int(positive[0])}. "
            "Take a larger or a stratified split."
        )


def check_indices(name: str, scores: Floats, targets: ArrayLike) -> Ints:
    """Return targets as column indices of `scores`, shape (rows,).

    Raises:
        InputError: a target is not a whole number from 0 to columns - 1.
    """
    truth: NDArray[Any] = np.asarray(targets)
    columns = scores.shape[1]
    if truth.ndim != 1 or bool((truth != np.floor(truth)).any()) or truth.min() < 0 or truth.max() >= columns:
        raise InputError(
            f"{name} on {columns} columns needs targets of shape (rows,) that are indices from 0 to {columns - 1}; "
            f"seen shape {truth.shape}, {truth.min()!s} to {truth.max()!s}."
        )
    return truth.astype(np.int64)


def number_groups(name: str, groups: ArrayLike | None, rows: int) -> Ints:
    """Return the number of each row's group, counted from 0, shape (rows,); without groups each row is its own.

    Raises:
        InputError: there is not one group a row.
    """
    if groups is None:
        return np.arange(rows)
    ids = np.asarray(groups)
    if ids.shape != (rows,):
        raise InputError(f"{name}: groups must have shape ({rows},), one a row; seen {ids.shape}.")
    return np.asarray(np.unique(ids, return_inverse=True)[1], dtype=np.int64)


def check_margin(margin: float) -> None:
    """Raise `InputError` unless a margin is a number of zero or more."""
    if not (isfinite(margin) and margin >= 0):
        raise InputError(f"margin is the largest drop allowed, zero or more; seen {margin}.")

"""Right and wrong predictions: accuracy, precision, recall and F1, of one score a row or of one score a class."""

from functools import partial

import numpy as np
from numpy.typing import ArrayLike

from flyweight.errors import InputError
from flyweight.quality.checks import (
    Bools,
    Floats,
    Ints,
    check_indices,
    check_probabilities,
    check_scores,
    number_groups,
)
from flyweight.quality.tally import Tally, safe_divide, tally_mean

#: A probability above this is a "yes"; exactly half is a "no", as argmax over two equal classes is the first.
THRESHOLD = 0.5


def accuracy(outputs: ArrayLike, targets: ArrayLike) -> float:
    """Return the share of rows predicted right.

    Outputs are probabilities of shape (rows,) with 0/1 targets, or scores of shape (rows, classes) with class indices.

    Raises:
        InputError: no rows, lengths differ, a score is NaN, a probability outside [0, 1], or a target no class.

    Example:
        >>> accuracy([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]], [1, 0, 0])
        0.6666666666666666
    """
    return tally_accuracy(outputs, targets).value()


def precision(outputs: ArrayLike, targets: ArrayLike) -> float:
    """Return true positives over predicted positives; 0 when nothing is predicted positive.

    For (rows, classes) outputs the plain (macro) mean over the classes that occur among targets or predictions.
    Arguments and errors as `accuracy`.

    Example:
        >>> precision([0.9, 0.8, 0.2], [1, 0, 1])
        0.5
    """
    return tally_precision(outputs, targets).value()


def recall(outputs: ArrayLike, targets: ArrayLike) -> float:
    """Return true positives over positives; macro mean over classes as in `precision`.

    Raises:
        InputError: as `accuracy`, or there is no positive target.

    Example:
        >>> recall([0.9, 0.8, 0.2], [1, 0, 1])
        0.5
    """
    return tally_recall(outputs, targets).value()


def f1(outputs: ArrayLike, targets: ArrayLike) -> float:
    """Return `2 TP / (2 TP + FP + FN)`; macro mean over classes as in `precision`.

    Raises:
        InputError: as `accuracy`, or there is no positive target.

    Example:
        >>> f1([0.9, 0.8, 0.2, 0.7], [1, 0, 1, 1])
        0.6666666666666666
    """
    return tally_f1(outputs, targets).value()


def tally_accuracy(outputs: ArrayLike, targets: ArrayLike, groups: ArrayLike | None = None) -> Tally:
    """Return the tally of `accuracy`: right rows and rows of each unit."""
    predicted, truth, _ = _read("accuracy", outputs, targets)
    return tally_mean((predicted == truth).astype(np.float64), number_groups("accuracy", groups, len(truth)))


def tally_precision(outputs: ArrayLike, targets: ArrayLike, groups: ArrayLike | None = None) -> Tally:
    """Return the tally of `precision`."""
    return _tally_counts("precision", outputs, targets, groups)


def tally_recall(outputs: ArrayLike, targets: ArrayLike, groups: ArrayLike | None = None) -> Tally:
    """Return the tally of `recall`."""
    return _tally_counts("recall", outputs, targets, groups)


def tally_f1(outputs: ArrayLike, targets: ArrayLike, groups: ArrayLike | None = None) -> Tally:
    """Return the tally of `f1`."""
    return _tally_counts("f1", outputs, targets, groups)


def _read(name: str, outputs: ArrayLike, targets: ArrayLike) -> tuple[Ints, Ints, int]:
    """Return `(predicted class, true class, classes)`; classes is 0 for one probability a row."""
    if np.ndim(outputs) < 2:
        values, positive = check_probabilities(name, outputs, targets)
        return (values > THRESHOLD).astype(np.int64), positive.astype(np.int64), 0
    scores = check_scores(name, outputs, targets)
    if scores.ndim != 2:
        raise InputError(f"{name} needs outputs of shape (rows,) or (rows, classes); seen {scores.shape}.")
    return scores.argmax(axis=1), check_indices(name, scores, targets), scores.shape[1]


def _tally_counts(name: str, outputs: ArrayLike, targets: ArrayLike, groups: ArrayLike | None) -> Tally:
    """Tally, for each class, rows that are truly it, rows predicted to be it, and both: columns 3c, 3c+1, 3c+2."""
    predicted, truth, classes = _read(name, outputs, targets)
    if classes == 0 and name != "precision" and not truth.any():
        raise InputError(f"{name} needs a positive target; all {len(truth):,} targets are 0. Take a larger split.")
    units = number_groups(name, groups, len(truth))
    right = predicted == truth
    column = np.concatenate([3 * truth, 3 * predicted + 1, 3 * truth[right] + 2])
    return Tally(
        unit=np.concatenate([units, units, units[right]]),
        column=column,
        amount=np.ones(len(column)),
        weight=np.bincount(units).astype(np.float64),
        columns=3 * max(classes, 2),
        finish=partial(_finish, name, binary=classes == 0),
    )


def _finish(name: str, sums: Floats, *, binary: bool) -> Floats:
    true, predicted, both = (sums[..., part::3] for part in range(3))
    below = {"precision": predicted, "recall": true, "f1": (true + predicted) / 2}[name]
    # As scikit-learn: precision is 0 where nothing is predicted, recall 0 for a class predicted but never true.
    each = safe_divide(both, below, empty=0.0)
    occurs: Bools = true + predicted > 0
    if binary:
        return (each if name == "precision" else np.where(true > 0, each, np.nan))[..., 1]
    return safe_divide((each * occurs).sum(axis=-1), occurs.sum(axis=-1))

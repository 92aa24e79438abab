"""Frequency bands: runs of rows that are used about equally often and can be coded alike.

A vocabulary is usually numbered from its most frequent value down. Where that is so, a band is a range of ids and costs
nothing to store; where it is not, a table is cut into plain chunks, which harm nothing.
"""

from itertools import pairwise

import torch
from torch import Tensor

#: A row seen at least so often belongs to a hotter band than one seen less.
THRESHOLDS = (64, 8, 3, 2)
#: A band of fewer rows is not worth a codebook of its own.
FEWEST_ROWS = 2_000
#: Longer runs are cut, so that the allocation has steps of a useful size and encoding has bounded memory.
MOST_ROWS = 262_144
#: Bands of a table, all in all: what tells them apart in a coded table is a byte.
MOST_BANDS = 200
#: Share of the rows above a threshold that must lie before the cut for ids to count as ordered by frequency.
ORDERED = 0.95


def cut_bands(counts: Tensor, page: int = 1) -> tuple[tuple[int, int], ...]:
    """Return the bands of a table as ranges [start, stop) of ids that cover it.

    Args:
        counts: (rows,) how often each row is looked up in the training data.
        page: cuts lie at multiples of so many ids.

    Example:
        >>> cut_bands(torch.cat([torch.full((3000,), 9), torch.full((5000,), 1)]), page=64)
        ((0, 3008), (3008, 8000))
    """
    rows = len(counts)
    cuts = [0]
    for threshold in THRESHOLDS:
        cut = _cut_at(counts, threshold)
        cut = None if cut is None else -(-cut // page) * page
        if cut is not None and cut - cuts[-1] >= FEWEST_ROWS and rows - cut >= FEWEST_ROWS:
            cuts.append(cut)
    cuts.append(rows)
    most = max(MOST_ROWS, -(-rows // (MOST_BANDS - len(cuts))))
    return tuple(piece for start, stop in pairwise(cuts) for piece in _pieces(start, stop, page, most))


def _cut_at(counts: Tensor, threshold: int) -> int | None:
    """Return the id that parts rows seen at least `threshold` times from the others, if ids are ordered so."""
    often = counts >= threshold
    many = int(often.sum())
    if many == 0:
        return None
    # A few rows out of place (the row for unknown values, a padding row) may move the cut a little.
    cut = min(many + 2, len(counts))
    inside = int(often[:cut].sum())
    if inside < ORDERED * many:
        return None
    return cut - int(often[:cut].flip(0).to(torch.uint8).argmax())


def _pieces(start: int, stop: int, page: int, most: int) -> list[tuple[int, int]]:
    """Cut a range into about equal pieces of about `most` rows, at page edges."""
    count = max(1, round((stop - start) / most))
    edges = [start + (stop - start) * piece // count // page * page for piece in range(count)]
    edges.append(stop)
    return list(pairwise(edges))

"""How few bytes a model's tables could be coded in, worked out from the rows without coding any.

Let a group of rows be looked up `p` times for each row of data, each, let `C` be the covariance of its rows and `G` the
mean outer product of the gradients that the loss (a negative log-likelihood) has at a lookup. An error of covariance
`E` in the rows then raises the loss by `p tr(G E) / 2` a row, and a Gaussian row needs at least

    b = sum_k max(0, log2(s_k / t) / 2) bits,    s_k the eigenvalues of G^(1/2) C G^(1/2),

to leave an error of `min(s_k, t)` in each direction k (reverse water-filling: Cover and Thomas 2006, theorem 10.3.3).
All groups share one water level for each lookup, `t = 1 / (m p)`, which is lowered until the loss rises by what is
allowed. That is the low end: codes that know which directions the loss feels. The high end knows only `C`, as our codes
do, pays a quarter of a bit more for each number that it codes at all (a scalar quantiser against the Gaussian bound at
high rates: Gish and Pierce 1968) and its codebooks, and may spend only a part of the drop, because a certificate needs
the rest for its interval.

Rows are grouped by how often training saw them, and `p` is counted on validation data: rows seen once in training are
seen less than once in as much data of the future (Good 1953).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flyweight.tables.recalibration import Recalibration
from flyweight.tables.sensitivity import chunks, feel, slopes
from flyweight.tables.sites import Table
from flyweight.task.scores import evaluating
from flyweight.task.span import Span
from flyweight.task.task import Task

#: Validation rows that are looked at.
ROWS = 16_384
#: Rows seen so often in training are a group; those seen most often are cut into so many groups more.
EDGES = (0, 1, 2, 3, 8, 64)
OFTEN_GROUPS = 12
#: Rows of a group whose covariance is taken.
MOST_ROWS = 65_536
#: Of the allowed drop, what codes may spend when it is certified, at the high end.
SPENT = 0.25
#: Bits that a scalar quantiser pays above the Gaussian bound for each number it codes.
SCALAR_LOSS = 0.25
#: Codewords of a codebook, in half precision, and how many codebooks a table has.
CODEWORDS, CODEBOOKS = 16, 2
#: Bits of a code.
CODE_BITS = 4
_LEVELS = np.logspace(-9, 0, 120)

Vector = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Group:
    """Rows of one table that training saw about equally often.

    Args:
        table: its name.
        rows: how many.
        lookups: of one of them, for each row of validation data.
        felt: eigenvalues of G^(1/2) C G^(1/2), (dim,).
        spread: eigenvalues of C, (dim,); weight: what the loss feels in their directions, (dim,).
    """

    table: str
    rows: int
    lookups: float
    felt: Vector
    spread: Vector
    weight: Vector


@dataclass(frozen=True, eq=False)
class Coded:
    """What tables will be once they are coded.

    Args:
        bytes: of all tables.
        codes: by table, the codes that all lookups for one row of data decode, at the high end.
    """

    bytes: Span
    codes: dict[str, float]


def coded_tables(task: Task, tables: tuple[Table, ...], counts: Mapping[str, Tensor], max_drop: float) -> Coded:
    """Return what the tables will take once coded within a drop of the loss of `max_drop` nats.

    Args:
        counts: lookups of each row in training, by table.

    Example: tables of DCN-V2 on Complete Journey, 186.6 MB, within 0.001: 0.27 to 0.62 MB; coded, they take 0.32 MB.
    """
    groups = group_rows(task, tables, counts)
    codebooks = sum(min(2 * CODEBOOKS * CODEWORDS * table.dim, table.bytes // 4) for table in tables)
    smallest = sum(2 * table.dim for table in tables)  # one vector a table, in half precision
    largest = sum(2 * table.rows * table.dim for table in tables)  # every row in half precision
    curve = _blind(groups)
    price = _price(curve, SPENT * max_drop)
    ideal, blind = _bytes(_ideal(groups), max_drop), curve(price)[0] / 8 + codebooks
    low = min(max(ideal, smallest), largest)
    high = min(max(blind, low), largest)
    return Coded(Span(low, (low * high) ** 0.5, high), _codes(groups, price))


def group_rows(task: Task, tables: tuple[Table, ...], counts: Mapping[str, Tensor]) -> list[Group]:
    """Return the rows of all tables in groups, with what the loss feels of them."""
    rows, felt, seen = _feelings(task, tables)
    found: list[Group] = []
    for table in tables:
        gradient = felt[table.name].double() / max(float(seen[table.name].sum()), 1.0)
        for inside in _by_count(counts[table.name]):
            lookups = float(seen[table.name][inside].double().mean()) / rows
            some = inside[:: -(-len(inside) // MOST_ROWS)]
            spread = _covariance(table.weight[some], counts[table.name][some])
            found.append(_group((table.name, len(inside), lookups), spread, gradient))
    return found


def _feelings(task: Task, tables: tuple[Table, ...]) -> tuple[int, dict[str, Tensor], dict[str, Tensor]]:
    """Return validation rows looked at, and by table the sum of gradients' outer products and lookups of each row."""
    felt = {table.name: torch.zeros(table.dim, table.dim) for table in tables}
    seen = {table.name: torch.zeros(table.rows) for table in tables}
    nothing = Recalibration(probability=task.output == "probability")
    rows = 0
    with evaluating(task.model):
        for number, (inputs, target, _) in enumerate(chunks(task, ROWS)):
            rows += len(target)
            feeling = feel(task, task.model, tables, inputs, target, number)
            strength = torch.ones(len(target))
            if len(feeling.pulls) == 1:
                strength = slopes(task, nothing, feeling.outputs, target)[1].float()
            for touch, pull in zip(feeling.touches, feeling.pulls[-1], strict=True):
                felt[touch.table] += (pull * strength[touch.samples(len(target))][:, None]).T @ pull
                seen[touch.table].index_add_(0, touch.ids, torch.ones(len(touch.ids)))
    return rows, felt, seen


def _by_count(counts: Tensor) -> Iterator[Tensor]:
    """Ids of rows seen about equally often in training."""
    for low, high in pairwise((*EDGES, float("inf"))):
        inside = torch.nonzero((counts >= low) & (counts < high)).squeeze(1)
        if not len(inside):
            continue
        if low < EDGES[-1]:
            yield inside
        else:
            ordered = inside[counts[inside].argsort()]
            yield from torch.tensor_split(ordered, min(OFTEN_GROUPS, len(ordered)))


def _covariance(rows: Tensor, counts: Tensor) -> Tensor:
    """The covariance of rows, (dim, dim) float64, each as often as training looks it up; never seen, all alike."""
    weight = counts.double() if float(counts.sum()) else torch.ones(len(rows), dtype=torch.float64)
    values = rows.double()
    values = values - (weight[:, None] * values).sum(0) / weight.sum()
    return (values * weight[:, None]).T @ values / weight.sum()


def _group(what: tuple[str, int, float], covariance: Tensor, gradient: Tensor) -> Group:
    spread, directions = torch.linalg.eigh(covariance)
    spread = spread.clamp_min(0)
    root = directions * spread.sqrt()  # C = root root'
    felt = torch.linalg.eigvalsh(root.T @ gradient @ root).clamp_min(0)
    weight = ((gradient @ directions) * directions).sum(0).clamp_min(0)
    return Group(*what, felt.numpy(), spread.numpy(), weight.numpy())


#: Bits of all rows and the rise of the loss, at a price of the loss in bits.
Curve = Callable[[float], tuple[float, float]]


def _bytes(curve: Curve, allowed: float) -> float:
    return curve(_price(curve, allowed))[0] / 8


def _price(curve: Curve, allowed: float) -> float:
    """The lowest price at which the loss rises by no more than is allowed."""
    cheap, dear = 1e-3, 1e15
    for _ in range(100):
        price = (cheap * dear) ** 0.5
        if curve(price)[1] > allowed:
            cheap = price
        else:
            dear = price
    return dear


def _codes(groups: list[Group], price: float) -> dict[str, float]:
    """Codes of all lookups for a row of data: of four bits, no more than one for each number of a row."""
    found: dict[str, float] = {}
    for one in groups:
        bits, rise = _blind_curve(one)
        each = float(bits[int(np.argmin(bits + price * rise))]) / one.rows
        codes = min(max(each / CODE_BITS, 1.0), len(one.spread)) if each > 0 else 0.0
        found[one.table] = found.get(one.table, 0.0) + one.rows * one.lookups * codes
    return found


def _ideal(groups: list[Group]) -> Curve:
    def at(price: float) -> tuple[float, float]:
        bits = rise = 0.0
        for one in groups:
            moved, level = one.lookups * one.felt, 1.0 / price
            coded = moved > level
            bits += one.rows * float(0.5 * np.log2(moved[coded] / level).sum())
            rise += one.rows * float(0.5 * np.minimum(moved, level).sum())
        return bits, rise

    return at


def _blind(groups: list[Group]) -> Curve:
    curves = [_blind_curve(one) for one in groups]

    def at(price: float) -> tuple[float, float]:
        bits = rise = 0.0
        for some_bits, some_rise in curves:
            best = int(np.argmin(some_bits + price * some_rise))
            bits, rise = bits + float(some_bits[best]), rise + float(some_rise[best])
        return bits, rise

    return at


def _blind_curve(group: Group) -> tuple[Vector, Vector]:
    """Bits and the rise of the loss of a group at each level of what is left of its rows' spread."""
    largest = float(group.spread.max())
    if largest <= 0:
        return np.zeros(1), np.zeros(1)
    levels = largest * _LEVELS[:, None]
    coded = group.spread > levels
    each = np.where(coded, 0.5 * np.log2(np.maximum(group.spread, levels) / levels) + SCALAR_LOSS, 0.0).sum(1)
    rise = 0.5 * group.lookups * (group.weight * np.minimum(group.spread, levels)).sum(1)
    return group.rows * each, group.rows * rise

"""What a band of rows may be coded as: a short menu from one shared vector to half-precision rows."""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from flyweight.tables.coding import CodedBand, Coding, encode, extend

#: The rows of a small band are cheap to keep; a codebook would cost as much.
SMALL_BAND = 1_024
#: Above so many rows the frugal menu stops at one code a row: more bits there would be most of the bytes.
LARGE_BAND = 100_000

ONE_VECTOR = Coding(bits=0)
HALF = Coding(rounded=True)


def menu(rows: int, dim: int, *, fine: bool) -> tuple[Coding, ...]:
    """Return the codings to choose from, cheapest first.

    Args:
        rows, dim: shape of the band.
        fine: whether to offer codings of more than 12 bits a row, for tight drops and small ratios.

    Example:
        >>> [coding.bits_per_row(16) for coding in menu(5_000, 16, fine=False)]
        [0, 1, 2, 3, 4, 8, 12]
    """
    codings = [ONE_VECTOR]
    codings += [Coding(bits=bits) for bits in (1, 2, 3, 4) if rows >= 2 ** (bits + 1)]
    if rows >= 64 and (fine or rows < LARGE_BAND):
        codings += [Coding(stages=2), Coding(stages=3)]
    if fine and rows >= 64:
        # Product codes: 1, 2 and 4 bits a dimension. Four bits for each dimension is an optimal scalar quantiser.
        codings += [Coding(groups=dim // width) for width in (4, 2, 1) if dim % width == 0 and dim // width > 1]
    if fine or rows < SMALL_BAND:
        codings.append(HALF)
    ordered = sorted(set(codings), key=lambda coding: coding.bits_per_row(dim))
    return tuple(ordered)


def way_to(coding: Coding) -> tuple[Coding, ...]:
    """Return the codings that one goes on from, in their order, and itself last.

    Example:
        >>> [str(one) for one in way_to(Coding(stages=2))]
        ['one 4-bit code', '2 4-bit codes']
    """
    return tuple(replace(coding, stages=stages) for stages in range(1, coding.stages + 1))


def seed_of(seed: int, number: int) -> int:
    """Return the seed of the codes of a model's table with that number among those that can be coded."""
    return seed + 1_009 * number


def encode_menu(
    rows: Tensor, weights: Tensor, codings: tuple[Coding, ...], *, start: int, seed: int
) -> Iterator[CodedBand]:
    """Yield the band in every coding of the menu; longer additive codes go on from the shorter ones.

    Args:
        rows: (n, dim), any float dtype; weights: (n,).
        start: id of the band's first row; seed: the same seed gives the same codes.
    """
    values = rows.to(torch.float32)
    longest: dict[tuple[int, int], CodedBand] = {}
    for coding in codings:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + coding.groups * 101 + coding.bits)
        if coding.rounded or coding.bits == 0:
            # Rounded rows are kept as they are, where they are: a copy of each band would be one of the whole table.
            yield encode(rows if coding.rounded else values, weights, coding, generator, start=start)
            continue
        shape = (coding.groups, coding.bits)
        generator.manual_seed(generator.initial_seed() + 7_919 * coding.stages)
        band = extend(longest.get(shape), values, weights, coding, generator, start=start)
        longest[shape] = band
        yield band

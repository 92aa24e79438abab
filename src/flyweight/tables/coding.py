"""How a band of rows is coded: a row is a sum of codewords, piece by piece.

A row of `dim` values is cut into `groups` equal pieces; each piece is the sum of `stages` codewords of `bits` bits.
One group is an additive code (residual quantisation: Chen, Guan & Wang 2010), one stage a product code (Jegou, Douze &
Schmid 2011), as many groups as dimensions an optimal scalar quantiser (Lloyd-Max).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from flyweight.tables.kmeans import assign, weighted_kmeans
from flyweight.tables.packing import pack, unpack


@dataclass(frozen=True)
class Coding:
    """The shape of a code: `groups` pieces a row, `stages` codewords a piece, `bits` a codeword.

    `bits` 0 gives the whole band one shared vector; `rounded` keeps the rows themselves, in half precision.

    Example:
        >>> Coding(stages=2, bits=4).bits_per_row(dim=16)
        8
    """

    groups: int = 1
    stages: int = 1
    bits: int = 4
    rounded: bool = False

    def bits_per_row(self, dim: int) -> int:
        """Return the bits one row takes, codebooks not counted."""
        return 16 * dim if self.rounded else self.groups * self.stages * self.bits

    def __str__(self) -> str:
        if self.rounded:
            return "float16 rows"
        if self.bits == 0:
            return "one shared vector"
        codes = f"one {self.bits}-bit code" if self.stages == 1 else f"{self.stages} {self.bits}-bit codes"
        return f"{codes} for each of {self.groups} pieces" if self.groups > 1 else codes


@dataclass(frozen=True, eq=False)
class CodedBand:
    """The rows [start, stop) of a table, coded.

    Args:
        codes: (bytes,) uint8, packed row after row, in a row stage after stage, in a stage group after group.
        codebook: (stages, groups, codewords, dim / groups) float16; for rounded rows the original rows themselves, not
            copied, rounded only when a table is built from them.
    """

    start: int
    stop: int
    coding: Coding
    codes: Tensor
    codebook: Tensor

    @property
    def bytes(self) -> int:
        """Bytes of codes and codebook together."""
        return self.codes.numel() + 2 * self.codebook.numel()

    def decode(self, places: Tensor) -> Tensor:
        """Return the rows at the given places of the band (0 is its first row), (n, dim) float32."""
        stages, groups, codewords, width = self.codebook.shape
        if self.coding.rounded:
            return self.codebook[0, 0, places].half().float()
        if self.coding.bits == 0:
            return self.codebook[0, 0, 0].float().expand(len(places), width)
        slots = torch.arange(stages * groups)
        codes = unpack(self.codes, places[:, None] * len(slots) + slots, self.coding.bits)  # (n, stages * groups)
        vectors = self.codebook.view(-1, width)[slots * codewords + codes].float()  # (n, stages * groups, width)
        return vectors.view(-1, stages, groups * width).sum(1)


def encode(
    rows: Tensor, weights: Tensor, coding: Coding, generator: torch.Generator, *, start: int = 0
) -> CodedBand:
    """Code rows with the least weighted squared error `1/2 sum_i w_i ||x^_i - x_i||^2`.

    Args:
        rows: (n, dim) float32, read block by block.
        weights: (n,) how much the loss feels each row.
        coding: the shape of the code; `groups` must divide `dim`.
        start: the id of the first row in its table.

    Example:
        >>> band = encode(torch.eye(4), torch.ones(4), Coding(bits=2), torch.Generator().manual_seed(0))
        >>> bool(torch.equal(band.decode(torch.arange(4)), torch.eye(4)))
        True
    """
    stop = start + len(rows)
    nothing = torch.empty(0, dtype=torch.uint8)
    if coding.rounded:
        return CodedBand(start, stop, coding, nothing, rows[None, None])
    if coding.bits == 0:
        mean = weighted_kmeans(rows, weights, 1, generator)
        return CodedBand(start, stop, coding, nothing, mean.half()[None, None])
    return extend(None, rows, weights, coding, generator, start=start)


def extend(
    shorter: CodedBand | None,
    rows: Tensor,
    weights: Tensor,
    coding: Coding,
    generator: torch.Generator,
    *,
    start: int = 0,
) -> CodedBand:
    """Code rows in `coding.stages` stages, taking over the stages that a shorter code of the same shape already has."""
    count, dim = rows.shape
    codewords, width = 2**coding.bits, dim // coding.groups
    slots = coding.stages * coding.groups
    codes = torch.empty(count, slots, dtype=torch.uint8)
    codebook = torch.zeros(coding.stages, coding.groups, codewords, width, dtype=torch.float16)
    done = 0
    residual = rows
    if shorter is not None:
        done = shorter.coding.stages
        places = torch.arange(count)
        known = torch.arange(done * coding.groups)
        codes[:, known] = unpack(shorter.codes, places[:, None] * len(known) + known, coding.bits).to(torch.uint8)
        codebook[:done] = shorter.codebook
        residual = rows - shorter.decode(places)
    for stage in range(done, coding.stages):
        parts = []
        for group in range(coding.groups):
            piece = residual[:, group * width : (group + 1) * width].contiguous()
            # Codewords are rounded before rows are assigned, so that a row picks the best of what is stored.
            centroids = weighted_kmeans(piece, weights, codewords, generator).half()
            chosen = assign(piece, centroids.float())
            codebook[stage, group] = centroids
            codes[:, stage * coding.groups + group] = chosen
            if stage + 1 < coding.stages:
                parts.append(centroids.float()[chosen.long()])
        if parts:
            residual = residual - torch.cat(parts, 1)
    packed = pack(codes.view(-1), coding.bits)
    return CodedBand(start, start + count, coding, packed, codebook)

"""A coded table as a module: the lookup touches the rows asked for and exports to a dozen plain operators.

All bands of a table share one lookup. A row's codes lie at `id * row_bits + offset` bits in the packed bytes, where
`row_bits` and `offset` depend on the band alone, so bands of different codings differ in a few small integers only.
"""

import functools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flyweight.tables.coding import CodedBand

#: The plan's first column is the bits of a row; then come `slots` columns each of offset, mask, entry and step.
HEAD = 1


class CodedTable(nn.Module):
    """Rows of a table as sums of codewords.

    Buffers: `codes` (bytes, 1) uint8, the packed codes of all bands; `plan` (bands, 1 + 4 * slots) int64, how to read a
    row of each band; `page_band` (pages, 1) uint8, the band of each run of 2**page_bits ids.
    Parameter: `codebook` (codewords, width), float16; `table.float()` makes it trainable in full precision.

    Args:
        bands: coded bands that cover the table in order, cut at multiples of 2**`page_bits_of(rows)`.
        dtype: what lookups return, the dtype of the original table.
    """

    codes: Tensor
    plan: Tensor
    page_band: Tensor
    powers: Tensor

    def __init__(self, bands: tuple[CodedBand, ...], dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.rows = bands[-1].stop
        self.dtype = dtype
        self.groups = max(band.codebook.shape[1] for band in bands)
        self.stages = max(band.codebook.shape[0] for band in bands)
        self.dim = bands[0].codebook.shape[1] * bands[0].codebook.shape[3]
        # A code of 3, 5, 6 or 7 bits may run over the edge of a byte: then two bytes are read for every code.
        self.straddles = any(8 % max(band.coding.bits, 1) for band in bands)
        self.coded = any(band.codes.numel() for band in bands)
        self.stepped = any(band.coding.rounded for band in bands)
        self.page_bits = page_bits_of(self.rows)
        plan, codebook = _plan(bands, self.stages, self.groups)
        self.register_buffer("plan", plan)
        if self.coded:
            end = torch.zeros(2, dtype=torch.uint8)  # a band without codes and a straddling last code read past the end
            self.register_buffer("codes", torch.cat([*(band.codes for band in bands), end])[:, None])
            self.register_buffer("powers", 2 ** torch.arange(8)[:, None])
        if len(bands) > 1:
            self.register_buffer("page_band", _page_bands(bands, self.page_bits))
        self.codebook = nn.Parameter(codebook, requires_grad=False)

    def forward(self, ids: Tensor) -> Tensor:
        """Return the rows of `ids`, any shape of whole numbers in [0, rows), as (*ids.shape, dim)."""
        entry = self._entry(ids.reshape(-1, 1).to(torch.int64))  # (n, slots): the codeword of each piece and stage
        # Stage by stage: engines are slow at summing over an axis in the middle.
        row = functools.reduce(
            torch.add,
            [F.embedding(stage, self.codebook).to(self.dtype) for stage in torch.split(entry, self.groups, 1)],
        )  # (n, groups, width)
        return row.reshape(*ids.shape, self.dim)

    def _entry(self, ids: Tensor) -> Tensor:
        if len(self.plan) == 1:
            plan = self.plan  # (1, columns)
        else:
            band = F.embedding(ids >> self.page_bits, self.page_band).reshape(-1).to(torch.int64)
            plan = F.embedding(band, self.plan)  # (n, columns)
        slots = self.stages * self.groups
        row_bits, offset, mask, entry, step = torch.split(plan, [HEAD, slots, slots, slots, slots], 1)
        if self.coded:
            entry = entry + self._code(ids * row_bits + offset, mask)
        if self.stepped:
            entry = entry + ids * step
        return entry.expand(ids.shape[0], slots)  # one vector for all ids has no id in it so far

    def _code(self, position: Tensor, mask: Tensor) -> Tensor:
        """Return the codes that start at the given bits; a mask of 0 reads as code 0.

        Only operators that every engine computes exactly on large whole numbers: bitwise and, multiplication by a
        power of two, and a right shift by a constant, which the exporter writes so. The last division is of less
        than 2**16 by a power of two, exact in float32.
        """
        byte = position >> 3
        word = F.embedding(byte, self.codes).squeeze(-1).to(torch.int64)
        if self.straddles:
            word = word + 256 * F.embedding(byte + 1, self.codes).squeeze(-1).to(torch.int64)
        power = F.embedding(position & 7, self.powers).squeeze(-1)
        return ((word & (mask * power)).to(torch.float32) / power.to(torch.float32)).to(torch.int64)

    def bytes(self) -> int:
        """Return the bytes of everything the table stores: codes, codebook and how to read them."""
        return sum(tensor.numel() * tensor.element_size() for tensor in [*self.buffers(), *self.parameters()])

    def extra_repr(self) -> str:
        """Say the shape and the size."""
        return f"{self.rows}, {self.dim}, bytes={self.bytes()}"


def page_bits_of(rows: int) -> int:
    """Return the binary logarithm of the ids in one page: at most 2,048 pages, at least 64 ids a page.

    Example:
        >>> page_bits_of(1_000_000)
        9
    """
    return max(6, (max(rows - 1, 1) // 2_048).bit_length())


def _page_bands(bands: tuple[CodedBand, ...], page_bits: int) -> Tensor:
    starts = torch.tensor([band.start for band in bands[1:]], dtype=torch.int64)
    assert all(band.start % (1 << page_bits) == 0 for band in bands), "bands are cut at page edges"
    pages = torch.arange((bands[-1].stop - 1 >> page_bits) + 1) << page_bits
    return torch.bucketize(pages, starts, right=True).to(torch.uint8)[:, None]


def _plan(bands: tuple[CodedBand, ...], stages: int, groups: int) -> tuple[Tensor, Tensor]:
    """Lay all bands' codebooks into one and return the plan that finds a row's codewords in it."""
    dim = bands[0].codebook.shape[1] * bands[0].codebook.shape[3]
    width = dim // groups
    codebook = [torch.zeros(1, width, dtype=torch.float16)]  # entry 0: what a stage that a band lacks adds
    entries = 1
    base = 0  # bits before this band
    rows = []
    for band in bands:
        own_stages, own_groups, codewords, _ = band.codebook.shape
        shared = groups // own_groups  # pieces of ours in one piece of the band
        row_bits = 0 if band.coding.rounded else own_stages * own_groups * band.coding.bits
        offset, masks, first, step = [], [], [], []
        for stage in range(stages):
            for group in range(groups):
                if stage >= own_stages:
                    slot, mask, entry, rounded = 0, 0, 0, 0
                else:
                    slot = (stage * own_groups + group // shared) * band.coding.bits
                    mask = 0 if row_bits == 0 else codewords - 1
                    entry = entries + (stage * groups + group) * codewords
                    rounded = int(band.coding.rounded)
                    entry -= band.start * rounded
                offset.append(base - band.start * row_bits + (slot if row_bits else 0))
                masks.append(mask)
                first.append(entry)
                step.append(rounded)
        rows.append([row_bits, *offset, *masks, *first, *step])
        pieces = band.codebook.view(own_stages, own_groups, codewords, shared, width).transpose(2, 3)
        codebook.append(pieces.reshape(-1, width).half())
        entries += own_stages * groups * codewords
        base += 8 * band.codes.numel()
    return torch.tensor(rows, dtype=torch.int64), torch.cat(codebook)

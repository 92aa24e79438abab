"""A coded table as a module: the lookup touches the rows asked for and exports to a dozen plain operators.

All bands of a table share one lookup. A row's codes lie at `id * row_bits + offset` bits in the packed bytes, where
`row_bits` and `offset` depend on the band alone, so bands of different codings differ in a few small integers only.
"""

import copy
import functools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flyweight.tables.coding import CodedBand
from flyweight.tables.rounded_table import exact_product

#: Whole numbers below this are exact in float32, where a shift is one multiplication; above, engines differ.
FLOAT_EXACT = 1 << 24
#: A codebook of at most so many values is made float32 as a whole, which engines do once, when they load it.
CODEBOOK_VALUES = 1 << 20
#: What is read off the plan for a band: bits of a row; then, for each slot, where its first code lies, the mask of a
#: code, the first codeword, and how much an id adds to it.
COLUMNS = ("row_bits", "offset", "mask", "first", "step")


class CodedTable(nn.Module):
    """Rows of a table as sums of codewords.

    A row has `slots = stages * groups` codewords. Buffers: `codes` (bytes,) uint8, the packed codes of all bands;
    `page_band` (pages,) uint8, the band of each run of 2**page_bits ids; `row_bits`, `offset`, ... how to read a row of
    each band, (bands,) or (bands, slots) int64, or plain numbers where all bands agree.
    Parameter: `codebook` (codewords, width), float16; `table.float()` makes it trainable in full precision.

    Args:
        bands: coded bands that cover the table in order, cut at multiples of 2**`page_bits_of(rows)`.
        dtype: what lookups return, the dtype of the original table.
    """

    recovers = ("codebook",)  # what a recovery trains, in float32, and rounds to its own dtype again

    codes: Tensor
    page_band: Tensor
    reciprocals: Tensor

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
        self.bits = 8 * sum(band.codes.numel() for band in bands)
        self.page_bits = page_bits_of(self.rows)
        plan, codebook = _plan(bands, self.stages, self.groups)
        for name, column in plan.items():
            self._keep(name, column)
        if self.coded:
            end = torch.zeros(2, dtype=torch.uint8)  # a band without codes and a straddling last code read past the end
            self.register_buffer("codes", torch.cat([*(band.codes for band in bands), end]))
            self.register_buffer("reciprocals", 0.5 ** torch.arange(8, dtype=torch.float32))
        if len(bands) > 1:
            self.register_buffer("page_band", _page_bands(bands, self.page_bits))
        self.codebook = nn.Parameter(codebook, requires_grad=False)
        # What a stage that a band lacks adds is nothing, also after training: a padding row has no gradient.
        self.nothing = 0 if any(band.codebook.shape[0] < self.stages for band in bands) else None

    def _keep(self, name: str, column: Tensor) -> None:
        """Keep a column of the plan, (bands, slots): as a plain number where it is one, else as a buffer."""
        if self.stages * self.groups == 1:
            column = column[:, 0]
        elif name == "row_bits":
            column = column[:, :1]
        if bool((column == column.reshape(-1)[0]).all()):
            setattr(self, name, int(column.reshape(-1)[0]))
        else:
            self.register_buffer(name, column)

    def forward(self, ids: Tensor) -> Tensor:
        """Return the rows of `ids`, any shape of whole numbers in [0, rows), as (*ids.shape, dim)."""
        entry = self._entry(ids.to(torch.int64))
        small = self.codebook.numel() <= CODEBOOK_VALUES
        codebook = self.codebook.to(self.dtype) if small else self.codebook
        if self.stages * self.groups == 1:
            return F.embedding(entry, codebook).to(self.dtype)
        # Stage by stage: engines are slow at summing over an axis in the middle.
        stages = torch.split(entry, self.groups, -1)  # each (..., groups)
        parts = [F.embedding(stage, codebook, self.nothing).to(self.dtype) for stage in stages]
        return functools.reduce(torch.add, parts).flatten(-2)

    def _entry(self, ids: Tensor) -> Tensor:
        """Return the codeword of each slot, (*ids.shape, slots), or (*ids.shape) where there is one slot."""
        band = self._band(ids)
        if self.stages * self.groups > 1:
            ids = ids.unsqueeze(-1)
        entry = self._column("first", band)
        if self.coded:
            position = ids * self._column("row_bits", band) + self._column("offset", band)
            entry = self._code(position, self._column("mask", band)) + entry
        step = self._column("step", band)
        if not isinstance(step, int) or step:
            entry = ids * step + entry
        if isinstance(entry, int):  # one vector for all ids
            return torch.full_like(ids, entry)
        return entry.expand(*ids.shape[:-1], self.stages * self.groups) if self.stages * self.groups > 1 else entry

    def _band(self, ids: Tensor) -> Tensor | None:
        """Return the band of each id, or None where all are in one."""
        if "page_band" not in self._buffers:
            return None
        return _pick(self.page_band, _shifted(ids, self.page_bits, self.rows)).to(torch.int64)

    def _column(self, name: str, band: Tensor | None) -> Tensor | int:
        column: Tensor | int = getattr(self, name)
        if isinstance(column, int):
            return column
        if band is None:
            return column[0]
        return _pick(column, band) if column.ndim == 1 else F.embedding(band, column)

    def _code(self, position: Tensor, mask: Tensor | int) -> Tensor:
        """Return the codes that start at the given bits; a mask of 0 reads as code 0.

        Only operators that every engine computes exactly on large whole numbers. The product of less than 2**16 with a
        power of two is exact in float32, and so is its whole part.
        """
        byte = _shifted(position, 3, self.bits)
        word = _pick(self.codes, byte).to(torch.float32)
        if self.straddles:
            word = word + 256.0 * _pick(self.codes, byte + 1).to(torch.float32)
        return (word * _pick(self.reciprocals, position & 7)).to(torch.int64) & mask

    def times(self, factor: float) -> "CodedTable | None":
        """Return a table with rows so many times as large, codes shared; None where its codebook would be rounded."""
        codebook = exact_product(self.codebook, factor)
        if codebook is None:
            return None
        scaled = copy.copy(self)
        scaled._parameters = {"codebook": nn.Parameter(codebook, requires_grad=False)}
        return scaled

    def bytes(self) -> int:
        """Return the bytes of everything the table stores: codes, codebook and how to read them."""
        return sum(tensor.numel() * tensor.element_size() for tensor in [*self.buffers(), *self.parameters()])

    def extra_repr(self) -> str:
        """Say the shape and the size."""
        return f"{self.rows}, {self.dim}, bytes={self.bytes()}"


def _pick(values: Tensor, places: Tensor) -> Tensor:
    """Return `values[places]` of a vector; written as a gather along its axis, ONNX Runtime's quickest by three."""
    if places.ndim == 1:
        return values.gather(0, places)
    return values.gather(0, places.reshape(-1)).reshape(places.shape)


def _shifted(numbers: Tensor, bits: int, limit: int) -> Tensor:
    """Return `numbers >> bits` for whole numbers in [0, limit), in the fewest exact operators."""
    if limit < FLOAT_EXACT:
        return (numbers.to(torch.float32) * 0.5**bits).to(torch.int64)
    return numbers >> bits


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
    return torch.bucketize(pages, starts, right=True).to(torch.uint8)


def _plan(bands: tuple[CodedBand, ...], stages: int, groups: int) -> tuple[dict[str, Tensor], Tensor]:
    """Lay all bands' codebooks into one; return COLUMNS, each (bands, slots) int64, and the joined codebook."""
    dim = bands[0].codebook.shape[1] * bands[0].codebook.shape[3]
    width = dim // groups
    missing = any(band.codebook.shape[0] < stages for band in bands)
    codebook = [torch.zeros(int(missing), width, dtype=torch.float16)]  # entry 0: what a stage that a band lacks adds
    entries, base = int(missing), 0  # codewords and bits before this band
    rows: dict[str, list[list[int]]] = {name: [] for name in COLUMNS}
    for band in bands:
        own_stages, own_groups, codewords, _ = band.codebook.shape
        shared = groups // own_groups  # pieces of ours in one piece of the band
        rounded = int(band.coding.rounded)
        row_bits = 0 if rounded else own_stages * own_groups * band.coding.bits
        slots = [(stage, group) for stage in range(stages) for group in range(groups)]
        there = [stage < own_stages for stage, _ in slots]
        lying = [(stage * own_groups + group // shared) * band.coding.bits * bool(row_bits) for stage, group in slots]
        start = base - band.start * row_bits
        first = entries - band.start * rounded
        rows["row_bits"].append([row_bits] * len(slots))
        rows["offset"].append([start + at * own for at, own in zip(lying, there, strict=True)])
        rows["mask"].append([(codewords - 1) * own * bool(row_bits) for own in there])
        places = [(stage * groups + group) * codewords for stage, group in slots]
        rows["first"].append([(first + place) * own for place, own in zip(places, there, strict=True)])
        rows["step"].append([rounded * own for own in there])
        pieces = band.codebook.view(own_stages, own_groups, codewords, shared, width).transpose(2, 3)
        codebook.append(pieces.reshape(-1, width).half())
        entries += own_stages * groups * codewords
        base += 8 * band.codes.numel()
    return {name: torch.tensor(values, dtype=torch.int64) for name, values in rows.items()}, torch.cat(codebook)

"""Codewords of stacked tables, read from codes that are unpacked when a file is loaded.

A file holds codes of one to sixteen bits, band by band. Finding one takes some forty operators, 130 us for 14 fields of
500 rows in ONNX Runtime; of a table of the entries themselves, two bytes for each row, it is one gather, 40 us with all
around it. The table is worked out from constants alone, which engines do once, when they load a file (20 ms for 2.9
million rows): so files stay as small as before, and only memory grows, to a 32nd of float32 rows of 16 numbers.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from flyweight.rewrite.stack_layout import Layout

#: Bytes of memory for all unpacked rows; more would leave the processor's caches, and be what compression saved.
UNPACKED_BYTES = 16 << 20
_BYTE = 8


@dataclass(frozen=True)
class _Band:
    """Rows that lie together and are coded alike; `first` is the entry of code 0 in its first row."""

    rows: int
    bits: int
    step: int  # 1 where each row has a codeword of its own
    first: int
    byte: int

    @property
    def unit(self) -> int:
        """Bytes after which codes begin at the edge of a byte again."""
        return self.bits if self.bits and _BYTE % self.bits else 1

    @property
    def stored(self) -> int:
        """Bytes of its codes, in whole units."""
        return -(-self.rows * self.bits // (_BYTE * self.unit)) * self.unit

    @property
    def decoded(self) -> int:
        """Codes in those bytes, of which the first `rows` are the band's."""
        return self.stored * _BYTE // self.bits if self.bits else self.rows


class UnpackedEntries(nn.Module):
    """The codeword of each lookup: `forward(ids)` of (fields, n) returns (fields, n), both int64.

    Args:
        bands: of all tables, one after the other.
        codes: (bytes,) uint8 that they lie in.
        starts: (fields, 1) the row, counted over all tables, where each field's table begins.
        entries: how many codewords there are.
    """

    starts: Tensor
    turns: Tensor
    jumps: Tensor

    def __init__(self, bands: Sequence[_Band], codes: Tensor, starts: Tensor, entries: int) -> None:
        super().__init__()
        self.register_buffer("starts", starts)
        self.dtype = torch.int16 if entries <= torch.iinfo(torch.int16).max else torch.int32
        self.rows = sum(band.rows for band in bands)
        self.widths = tuple(sorted({band.bits for band in bands if band.bits}))
        by_width = sorted(range(len(bands)), key=lambda place: (bands[place].bits, bands[place].step))
        for bits in self.widths:
            own = [bands[place] for place in by_width if bands[place].bits == bits]
            self.register_buffer(f"codes_{bits}", torch.cat([_padded(codes, band) for band in own]))
        self.alike = sum(band.rows for band in bands if not band.bits and not band.step)
        self.counted = [bands[place].rows for place in by_width if bands[place].step]
        # Decoded codes stand by width; pieces are bands and what is left over behind them.
        self.pieces = [size for place in by_width for size in (bands[place].rows, _over(bands[place])) if size]
        at: dict[int, int] = {}
        for place in by_width:
            at[place] = len(at) + sum(_over(bands[one]) > 0 for one in at)
        self.order = [at[place] for place in range(len(bands))]
        self._keep_firsts(bands)
        self._kept: Tensor | None = None

    def _keep_firsts(self, bands: Sequence[_Band]) -> None:
        """Keep where bands begin, and by how much the first entry changes there."""
        ends = torch.tensor([band.rows for band in bands]).cumsum(0)
        nothing = torch.zeros(1, dtype=torch.int64)
        self.register_buffer("turns", torch.cat([nothing, ends[:-1]]))
        firsts = torch.tensor([band.first for band in bands])
        self.register_buffer("jumps", firsts.diff(prepend=nothing).int())

    def forward(self, ids: Tensor) -> Tensor:
        """Return the codeword of each lookup for ids (fields, n)."""
        places = (ids + self.starts).reshape(-1)
        return self._table().gather(0, places).reshape(ids.shape).to(torch.int64)

    def _table(self) -> Tensor:
        """Return the entry of every row, (rows,); worked out anew where it is written into a file."""
        if torch.compiler.is_exporting():
            return self.unpacked()
        if self._kept is None or self._kept.device != self.starts.device:
            with torch.no_grad():
                self._kept = self.unpacked()
        return self._kept

    def unpacked(self) -> Tensor:
        """Return the entry of every row, (rows,), worked out from codes by operators that every engine has.

        Passes over all rows are what loading a file takes: they are few, and of two bytes a row where that is enough.
        """
        codes = torch.cat([*self._uncoded(), *(self._decoded(bits) for bits in self.widths)])
        if self.pieces != [self.rows]:
            pieces = torch.split(codes, self.pieces)
            codes = torch.cat([pieces[place] for place in self.order])
        firsts = torch.zeros(self.rows, dtype=torch.int32, device=self.jumps.device)
        firsts = firsts.scatter(0, self.turns, self.jumps).cumsum(0, dtype=torch.int32)
        return codes + firsts.to(self.dtype)

    def _uncoded(self) -> list[Tensor]:
        """Return what stands for codes where all rows are alike, and where each row has a codeword of its own."""
        found = [torch.zeros(self.alike, dtype=self.dtype, device=self.jumps.device)] if self.alike else []
        if self.counted:
            places = torch.arange(max(self.counted), dtype=torch.int32, device=self.jumps.device).to(self.dtype)
            found += [places[:rows] for rows in self.counted]
        return found

    def _decoded(self, bits: int) -> Tensor:
        """Return the codes of so many bits, those of all bands one after the other, (codes,)."""
        packed: Tensor = getattr(self, f"codes_{bits}")
        if bits == _BYTE:
            return packed.to(self.dtype)
        unit = 1 if _BYTE % bits == 0 else bits
        lying = torch.arange(_BYTE * unit // bits) * bits  # the bit where each code of a unit begins
        word = packed.reshape(-1, unit).to(torch.float32)
        if unit > 1:
            bytes_read = range(-(-max(at * bits % _BYTE + bits for at in range(_BYTE)) // _BYTE))
            read = [(lying // _BYTE + more).clamp_max(unit - 1) for more in bytes_read]
            parts = [word.index_select(1, one) * 256.0**more for more, one in zip(bytes_read, read, strict=True)]
            word = functools.reduce(torch.add, parts)
        # Exact in float32: fewer than 24 bits, and shifted by a power of two.
        shifted = word * (0.5 ** (lying % _BYTE).float())
        return (shifted.to(torch.int32) & ((1 << bits) - 1)).to(self.dtype).reshape(-1)


def _over(band: _Band) -> int:
    return band.decoded - band.rows


def _padded(codes: Tensor, band: _Band) -> Tensor:
    own = codes[band.byte : band.byte + -(-band.rows * band.bits // _BYTE)]
    return nn.functional.pad(own, (0, band.stored - len(own)))


def unpack(layout: Layout, table_of: Sequence[int]) -> UnpackedEntries | None:
    """Return a reader of unpacked codes, None where they would take too much memory or a row has several.

    Args:
        layout: the tables side by side.
        table_of: the table that each field reads.
    """
    plans = layout.plans
    if layout.stages * plans[0].groups > 1 or not len(layout.codes):
        return None
    entries = len(layout.codewords) + sum(
        len(piece) * piece.shape[2] ** piece.shape[1] for piece in layout.sums
    )
    rows = [plan.rows for plan in plans]
    if sum(rows) * (2 if entries <= torch.iinfo(torch.int16).max else 4) > UNPACKED_BYTES:
        return None
    bands: list[_Band] = []
    for table, start in enumerate(layout.band_starts()):
        found = _bands_of(layout, table, start)
        if found is None:
            return None
        bands += found
    starts = torch.tensor([[sum(rows[:table])] for table in table_of])
    return UnpackedEntries(bands, layout.codes, starts, entries)


def _bands_of(layout: Layout, table: int, start: int) -> list[_Band] | None:
    """Return the bands of a table, None where a code does not begin at the edge of a byte."""
    plan = layout.plans[table]
    edges = [0, plan.rows]
    if plan.page_band is not None:
        changes = plan.page_band.to(torch.int64).diff().nonzero().flatten() + 1
        if len(changes) + 1 != plan.bands:
            return None
        edges = [0, *(changes << plan.page_bits).tolist(), plan.rows]
    found = []
    for own, (begin, end) in enumerate(pairwise(edges)):
        column = {name: int(values[0, start + own]) for name, values in layout.columns.items()}
        bit = begin * column["row_bits"] + column["offset"]
        if bit % _BYTE or column["mask"] != (1 << column["row_bits"]) - 1:
            return None
        first = column["first"] + begin * column["step"]
        byte = column["base"] + bit // _BYTE
        found.append(_Band(end - begin, column["row_bits"], column["step"], first, byte))
    return found

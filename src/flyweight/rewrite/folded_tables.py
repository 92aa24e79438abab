"""Stacked tables whose codewords went through a linear layer before they were stored."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flyweight.rewrite.stacked_tables import SHARED, StackedTables

#: Numbers that are looked up stay near the processor: 4 MB in float32.
FOLDED_VALUES = 1 << 20
#: Bytes by which a file may grow for it: folded codewords are stored in float32, and as wide as the layer's outputs.
GROWTH = 1 << 14


class FoldedTables(nn.Module):
    """What `Linear(rows side by side)` gives, as a sum of codewords: `forward(*ids)` returns (*ids.shape, outputs).

    `W [r_1, r_2, ...] + b = W_1 r_1 + W_2 r_2 + ... + b`, and each codeword belongs to one field.

    Args:
        stacked: left as it is; of one group, each table read by one field.
        weight: (outputs, fields * dim). bias: (outputs,) or None.
    """

    traced_whole = True
    bias: Tensor | None

    def __init__(self, stacked: StackedTables, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.outputs = len(weight)
        parts = weight.detach().double().view(self.outputs, stacked.fields, stacked.dim)
        owner = torch.cat([torch.full((count,), field) for count, field in stacked.owners])
        kept = {id(tensor): tensor for tensor in [*stacked.buffers(), *stacked.parameters()]}
        self.tables = copy.deepcopy(stacked, kept)
        self.tables.codebook = _frozen(_folded(stacked.codebook, owner, parts))
        for kind, fields in enumerate(stacked.sum_owners):
            pieces: Tensor = getattr(stacked, f"sums_{kind}")
            owners = torch.tensor(fields)[:, None, None].expand(pieces.shape[:3])
            folded = _folded(pieces.flatten(0, 2), owners.flatten(), parts)
            setattr(self.tables, f"sums_{kind}", _frozen(folded.view(*pieces.shape[:3], -1)))
        self.register_buffer("bias", None if bias is None else bias.detach().clone())

    def forward(self, *ids: Tensor) -> Tensor:
        """Return the layer's outputs for `ids`, one tensor of whole numbers for each field, all of one shape."""
        parts = F.embedding(self.tables.entries(*ids), self.tables.book())  # (lookups, n, outputs)
        total = parts.sum(0) if self.bias is None else parts.sum(0) + self.bias
        return total if ids[0].ndim == 1 else total.reshape(-1, *ids[0].shape[1:], self.outputs)


def _frozen(values: Tensor) -> nn.Parameter:
    return nn.Parameter(values.float(), requires_grad=False)


def _folded(codewords: Tensor, owner: Tensor, parts: Tensor) -> Tensor:
    """Return each codeword through its field's part of the weight: (n, dim), (n,), (outputs, fields, dim)."""
    folded = torch.zeros(len(codewords), len(parts), dtype=torch.float64)
    for field in range(parts.shape[1]):
        own = owner == field
        folded[own] = codewords.detach()[own].double() @ parts[:, field].T
    return folded


def why_not_folded(stacked: StackedTables, outputs: int) -> str | None:
    """Return why a layer of so many outputs would not be cheaper folded into the tables it reads, None where it is.

    A gather of folded codewords and a sum, against a gather of codewords and a product, 500 rows, one thread, us:

    | fields, outputs | ONNX Runtime | OpenVINO | | fields, outputs | ONNX Runtime | OpenVINO |
    |---|---|---|---|---|---|---|
    | 25, 1 | 176 -> 103 | 258 -> 138 | | 8, 8 | 60 -> 54 | 162 -> 135 |
    | 25, 32 | 230 -> 152 | 311 -> 227 | | 8, 32 | 79 -> 112 | 180 -> 154 |
    | 25, 64 | 342 -> 202 | 427 -> 278 | | 4, 8 | 33 -> 34 | 136 -> 125 |
    """
    if stacked.groups > 1:
        return f"a row is cut into {stacked.groups} pieces, and each would be looked up as wide as the layer's outputs"
    if any(field == SHARED for _, field in stacked.owners) or any(SHARED in fields for fields in stacked.sum_owners):
        return "two fields read the same table, and its codewords would have to be stored for each"
    if not ((outputs <= 8 and stacked.lookups >= 8) or (outputs <= 64 and stacked.lookups >= 16)):
        return (
            f"{stacked.lookups} lookups of {outputs} outputs are not cheaper than the layer "
            "(at most 8 outputs from 8 lookups on, 64 from 16 on)"
        )
    codewords = sum(parameter.numel() for parameter in stacked.parameters()) // stacked.dim
    before = sum(parameter.numel() * parameter.element_size() for parameter in stacked.parameters())
    layer, after = 4 * outputs * stacked.fields * stacked.dim, 4 * outputs * codewords
    if after > before + layer + GROWTH:
        return f"{after:,} bytes of folded codewords would take the place of {before + layer:,}, the layer's included"
    entries = stacked.codebook.shape[0] + sum(
        len(fields) * getattr(stacked, f"sums_{kind}").shape[2] ** getattr(stacked, f"sums_{kind}").shape[1]
        for kind, fields in enumerate(stacked.sum_owners)
    )
    if entries * outputs > FOLDED_VALUES:
        return f"all {entries:,} sums of codewords would take {4 * entries * outputs:,} bytes while the model runs"
    return None

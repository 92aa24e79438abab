"""A weight that holds what pruning left of it: values, or codes into a few shared values, and their places.

Han, Mao, Dally, "Deep Compression", 2016: places as gaps of few bits, values as codes into a codebook. The dense weight
is worked out by plain operators of constants alone (`engines.sparse_weights`), which engines do once, as they load.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from flyweight.graph.sparse_bits import read_bits


class SparseWeight(nn.Module):
    """A dense weight made of few stored values.

    Parameter: `values` (v,) float32, one for each entry, or the codebook where there are codes. Those of exactly 0 stay
    0 in training: they stand for nothing. Buffers: `places` and `codes`, packed bits.

    Args:
        shape: of the dense weight.
        values: (v,) float32.
        places: packed gaps of `place_bits` bits between entries' places in the flattened weight; with `place_bits` 0
            a bitmap, and entry 0 is what empty places hold.
        entries: how many entries there are.
        codes: packed codes of `code_bits` bits, one for each entry; None where `values` has one for each.
    """

    places: Tensor
    codes: Tensor | None

    def __init__(
        self,
        shape: Sequence[int],
        values: Tensor,
        places: Tensor,
        *,
        place_bits: int,
        entries: int,
        codes: Tensor | None = None,
        code_bits: int = 0,
    ) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.place_bits, self.code_bits, self.entries = place_bits, code_bits, entries
        self.values = nn.Parameter(values)
        self.register_buffer("places", places)
        self.register_buffer("codes", codes)

    def forward(self) -> Tensor:
        """Return the dense weight, float32."""
        dense: Tensor = sparse_weight(
            self.values, self.places, self.codes, self.place_bits, self.code_bits, self.entries, list(self.shape)
        )
        return dense

    def bytes(self) -> int:
        """Return the bytes of what is stored."""
        return sum(tensor.numel() * tensor.element_size() for tensor in [*self.buffers(), *self.parameters()])

    def extra_repr(self) -> str:
        """Say the shape, how many values it has and the size."""
        return f"{'x'.join(map(str, self.shape))}, entries={self.entries}, bytes={self.bytes()}"


@torch.library.custom_op("flyweight::sparse_weight", mutates_args=())
def sparse_weight(
    values: Tensor,
    places: Tensor,
    codes: Tensor | None,
    place_bits: int,
    code_bits: int,
    entries: int,
    shape: Sequence[int],
) -> Tensor:
    """Return the dense weight of what a `SparseWeight` stores."""
    stored = values if codes is None else values[read_bits(codes, code_bits, entries)]
    size = torch.Size(shape)
    if place_bits:
        places = read_bits(places, place_bits, entries).cumsum(0)
        return torch.zeros(size.numel(), dtype=values.dtype).scatter(0, places, stored).reshape(size)
    there = read_bits(places, 1, size.numel())
    return stored[there.cumsum(0) * there].reshape(size)


@sparse_weight.register_fake
def _(
    values: Tensor,
    places: Tensor,
    codes: Tensor | None,
    place_bits: int,
    code_bits: int,
    entries: int,
    shape: Sequence[int],
) -> Tensor:
    return values.new_empty(tuple(shape))


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    values, places, codes, ctx.place_bits, ctx.code_bits, ctx.entries, ctx.shape = inputs
    ctx.save_for_backward(values, places, codes)


def _gradient(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    """Sum the gradients of all places that share a value (Deep Compression, eq. 3)."""
    values, places, codes = ctx.saved_tensors
    flat = gradient.reshape(-1)
    if ctx.place_bits:
        felt = flat[read_bits(places, ctx.place_bits, ctx.entries).cumsum(0)]
    else:
        there = read_bits(places, 1, len(flat)).bool()
        felt = torch.cat([flat.new_zeros(1), flat[there]])
    if codes is not None:
        felt = torch.zeros_like(values).index_add(0, read_bits(codes, ctx.code_bits, ctx.entries), felt)
    return felt * (values != 0), None, None, None, None, None, None


sparse_weight.register_autograd(_gradient, setup_context=_keep)

"""Sparse weights packed in the way that takes the fewest bytes, and put into a traced graph in place of dense ones."""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from flyweight.graph.sparse_bits import write_bits
from flyweight.graph.sparse_weight import SparseWeight
from flyweight.graph.traced import TracedModel, clean, tensor_of

#: Bits of a gap that are tried; with 1 bit every place would be an entry.
GAP_BITS = range(2, 13)
#: What the operators of one sparse weight take in the graph file, measured: a weight that saves less stays dense.
GRAPH_BYTES = 2_000


@dataclass(frozen=True, eq=False)
class Coded:
    """A weight whose kept values are codes.

    Args:
        codes: (shape of the weight,) whole numbers; 0 where the weight is 0.
        codebook: (codewords,) float32; the first is 0.
        bits: of a code.
    """

    codes: Tensor
    codebook: Tensor
    bits: int


def pack_weight(weight: Tensor | Coded) -> SparseWeight | None:
    """Return a weight packed, or None where that would save nothing.

    Places are the gaps between kept values, in the number of bits that takes the fewest bytes (a gap too long for them
    is bridged by an entry of value 0), or a bitmap where that is smaller still.

    Args:
        weight: float32, any shape, with exact zeros; or codes.

    Example:
        >>> weight = torch.zeros(100, 100)
        >>> weight[0, ::7] = 1.5
        >>> pack_weight(weight).bytes() < 200
        True
    """
    numbers = weight.codes if isinstance(weight, Coded) else weight
    flat = numbers.detach().reshape(-1)
    kept = torch.nonzero(flat).squeeze(1)
    value_bits = weight.bits if isinstance(weight, Coded) else 32
    gaps = torch.diff(kept, prepend=kept.new_zeros(1))
    sizes = {bits: len(_bridged(gaps, bits)[0]) * (bits + value_bits) for bits in GAP_BITS}
    sizes[0] = len(flat) + (len(kept) + 1) * value_bits
    best = min(sizes, key=lambda bits: sizes[bits])
    if sizes[best] / 8 + GRAPH_BYTES > 4 * len(flat):
        return None
    if best:
        places, real = _bridged(gaps, best)
        entries = flat.new_zeros(len(places))
        entries[real] = flat[kept]
        packed = write_bits(places, best)
    else:
        entries = torch.cat([flat.new_zeros(1), flat[kept]])
        packed = write_bits((flat != 0).long(), 1)
    if isinstance(weight, Coded):
        values, codes = weight.codebook.clone(), write_bits(entries, weight.bits)
    else:
        values, codes = entries.clone(), None
    bits = weight.bits if isinstance(weight, Coded) else 0
    return SparseWeight(
        numbers.shape, values, packed, place_bits=best, entries=len(entries), codes=codes, code_bits=bits
    )


def _bridged(gaps: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Return gaps below 2**bits, long ones cut in pieces, and which of them end at a kept value."""
    longest = (1 << bits) - 1
    pieces = torch.div(gaps + longest - 1, longest, rounding_mode="floor").clamp_min(1)
    ends = pieces.cumsum(0) - 1
    cut = gaps.new_full((int(pieces.sum()),), longest)
    cut[ends] = gaps - (pieces - 1) * longest
    return cut, ends


def with_sparse_weights(traced: TracedModel, packed: dict[str, SparseWeight]) -> TracedModel:
    """Return a copy of a traced model with modules in place of the parameters of these names."""
    changed = copy.deepcopy(traced)
    for name, module in packed.items():
        _install(changed.body, name, module)
    clean(changed.body)
    return changed


def with_dense_weights(traced: TracedModel) -> TracedModel:
    """Return a copy of a traced model with every sparse weight as a parameter again, under its name."""
    changed = copy.deepcopy(traced)
    body = changed.body
    for node in list(body.graph.find_nodes(op="call_module")):
        module = body.get_submodule(str(node.target))
        if isinstance(module, SparseWeight):
            _uninstall(body, node, module().detach())
    clean(body)
    return changed


def _install(body: fx.GraphModule, name: str, module: SparseWeight) -> None:
    path, _, last = name.rpartition(".")
    holder = body.get_submodule(path)
    dense = tensor_of(body, name)
    assert dense.shape == module.shape
    delattr(holder, last)
    holder.add_module(last, module)
    for node in list(body.graph.find_nodes(op="get_attr")):
        if node.target == name:
            with body.graph.inserting_before(node):
                call = body.graph.call_module(name)
            call.meta = dict(node.meta)
            node.replace_all_uses_with(call)
            body.graph.erase_node(node)


def _uninstall(body: fx.GraphModule, node: fx.Node, dense: Tensor) -> None:
    name = str(node.target)
    path, _, last = name.rpartition(".")
    holder = body.get_submodule(path)
    if not isinstance(getattr(holder, last), nn.Parameter):
        delattr(holder, last)
        holder.register_parameter(last, nn.Parameter(dense))
    with body.graph.inserting_before(node):
        read = body.graph.get_attr(name)
    read.meta = dict(node.meta)
    node.replace_all_uses_with(read)
    body.graph.erase_node(node)

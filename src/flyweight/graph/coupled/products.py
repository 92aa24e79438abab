"""How units pass through products: linear layers, convolutions, matrix products, attention."""

import math
from typing import Any

import numpy as np
from torch import fx

from flyweight.graph.coupled.axes import Atom, Dim, Value, labelled, length_of, shape_of, whole
from flyweight.graph.coupled.flow import Flow, Result, Rule

Arguments = dict[str, Any]
_SPACE = "the width and height of an image, or the length of a sequence"


def _linear(flow: Flow, node: fx.Node, given: Arguments) -> Result:
    value, weight = flow.of(given["input"]), flow.of(given["weight"])
    flow.labels.meet(value[-1], weight[-1])
    out = weight[:-1]  # (out,), or () for a vector
    if given["bias"] is not None and out:
        out = (flow.labels.meet(out[0], flow.of(given["bias"])[-1]),)
    result = (*value[:-1], *out)
    _produced(flow, out, weight)
    _count(flow, result, weight[-1])
    return result


def _produced(flow: Flow, out: Value, weight: Value) -> None:
    """Units are named after the weight's own axis, not the bias's, when both are the same units."""
    for dim in (*out, *weight[:-1]):
        flow.produce(dim, "neurons")


def _count(flow: Flow, *dims: Dim | Value) -> None:
    flow.work.append(_atoms(dims))


def _atoms(parts: Any) -> Dim:
    return tuple(atom for part in parts for atom in ([part] if isinstance(part, Atom) else _atoms(part)))


def _matmul(flow: Flow, node: fx.Node, given: Arguments) -> Result:
    other = next(given[name] for name in ("other", "mat2", "vec", "tensor") if name in given)
    return _multiplied(flow, flow.of(given["self"]), flow.of(other))


def _multiplied(flow: Flow, left: Value, right: Value) -> Value:
    """(..., n, k) x (..., k, m) -> (..., n, m), a vector on either side being one row or one column."""
    rows = left[-2:-1]
    columns = right[-1:] if len(right) > 1 else ()
    inner = right[-2] if len(right) > 1 else right[-1]
    flow.labels.meet(left[-1], inner)
    batch = flow.labels.meet_all(left[:-2], right[:-2])
    for dim in batch:
        flow.labels.heads += [atom.ids for atom in labelled(dim) if atom.ids is not None]
    for dim in (*rows, *columns):
        flow.produce(dim, "neurons")
    _count(flow, batch, rows, columns, left[-1])
    return (*batch, *rows, *columns)


def _addmm(flow: Flow, node: fx.Node, given: Arguments) -> Result:
    left = flow.of(given.get("mat1", given.get("batch1")))
    right = flow.of(given.get("mat2", given.get("batch2")))
    return flow.labels.meet_all(_multiplied(flow, left, right), flow.of(given["self"]))


def _attention(flow: Flow, node: fx.Node, given: Arguments) -> Result:
    """Query (..., heads, length, width), key and value (..., heads or fewer, other length, width)."""
    query, key, value = (flow.of(given[name]) for name in ("query", "key", "value"))
    if given["enable_gqa"]:
        key, value = (_repeated(flow, query, one) for one in (key, value))
    batch = flow.labels.meet_all(flow.labels.meet_all(query[:-2], key[:-2]), value[:-2])
    flow.labels.meet(query[-1], key[-1])
    flow.labels.freeze((flow.labels.meet(key[-2], value[-2]),), "attention adds up to one over it")
    if given["scale"] is None:
        flow.labels.freeze((query[-1], key[-1]), "attention is scaled by its length")
    if given["attn_mask"] is not None:
        mask = flow.of(given["attn_mask"])
        flow.labels.meet_all((*batch, query[-2], key[-2]), mask)
    for dim in batch:
        flow.labels.heads += [atom.ids for atom in labelled(dim) if atom.ids is not None]
    _count(flow, batch, query[-2], key[-2], query[-1])
    _count(flow, batch, query[-2], key[-2], value[-1])
    return (*batch, query[-2], value[-1])


def _repeated(flow: Flow, query: Value, key: Value) -> Value:
    """Grouped queries: each head of keys serves several heads of queries, side by side."""
    heads, own = length_of(query[-3]), length_of(key[-3])
    assert isinstance(heads, int)
    assert isinstance(own, int)
    return (*key[:-3], key[-3] + whole(heads // own, "queries of one key"), *key[-2:])


def _einsum(flow: Flow, node: fx.Node, given: Arguments) -> Result:
    equation = str(given["equation"]).replace(" ", "")
    if "..." in equation or "->" not in equation:
        return flow.refuse(node, "with '...' or without '->'")
    terms, result = equation.split("->")
    letters: dict[str, Dim] = {}
    for term, operand in zip(terms.split(","), given["tensors"], strict=True):
        value = flow.of(operand)
        if len(set(term)) != len(term):
            return flow.refuse(node, "with a diagonal")
        for letter, dim in zip(term, value, strict=True):
            letters[letter] = flow.labels.meet(letters[letter], dim) if letter in letters else dim
    for letter in result:
        flow.produce(letters[letter], "neurons")
        if all(letter in term for term in terms.split(",")):
            flow.labels.heads += [atom.ids for atom in labelled(letters[letter]) if atom.ids is not None]
    if len(given["tensors"]) == 2 and set(letters) - set(result):
        _count(flow, tuple(letters.values()))
    return tuple(letters[letter] for letter in result)


def _conv(flow: Flow, node: fx.Node, given: Arguments) -> Result:
    """Input (rows, in, ...), weight (out, in / groups, ...); of a transposed one (in, out / groups, ...)."""
    value, weight, groups = flow.of(given["input"]), flow.of(given["weight"]), int(given["groups"])
    turned = bool(given.get("transposed")) or "transpose" in str(node.target)
    batched = len(value) == len(weight)
    channels = value[1] if batched else value[0]
    if not batched:
        return flow.refuse(node, "without a batch dimension")
    for dim in value[2:]:
        flow.labels.freeze(dim, "a convolution slides along it")
    out = _grouped(flow, node, channels, weight, groups, turned) if groups > 1 else weight[1 if turned else 0]
    if groups == 1:
        flow.labels.meet(channels, weight[0 if turned else 1])
    if given["bias"] is not None:
        out = flow.labels.meet(out, flow.of(given["bias"])[0])
    flow.produce(out, "channels")
    flow.produce(weight[1 if turned and groups == 1 else 0], "channels")
    space = tuple(whole(size, _SPACE) for size in shape_of(node)[2:])
    _count(flow, value[0], value[2:] if turned else space, weight)
    return (value[0], out, *space)


def _grouped(flow: Flow, node: fx.Node, channels: Dim, weight: Value, groups: int, turned: bool) -> Dim:
    """Cut whole groups, or the same channels of every group, whichever leaves more to choose from."""
    labels = flow.labels
    ins, outs = labels.flat(channels), labels.flat(weight[0])
    inner = length_of(weight[1])
    assert ins is not None
    assert outs is not None
    assert isinstance(inner, int)
    into, out_of = len(ins) // groups, inner if turned else len(outs) // groups
    if turned:  # weight (in, out / groups)
        labels.meet((Atom(len(ins), ins),), (Atom(len(outs), outs),))
        outs = labels.fresh(groups * out_of)
    grid_in, grid_out = ins.reshape(groups, into), outs.reshape(groups, out_of)
    if groups >= min(into, out_of) or turned:
        labels.unite(grid_in[:, 1:].ravel(), np.repeat(grid_in[:, 0], into - 1))
        labels.unite(grid_out.ravel(), np.repeat(grid_in[:, 0], out_of))
        labels.freeze(weight[1], "every group of a convolution reads it")
        flow.parts[node] = Atom(groups, grid_in[:, 0].copy())
    else:
        labels.unite(grid_in[1:].ravel(), np.tile(grid_in[0], groups - 1))
        labels.unite(grid_out[1:].ravel(), np.tile(grid_out[0], groups - 1))
        labels.meet((Atom(into, grid_in[0]),), weight[1])
    return (Atom(math.prod(grid_out.shape), outs),)


def _recurrent(flow: Flow, node: fx.Node, given: Arguments) -> Result:
    """Nothing of a recurrent layer is cut; each of its matrices is used once for every step of a sequence."""
    value = flow.of(given["input"])
    for weight in given["params"]:
        if len(flow.of(weight)) == 2:
            _count(flow, value[:-1], flow.of(weight))
    return flow.refuse(node, "a recurrent layer, which is left whole")


RULES: dict[str, Rule] = {
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), _recurrent),
    "linear": _linear,
    **dict.fromkeys(("matmul", "mm", "bmm", "mv", "dot"), _matmul),
    **dict.fromkeys(("addmm", "baddbmm"), _addmm),
    "scaled_dot_product_attention": _attention,
    "einsum": _einsum,
    **dict.fromkeys(("conv1d", "conv2d", "conv3d", "convolution"), _conv),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _conv),
}

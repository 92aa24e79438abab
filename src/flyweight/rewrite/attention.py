"""Attention of each row's query to the request's keys and values, written out as products that broadcast.

The fused operator wants as many keys as queries in the batch; of one request it would have to repeat the whole
history for each candidate. Written out, `softmax(q k' s + mask) v` reads the keys and the values once.
"""

import math
from typing import Any

import torch
from torch import fx

from flyweight.rewrite.emit import emit, shape_of
from flyweight.rewrite.levels import Level, levels_of
from flyweight.rewrite.rule import Rule

aten = torch.ops.aten
_ATTENTION = aten.scaled_dot_product_attention.default
#: Added to a score that may not count: its exponential is 0, also in bfloat16, and no sum with it is -inf.
_FORBIDDEN = -1e30
_NAMES = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")


def _find(body: fx.GraphModule) -> list[fx.Node]:
    """Return attention whose keys and values are the request's and whose query is a row's."""
    found = body.graph.find_nodes(op="call_function", target=_ATTENTION)
    if not found:
        return []
    level = levels_of(body, through=True)
    wanted = [Level.ROW, Level.REQUEST, Level.REQUEST]
    return [node for node in found if [level[_given(node)[name]] for name in _NAMES[:3]] == wanted]


def _given(node: fx.Node) -> dict[str, Any]:
    return {**dict(zip(_NAMES, node.args, strict=False)), **node.kwargs}


def _check(body: fx.GraphModule, node: fx.Node) -> str | None:
    given = _given(node)
    query, key = shape_of(given["query"]), shape_of(given["key"])
    assert query is not None
    assert key is not None
    if given.get("is_causal"):
        return "it is causal, so its queries are a sequence like its keys"
    if given.get("dropout_p"):
        return "it drops out while it scores"
    if given.get("enable_gqa"):
        return "its queries have more heads than its keys"
    if not all(isinstance(size, int) for size in (*query[-2:], *key[-2:])):
        return "the length of its history is open"
    if query[-2] > key[-1]:
        # Scores, queries x steps, are written and read by softmax; repeated keys and values are steps x width each.
        return f"its scores, {query[-2]} queries a row, take more than keys and values of width {key[-1]} repeated"
    return None


def _apply(body: fx.GraphModule, node: fx.Node) -> None:
    given = _given(node)
    width = (shape_of(given["query"]) or (0,))[-1]
    scale = given.get("scale")
    scale = 1 / math.sqrt(width) if scale is None else scale
    # Scaled and turned before the rows read them, so once a request.
    keys = emit(body, node, aten.mul.Tensor, given["key"], scale)
    turned = emit(body, node, aten.transpose.int, keys, -2, -1)
    scores = emit(body, node, aten.matmul.default, given["query"], turned)
    mask = given.get("attn_mask")
    allowed = mask if mask is not None and mask.meta["val"].dtype == torch.bool else None
    if allowed is not None:
        mask = emit(body, node, aten.mul.Tensor, emit(body, node, aten.logical_not.default, allowed), _FORBIDDEN)
    if mask is not None:
        scores = emit(body, node, aten.add.Tensor, scores, mask)
    weights = emit(body, node, aten.softmax.int, scores, -1)
    out = emit(body, node, aten.matmul.default, weights, given["value"])
    if allowed is not None:  # who may look at nothing sees zeros
        out = emit(body, node, aten.mul.Tensor, out, emit(body, node, aten.any.dim, allowed, -1, True))
    node.replace_all_uses_with(out)
    body.graph.erase_node(node)


RULE = Rule("attention", _find, _check, _apply)

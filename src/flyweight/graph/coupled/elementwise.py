"""How units pass through element-by-element operators, norms, pooling and sums."""

from typing import Any

import numpy as np
import torch
from torch import fx

from flyweight.graph.coupled.axes import Atom, Value, labelled, length_of, shape_of, whole
from flyweight.graph.coupled.flow import Flow, Result, Rule, place

Arguments = dict[str, Any]


def elementwise(flow: Flow, node: fx.Node, given: Arguments) -> Result:
    """Any number of tensors read side by side, with broadcasting."""
    found: Value = ()
    for argument in (*node.args, *node.kwargs.values()):
        for one in argument if isinstance(argument, (list, tuple)) else (argument,):
            if isinstance(one, fx.Node) and isinstance(one.meta.get("val"), torch.Tensor):
                found = flow.labels.meet_all(found, flow.of(one))
    return found


def _glu(flow: Flow, node: fx.Node, given: Arguments) -> Result:
    value = list(flow.of(given["self"]))
    at = place(given["dim"], len(value))
    half = length_of(value[at])
    ids = flow.labels.flat(value[at]) if labelled(value[at]) else None
    if ids is None or not isinstance(half, int):
        value[at] = whole(shape_of(node)[at], "half of an axis")
        return tuple(value)
    half //= 2
    flow.labels.unite(ids[:half], ids[half:])
    value[at] = (Atom(half, ids[:half]),)
    return tuple(value)


def _prelu(flow: Flow, node: fx.Node, given: Arguments) -> Result:
    value, weight = flow.of(given["self"]), flow.of(given["weight"])
    if len(value) > 1 and weight:
        flow.labels.meet(value[1], weight[0])
    return value


def _batch_norm(flow: Flow, node: fx.Node, given: Arguments) -> Result:
    value = flow.of(given["input"])
    channels = value[1]
    for name in ("weight", "bias", "running_mean", "running_var"):
        if given.get(name) is not None:
            channels = flow.labels.meet(channels, flow.of(given[name])[0])
    return (value[0], channels, *value[2:])


def _layer_norm(flow: Flow, node: fx.Node, given: Arguments) -> Result:
    value = flow.of(given["input"])
    across = len(value) - len(given["normalized_shape"])
    for dim in value[across:]:
        flow.labels.normed += [atom.ids for atom in labelled(dim) if atom.ids is not None]
    normed = value[across:]
    for name in ("weight", "bias"):
        if given.get(name) is not None:
            normed = flow.labels.meet_all(normed, flow.of(given[name]))
    return (*value[:across], *normed)


def _group_norm(flow: Flow, node: fx.Node, given: Arguments) -> Result:
    """Whole groups are units, which changes nothing for the others; or the same channels of each, if those are more."""
    value, groups = flow.of(given["input"]), int(given["num_groups"])
    ids = flow.labels.flat(value[1])
    assert ids is not None
    grid = ids.reshape(groups, -1)
    inside = grid.shape[1]
    if groups >= inside:
        flow.labels.unite(grid[:, 1:].ravel(), np.repeat(grid[:, 0], inside - 1))
        flow.parts[node] = Atom(groups, grid[:, 0].copy())
    else:
        flow.labels.unite(grid[1:].ravel(), np.tile(grid[0], groups - 1))
        flow.labels.normed.append(ids)
    channels = value[1]
    for name in ("weight", "bias"):
        if given.get(name) is not None:
            channels = flow.labels.meet(channels, flow.of(given[name])[0])
    return (value[0], channels, *value[2:])


def _over_space(flow: Flow, node: fx.Node, given: Arguments) -> Result:
    """Pooling, padding and resizing change the last dimensions only; those must not have units."""
    value = flow.of(given.get("self", given.get("input")))
    shape = shape_of(node)
    found = []
    for dim, new in zip(value, shape, strict=True):
        if length_of(dim) != new:
            flow.labels.freeze(dim, f"{node.target} changes its length")
            found.append(whole(new, f"the result of {node.target}"))
        else:
            found.append(dim)
    for at in _spatial(node, given, len(value)):
        flow.labels.freeze(value[at], f"{node.target} goes along it")
    return tuple(found)


def _spatial(node: fx.Node, given: Arguments, ndim: int) -> range:
    """The dimensions that such an operator goes along, by its name or the number of its paddings."""
    if "pad" in given:
        return range(ndim - len(given["pad"]) // 2, ndim)
    name = str(node.target)
    return range(ndim - (1 if "1d" in name else 3 if "3d" in name else 2), ndim)


def _sum(flow: Flow, node: fx.Node, given: Arguments) -> Result:
    """A sum over units is as good without the ones that were cut."""
    return _reduced(flow, node, given, frozen="")


def _mean(flow: Flow, node: fx.Node, given: Arguments) -> Result:
    return _reduced(flow, node, given, frozen=f"{node.target} goes over it, and would count fewer values")


def _vector_norm(flow: Flow, node: fx.Node, given: Arguments) -> Result:
    return _sum(flow, node, given) if given.get("ord", given.get("p")) in (1, 2) else _mean(flow, node, given)


def _cosine(flow: Flow, node: fx.Node, given: Arguments) -> Result:
    """A sum of products over a product of norms: as good without the units that were cut."""
    found = flow.labels.meet_all(flow.of(given["x1"]), flow.of(given["x2"]))
    over = place(given["dim"], len(found))
    return found[:over] + found[over + 1 :]


def _reduced(flow: Flow, node: fx.Node, given: Arguments, frozen: str) -> Result:
    if "other" in given:  # max(a, b)
        return elementwise(flow, node, given)
    value = flow.of(given.get("self", given.get("input")))
    asked = given.get("dim")
    asked = [asked] if isinstance(asked, int) else asked
    over = {place(dim, len(value)) for dim in asked} if asked else set(range(len(value)))
    for at in over:
        if frozen:
            flow.labels.freeze(value[at], frozen)
    if given.get("keepdim"):
        found: Value = tuple(() if at in over else dim for at, dim in enumerate(value))
    else:
        found = tuple(dim for at, dim in enumerate(value) if at not in over)
    return [found] * len(node.meta["val"]) if isinstance(node.meta["val"], (list, tuple)) else found


POINTWISE = frozenset(
    {"dropout", "feature_dropout", "alpha_dropout", "hardswish", "rsub", "to", "type_as", "contiguous", "log_sigmoid"}
    | {"__and__", "__or__", "__xor__", "divide", "multiply", "subtract", "detach", "alias", "lift_fresh_copy", "clone"}
    | {"zeros_like", "ones_like", "full_like", "_to_copy", "hardsigmoid", "selu", "relu6", "silu", "mish"}
    | {"detach_", "dropout_", "masked_fill", "where", "square", "softplus", "__lshift__", "__rshift__", "empty_like"}
)
RULES: dict[str, Rule] = {
    **dict.fromkeys(POINTWISE, elementwise),
    "glu": _glu,
    "prelu": _prelu,
    **dict.fromkeys(("batch_norm", "instance_norm"), _batch_norm),
    **dict.fromkeys(("layer_norm", "rms_norm"), _layer_norm),
    "group_norm": _group_norm,
    **dict.fromkeys(("max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d"), _over_space),
    **dict.fromkeys(("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d"), _over_space),
    **dict.fromkeys(("upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d"), _over_space),
    **dict.fromkeys(("upsample_bilinear2d", "upsample_bicubic2d", "constant_pad_nd", "pad"), _over_space),
    **dict.fromkeys(("reflection_pad1d", "reflection_pad2d", "replication_pad1d", "replication_pad2d"), _over_space),
    "sum": _sum,
    **dict.fromkeys(("mean", "amax", "amin", "max", "min", "argmax", "argmin", "prod", "any", "all"), _mean),
    **dict.fromkeys(("var", "std", "var_mean", "std_mean", "logsumexp"), _mean),
    "linalg_vector_norm": _vector_norm,
    "cosine_similarity": _cosine,
}


def rule_of(node: fx.Node) -> Rule | None:
    """Return the rule of an element-by-element operator that is in no list: PyTorch marks most of them."""
    return elementwise if torch.Tag.pointwise in getattr(node.target, "tags", ()) else None

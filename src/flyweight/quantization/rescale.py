"""A tensor between layers rescaled channel by channel, with no change to what the model computes.

`W x = (W diag(1 / f)) (diag(f) x)`. The factors go into whatever makes the tensor where that is exact: a layer before
(its output channels), a layer norm's weights, a coded table's codebook, through ReLU (f > 0), pooling and changes of
shape, into each branch of a concatenation. Where they cannot, they may stand as a product of their own.
"""

from collections.abc import Sequence
from typing import Protocol, cast

import torch
from torch import Tensor, fx, nn

from flyweight.graph.tensors import put_tensor, read_tensor
from flyweight.graph.traced import TracedModel, tensor_of
from flyweight.quantization.sites import CONVOLUTIONS, Site

aten = torch.ops.aten
#: f(c x) = c f(x) for c > 0, channel by channel.
_THROUGH = (
    aten.relu.default,
    aten.relu_.default,
    aten.leaky_relu.default,
    aten.dropout.default,
    aten.dropout_.default,
    aten.contiguous.default,
    aten.max_pool1d.default,
    aten.max_pool2d.default,
)
_TURNS = (aten.transpose.int, aten.view.default, aten.reshape.default, aten.slice.Tensor, aten.select.int)


class _Scalable(Protocol):
    """A module that looks rows up, which can be multiplied where they are stored."""

    def times(self, factor: float) -> nn.Module | None:
        """Return one whose rows are so many times as large; None where that would round them."""
        ...


def rescale(
    traced: TracedModel, node: fx.Node, readers: Sequence[Site], factors: Tensor, *, may_multiply: bool = False
) -> str | None:
    """Multiply each channel of a tensor by a factor, and divide the weights of the layers that read it, in place.

    Args:
        traced: a copy that may be written to.
        node: makes the tensor.
        readers: layers that read it, with weights of their own; convolutions in one group.
        factors: (channels,), positive.
        may_multiply: whether the factors may stand as a product of their own where nothing can take them.

    Returns:
        Where the factors went ("folded" or "multiplied"), or None: nothing was changed.
    """
    body = traced.body
    if any(site.shared or site.tensor(traced).shape[site.in_axis] != len(factors) for site in readers):
        return None
    names = {site.node for site in readers}
    dim = 1 if readers[0].kind == "conv" else -1
    if _takes(body, node, names, dim, factors):
        _give(body, node, factors, dim)
        how = "folded"
    elif not may_multiply:
        return None
    elif _joins(node, names):
        factors, how = _by_branch(traced, node, factors, dim)
    else:
        _multiply(traced, node, names, factors, dim)
        how = "multiplied"
    for site in readers:
        weight = site.tensor(traced).detach()
        shape = [1] * weight.ndim
        shape[site.in_axis] = -1
        put_tensor(body, site.weight, weight / factors.reshape(shape))
    body.recompile()
    return how


def _takes(body: fx.GraphModule, node: fx.Node, readers: set[str], dim: int, factors: Tensor) -> bool:
    """Return whether what makes a tensor, read by nothing but `readers`, can take factors for its channels."""
    if any(user.name not in readers for user in node.users):
        return False
    if node.op == "call_module":
        return dim == -1 and _scaled(body, node, factors) is not None
    if node.target is aten.layer_norm.default:
        weight, bias = node.args[2:4] if len(node.args) > 3 else (None, None)
        normed = node.args[1]
        assert isinstance(normed, (list, tuple))
        return dim == -1 and len(normed) == 1 and _own(weight) and (bias is None or _own(bias))
    if node.target is aten.linear.default or node.target in CONVOLUTIONS:
        bias = node.args[2] if len(node.args) > 2 else None
        fits = (dim == 1) == (node.target in CONVOLUTIONS) or node.meta["val"].ndim == 2
        return fits and _own(node.args[1]) and (bias is None or _own(bias))
    if node.target in _THROUGH or (node.target in _TURNS and _keeps(node, dim)):
        before = node.args[0]
        return isinstance(before, fx.Node) and _takes(body, before, {node.name}, dim, factors)
    if node.target is aten.cat.default:
        branches, at = _branches(node)
        if len(set(branches)) < len(branches) or at != dim % node.meta["val"].ndim:
            return False
        parts = torch.split(factors, [int(one.meta["val"].shape[at]) for one in branches])
        return all(_takes(body, one, {node.name}, dim, part) for one, part in zip(branches, parts, strict=True))
    return False


def _scaled(body: fx.GraphModule, node: fx.Node, factors: Tensor) -> nn.Module | None:
    """Return a lookup with rows that many times as large; None where channels differ, or others read its table too."""
    module = body.get_submodule(str(node.target))
    if not hasattr(module, "times") or bool((factors != factors[0]).any()):
        return None
    calls = [one.target for one in body.graph.find_nodes(op="call_module")]
    held = {id(one) for one in module.modules()}
    holders = [name for name in set(calls) if held & {id(one) for one in body.get_submodule(str(name)).modules()}]
    if calls.count(node.target) > 1 or len(holders) > 1:
        return None
    return cast(_Scalable, module).times(float(factors[0]))


def _give(body: fx.GraphModule, node: fx.Node, factors: Tensor, dim: int) -> None:
    if node.target is aten.cat.default:
        branches, at = _branches(node)
        sizes = [int(one.meta["val"].shape[at]) for one in branches]
        for branch, part in zip(branches, torch.split(factors, sizes), strict=True):
            _give(body, branch, part, dim)
    elif node.op == "call_module":
        scaled = _scaled(body, node, factors)
        assert scaled is not None
        body.set_submodule(str(node.target), scaled)
    elif node.target is aten.layer_norm.default or node.target is aten.linear.default or node.target in CONVOLUTIONS:
        first = 2 if node.target is aten.layer_norm.default else 1
        for constant in node.args[first : first + 2]:
            if isinstance(constant, fx.Node):
                old = tensor_of(body, str(constant.target)).detach()
                put_tensor(body, str(constant.target), old * factors.reshape(-1, *[1] * (old.ndim - 1)))
    else:
        before = node.args[0]
        assert isinstance(before, fx.Node)
        _give(body, before, factors, dim)


def _joins(node: fx.Node, readers: set[str]) -> bool:
    """Return whether a node joins branches for `readers` alone."""
    if node.target is not aten.cat.default or any(user.name not in readers for user in node.users):
        return False
    branches = _branches(node)[0]
    return len(set(branches)) == len(branches)


def _by_branch(traced: TracedModel, node: fx.Node, factors: Tensor, dim: int) -> tuple[Tensor, str]:
    """Fold the factors of the branches that can take them, and multiply the others; return what was applied, and how.

    Only the ratios of factors matter, so a branch that cannot take one is given 1 where it is of one size.
    """
    branches, at = _branches(node)
    sizes = [int(one.meta["val"].shape[at]) for one in branches]
    folds = [
        _takes(traced.body, branch, {node.name}, dim, part)
        for branch, part in zip(branches, torch.split(factors, sizes), strict=True)
    ]
    stuck = [part for part, fold in zip(torch.split(factors, sizes), folds, strict=True) if not fold]
    factors = factors / stuck[0][0]
    how = "folded"
    for branch, part, fold in zip(branches, torch.split(factors, sizes), folds, strict=True):
        if fold:
            _give(traced.body, branch, part, dim)
        elif not torch.equal(part, torch.ones_like(part)):
            _multiply(traced, branch, {node.name}, part, dim)
            how = "multiplied"
    return factors, how


def _multiply(traced: TracedModel, node: fx.Node, readers: set[str], factors: Tensor, dim: int) -> None:
    """Put a product between a tensor and some of its readers."""
    rank = node.meta["val"].ndim
    shape = [1] * (rank - dim % rank)
    shape[0] = -1
    graph, users = traced.body.graph, [user for user in node.users if user.name in readers]
    constant = read_tensor(traced.body, f"{node.name}_factors", factors.reshape(shape), node)
    with graph.inserting_after(node):
        product = graph.call_function(aten.mul.Tensor, (node, constant))
    product.meta = {key: value for key, value in node.meta.items() if key in ("val", "nn_module_stack")}
    for user in users:
        user.replace_input_with(node, product)


def _own(node: object) -> bool:
    """Return whether a node reads a constant that nothing else reads."""
    return isinstance(node, fx.Node) and node.op == "get_attr" and len(node.users) == 1


def _branches(node: fx.Node) -> tuple[list[fx.Node], int]:
    given, at = node.args[0], node.args[1] if len(node.args) > 1 else 0
    assert isinstance(given, (list, tuple))
    assert isinstance(at, int)
    return [one for one in given if isinstance(one, fx.Node)], at % node.meta["val"].ndim


def _keeps(node: fx.Node, dim: int) -> bool:
    """Return whether a change of shape leaves the last dimension, where the channels are, as it is."""
    before = node.args[0]
    if dim != -1 or not isinstance(before, fx.Node) or node.meta["val"].shape[-1] != before.meta["val"].shape[-1]:
        return False
    last = before.meta["val"].ndim - 1
    if node.target in (aten.slice.Tensor, aten.select.int):
        at = node.args[1] if len(node.args) > 1 else 0
        return isinstance(at, int) and at % (last + 1) != last
    if node.target is aten.transpose.int:
        return all(isinstance(at, int) and at % (last + 1) != last for at in node.args[1:3])
    return True

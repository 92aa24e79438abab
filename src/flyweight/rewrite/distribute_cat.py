"""`relu(cat([u, i]))` is `cat([relu(u), relu(i)])`: operators go before a concatenation that its reader takes apart.

By itself this only adds an operator, so it is done where a layer or a sum stands behind: then nothing is left of the
concatenation. Rounding with one scale goes before it as well, so that layers of integers stay so on both sides.
"""

import torch
from torch import fx

from flyweight.rewrite.concatenated import Mixed, beside, mixed, on_side, runs
from flyweight.rewrite.emit import emit
from flyweight.rewrite.followed import Followed, followed
from flyweight.rewrite.rule import Rule
from flyweight.rewrite.taken_apart import gain_of_readers
from flyweight.rewrite.worth import saved, too_little

aten = torch.ops.aten


def _find(body: fx.GraphModule) -> list[fx.Node]:
    """Return operators on each number and views that read values of the request and of the rows side by side."""
    return [node for node in body.graph.nodes if _followed(body, node) is not None]


def _followed(body: fx.GraphModule, node: fx.Node) -> tuple[Mixed, Followed] | None:
    given = node.args[0] if node.op == "call_function" and node.args else None
    both = mixed(given)
    if both is None or not isinstance(given, fx.Node):
        return None
    how = followed(body, node, given, both.dim, _widths(both))
    return None if how is None else (both, how)


def _widths(both: Mixed) -> tuple[int, ...]:
    """Return the widths of the runs."""
    width = dict(zip(both.parts, both.widths, strict=True))
    return tuple(sum(width[part] for part in run) for run in runs(both.parts))


def _check(body: fx.GraphModule, node: fx.Node) -> str | None:
    found = _followed(body, node)
    assert found is not None
    both, how = found
    gain = gain_of_readers(body, node, how.dim, how.widths, both.share)
    if not gain:
        return "nothing behind it takes the request's part and the rows' apart"
    return too_little(gain, -saved(operators=1 - len(how.widths)))


def _apply(body: fx.GraphModule, node: fx.Node) -> None:
    found = _followed(body, node)
    assert found is not None
    both, how = found
    made: list[fx.Node] = []
    start = 0
    for run, width in zip(runs(both.parts), _widths(both), strict=True):
        columns = slice(start, start + width)
        value = beside(body, node, run, both.dim)
        made.append(on_side(body, node, [value], lambda one, at=columns: how.make(body, node, one[0], at)))  # type: ignore[misc]
        start += width
    joined = emit(body, node, aten.cat.default, made, how.dim)
    node.replace_all_uses_with(joined)
    body.graph.erase_node(node)
    for reader in list(joined.users):  # at once: a layer behind must not be cut before all of it is taken apart
        if _followed(body, reader) is not None and _check(body, reader) is None:
            _apply(body, reader)


RULE = Rule("distribute cat", _find, _check, _apply)

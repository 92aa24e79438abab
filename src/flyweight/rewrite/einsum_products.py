"""`einsum` of a value of the request and one of the rows becomes `matmul`, which takes one matrix beside many.

`nd,ntd->nt` is a product of (rows, 1, width) and (rows, width, steps): letters in both and in the result stay in
front, the one that is summed over meets itself, what only one side has is its row or column.
"""

from dataclasses import dataclass

import torch
from torch import fx

from flyweight.rewrite.emit import emit
from flyweight.rewrite.levels import Level, has_rows_first, levels_of, rows_symbol
from flyweight.rewrite.rule import Rule

aten = torch.ops.aten


@dataclass(frozen=True)
class Letters:
    """An equation of two sides: `batch` in all three, `summed` in both sides, `own` of one side and the result."""

    left: str
    right: str
    out: str

    @property
    def batch(self) -> str:
        """Letters of both sides and of the result."""
        return "".join(one for one in self.out if one in self.left and one in self.right)

    @property
    def summed(self) -> str:
        """Letters of both sides that the result lacks."""
        return "".join(one for one in self.left if one in self.right and one not in self.out)

    def own(self, side: str) -> str:
        """Return the letters of one side that the other lacks."""
        return "".join(one for one in side if one not in self.batch + self.summed)


def _find(body: fx.GraphModule) -> list[fx.Node]:
    """Return sums of products of one value of the request and one of the rows, with the rows first throughout."""
    found = body.graph.find_nodes(op="call_function", target=aten.einsum.default)
    rows = rows_symbol(body)
    if not found or rows is None:
        return []
    level = levels_of(body, through=True)
    return [
        node
        for node in found
        if {level[one] for one in node.all_input_nodes} == {Level.REQUEST, Level.ROW}
        and all(has_rows_first(one, rows) for one in (node, *node.all_input_nodes))
    ]


def _letters(node: fx.Node) -> Letters | None:
    equation = str(node.args[0]).replace(" ", "")
    sides, arrow, out = equation.partition("->")
    given = sides.split(",")
    if not arrow or "." in equation or len(given) != 2 or any(len(set(one)) < len(one) for one in (*given, out)):
        return None
    return Letters(given[0], given[1], out)


def _check(body: fx.GraphModule, node: fx.Node) -> str | None:
    letters = _letters(node)
    if letters is None:
        return f"{node.args[0]!r} is no product of two sides, each letter once a side"
    if not (letters.left[0] == letters.right[0] == letters.out[0]):
        return f"{node.args[0]!r} does not keep the rows in front"
    own = letters.own(letters.left), letters.own(letters.right)
    if any(len(one) > 1 for one in (*own, letters.summed)) or not letters.summed:
        return f"{node.args[0]!r} is more than one matrix product"
    if any(one not in letters.out for one in own):
        return f"{node.args[0]!r} sums over what only one side has"
    return None


def _apply(body: fx.GraphModule, node: fx.Node) -> None:
    letters = _letters(node)
    assert letters is not None
    left, right = node.all_input_nodes  # two, for they differ in level
    a, b = letters.own(letters.left), letters.own(letters.right)
    batch, summed = letters.batch, letters.summed
    first = _turned(body, node, left, letters.left, batch + a + summed)
    second = _turned(body, node, right, letters.right, batch + summed + b)
    if not a:
        first = emit(body, node, aten.unsqueeze.default, first, -2)
    if not b:
        second = emit(body, node, aten.unsqueeze.default, second, -1)
    out = emit(body, node, aten.matmul.default, first, second)
    for lacks, dim in ((not b, -1), (not a, -2 if b else -1)):
        if lacks:
            out = emit(body, node, aten.squeeze.dim, out, dim)
    out = _turned(body, node, out, batch + a + b, letters.out)
    node.replace_all_uses_with(out)
    body.graph.erase_node(node)


def _turned(body: fx.GraphModule, before: fx.Node, value: fx.Node, old: str, new: str) -> fx.Node:
    """Return a value with its dimensions in another order, by their letters."""
    return value if old == new else emit(body, before, aten.permute.default, value, [old.index(one) for one in new])


RULE = Rule("einsum", _find, _check, _apply)

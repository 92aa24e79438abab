"""What depends on the request alone is worked out once for each request, and spread where the rows read it.

The region is found, not matched: every node that reads only the request, constants and sizes. Its edge must have the
rows as its first dimension, and only there, to be spread; a node whose value has not is left to the rows, and the edge
moves up. So operators in the middle may fold, turn or hide the rows as they like.
"""

from typing import Any

import torch
from torch import fx

from flyweight.rewrite.emit import emit, shape_of, symbols_of
from flyweight.rewrite.levels import REQUEST, Level, has_rows_first, is_tensor, levels_of, rows_symbol, sym_size
from flyweight.rewrite.spread import SPREAD
from flyweight.task.field import REQUEST_INDEX


def hoist_request_only(body: fx.GraphModule) -> int:
    """Move what can be to the requests, in place, and return how many nodes that were the rows' are now theirs."""
    rows = rows_symbol(body)
    index = next(node for node in body.graph.find_nodes(op="placeholder") if node.target == REQUEST_INDEX)
    if rows is None:
        return 0
    before = levels_of(body)
    region = _region(body, rows)
    moved = sum(before[node] == Level.ROW for node in region if node.target is not SPREAD)
    cloner = _Sizes(body)
    for node in region:
        if node.target is SPREAD:
            continue
        node.args, node.kwargs = fx.map_arg(
            (node.args, node.kwargs), lambda one: cloner.at_request(_before_spread(one))
        )
    for node in list(body.graph.nodes):
        inside = node in region or (node.op == "placeholder" and node.meta.get(REQUEST))
        if inside and node.target is not SPREAD:
            _spread_to_rows(body, node, region, index)
    body.graph.eliminate_dead_code()
    return moved


def _region(body: fx.GraphModule, rows: str) -> set[fx.Node]:
    """Return the nodes of the request whose edge can be spread."""
    level = levels_of(body, through=True)
    region = {node for node, at in level.items() if at == Level.REQUEST and node.op not in ("placeholder", "output")}
    while True:
        bad = {
            node
            for node in region
            if node.target is not SPREAD
            and (not _can_clone_sizes(node, level) or (_is_read_outside(node, region) and not _edge(node, rows)))
        }
        if not bad:
            return region
        region -= bad
        # What reads them is of the rows now as well.
        grown = bad
        while grown:
            grown = {one for one in region if one.target is not SPREAD and _reads_rows(one, region, level)}
            region -= grown


def _edge(node: fx.Node, rows: str) -> bool:
    return is_tensor(node) and has_rows_first(node, rows)


def _is_read_outside(node: fx.Node, region: set[fx.Node]) -> bool:
    return any(user not in region and user.target is not sym_size for user in node.users)


def _reads_rows(node: fx.Node, region: set[fx.Node], level: dict[fx.Node, Level]) -> bool:
    return any(
        one not in region and level[one] >= Level.REQUEST and one.op != "placeholder" for one in node.all_input_nodes
    )


def _can_clone_sizes(node: fx.Node, level: dict[fx.Node, Level]) -> bool:
    """Return whether every size a node reads goes back to the number of rows itself."""
    todo = [one for one in node.all_input_nodes if level[one] == Level.SIZED]
    while todo:
        one = todo.pop()
        if one.target is sym_size:
            size = one.meta["val"]
            if str(size.node.expr) not in symbols_of(size):
                return False
        else:
            todo += [given for given in one.all_input_nodes if level[given] == Level.SIZED]
    return True


def _before_spread(node: fx.Node) -> fx.Node:
    while node.target is SPREAD:
        given = node.args[0]
        assert isinstance(given, fx.Node)
        node = given
    return node


def _spread_to_rows(body: fx.GraphModule, node: fx.Node, region: set[fx.Node], index: fx.Node) -> None:
    """Let the rows read a request's value by a spread, one for all of them."""
    outside = [user for user in node.users if user not in region and user.target not in (sym_size, SPREAD)]
    old = [user for user in node.users if user.target is SPREAD]
    if not outside:
        return
    after = max([node, index], key=lambda one: _place(body, one))
    made = old[0] if old else emit(body, after.next, SPREAD, node, index)
    if old:
        after.append(made)
    for user in outside:
        user.replace_input_with(node, made)


def _place(body: fx.GraphModule, node: fx.Node) -> int:
    return next(place for place, one in enumerate(body.graph.nodes) if one is node)


class _Sizes:
    """Sizes and what is made of them, worked out for the number of requests instead of rows."""

    def __init__(self, body: fx.GraphModule) -> None:
        self._body = body
        self._levels = levels_of(body)
        self._source = next(node for node in body.graph.find_nodes(op="placeholder") if node.meta.get(REQUEST))
        self._made: dict[fx.Node, fx.Node] = {}

    def at_request(self, node: fx.Node) -> fx.Node:
        """Return the node that gives for requests what this one gives for rows."""
        if self._levels.get(node) != Level.SIZED or self._is_of_requests(node):
            return node
        if node not in self._made:
            with self._body.graph.inserting_after(self._anchor(node)):
                if node.target is sym_size:
                    made = self._body.graph.call_function(sym_size, (self._source, 0))
                else:
                    made = self._body.graph.node_copy(node, self.at_request)
            made.meta = dict(node.meta)
            self._made[node] = made
        return self._made[node]

    def _anchor(self, node: fx.Node) -> fx.Node:
        """Return the later one of a node and of the input that says how many requests there are."""
        places = {one: place for place, one in enumerate(self._body.graph.nodes)}
        given: list[fx.Node] = [node, self._source, *(self.at_request(one) for one in node.all_input_nodes)]
        return max(given, key=lambda one: places.get(one, -1))

    def _is_of_requests(self, node: fx.Node) -> bool:
        if node.target is sym_size:
            return bool(isinstance(node.args[0], fx.Node) and node.args[0].meta.get(REQUEST))
        return any(self._is_of_requests(one) for one in node.all_input_nodes if self._levels[one] == Level.SIZED)


def read_sizes_off_rows(body: fx.GraphModule) -> None:
    """Let every number of rows be read off a candidate's input, in place: a request's has fewer."""
    rows = rows_symbol(body)
    inputs = body.graph.find_nodes(op="placeholder")
    source = next(
        (one for one in inputs if not one.meta.get(REQUEST) and one.target != REQUEST_INDEX and shape_of(one)), None
    )
    if source is None or rows is None:
        return
    for node in list(body.graph.find_nodes(op="call_function", target=sym_size)):
        size = node.meta.get("val")
        if isinstance(size, torch.SymInt) and str(size.node.expr) == rows:
            node.args = (source, 0)
    _sizes_first(body, source)


def _sizes_first(body: fx.GraphModule, source: fx.Node) -> None:
    last: Any = body.graph.find_nodes(op="placeholder")[-1]
    for node in [one for one in body.graph.find_nodes(op="call_function", target=sym_size) if one.args == (source, 0)]:
        last.append(node)
        last = node

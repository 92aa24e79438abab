"""All lookups of one kind as one: 25 tables that are read at the same rows become a single gather.

The order of the fields is that in which a concatenation reads them, which is then no more than another shape of what
the stacked tables give. Lookups of request ids and of candidate ids have different numbers of rows and stay apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from flyweight.rewrite.emit import emit, shape_of
from flyweight.rewrite.rule import Rule
from flyweight.rewrite.stacked_tables import StackedTables
from flyweight.rewrite.table_lookups import Lookup, Same, lookup_of, same_rows, why_alone
from flyweight.tables.coded_table import CODEBOOK_VALUES

aten = torch.ops.aten
_JOINS = (aten.cat.default, aten.stack.default)


def fuse_tables(same: Same = same_rows) -> Rule:
    """Return the rule; it fuses lookups whose ids have one shape and of which `same` says that they go together.

    Args:
        same: whether two lookups have as many rows in every call.
    """

    def find(body: fx.GraphModule) -> list[fx.Node]:
        return [group[0].node for group in _groups(body, same)] + list(_alone(body, same))

    def check(body: fx.GraphModule, node: fx.Node) -> str | None:
        return _alone(body, same).get(node)

    def apply(body: fx.GraphModule, node: fx.Node) -> None:
        _fuse(body, next(group for group in _groups(body, same) if group[0].node is node))

    return Rule("fuse tables", find, check, apply)


def _lookups(body: fx.GraphModule) -> list[Lookup]:
    return [one for node in body.graph.nodes if (one := lookup_of(body, node)) is not None]


def _kinds(body: fx.GraphModule, same: Same) -> list[list[Lookup]]:
    """Return the lookups, those of one kind together."""
    kinds: list[list[Lookup]] = []
    for one in _lookups(body):
        fitting = [kind for kind in kinds if kind[0].kind == one.kind and same(kind[0].node, one.node)]
        if fitting:
            fitting[0].append(one)
        else:
            kinds.append([one])
    return kinds


def _alone(body: fx.GraphModule, same: Same) -> dict[fx.Node, str]:
    """Return the lookups that would have company and cannot be stacked, with the reason."""
    every = _lookups(body)
    stacked = any(isinstance(module, StackedTables) for module in body.children())
    kinds = [kind for kind in _kinds(body, same) if len(kind) > 1 or stacked]
    found = {one.node: why_alone(one, every, kind) for kind in kinds for one in kind}
    return {node: reason for node, reason in found.items() if reason is not None}


def _groups(body: fx.GraphModule, same: Same) -> list[list[Lookup]]:
    """Return what is to be stacked: lookups of one kind, whose codebooks together stay small."""
    alone = _alone(body, same)
    groups: list[list[Lookup]] = []
    for kind in _kinds(body, same):
        group: list[Lookup] = []
        values = 0
        for one in kind:
            if one.node in alone:
                continue
            if group and one.kind[4] == "codes" and values + one.values > CODEBOOK_VALUES:
                groups.append(group)
                group, values = [], 0
            group.append(one)
            values += one.values
        groups.append(group)
    return [group for group in groups if len(group) > 1 and not _depend(group)]


def _depend(group: Sequence[Lookup]) -> bool:
    """Whether the ids of one lookup are worked out from the rows of another."""
    members = {one.node for one in group}
    seen: set[fx.Node] = set()
    waiting = [one for lookup in group for one in lookup.node.all_input_nodes]
    while waiting:
        node = waiting.pop()
        if node in members:
            return True
        if node not in seen:
            seen.add(node)
            waiting.extend(node.all_input_nodes)
    return False


def _fuse(body: fx.GraphModule, group: list[Lookup]) -> None:
    group = _in_order(group)
    nodes = [one.node for one in group]
    first = next(node for node in body.graph.nodes if node in set(nodes))
    ids = [node.all_input_nodes[0] for node in nodes]
    for one in ids:
        _bring_before(first, one)
    name = next(f"stacked_tables_{n}" for n in range(1_000) if not hasattr(body, f"stacked_tables_{n}"))
    body.add_submodule(name, StackedTables([one.asked for one in group]))
    with body.graph.inserting_before(first):
        stacked = body.graph.call_module(name, tuple(ids))
    stacked.meta = dict(first.meta)
    value = first.meta["val"]
    stacked.meta["val"] = value.new_empty((*value.shape[:-1], len(group), value.shape[-1]))
    rows = _Rows(body, stacked, first, {node: place for place, node in enumerate(nodes)}, {})
    for user in list(dict.fromkeys(user for node in nodes for user in node.users)):
        _join(rows, user)
    for place, node in enumerate(nodes):
        if node.users:
            node.replace_all_uses_with(emit(body, node, aten.select.int, stacked, -2, place))
        body.graph.erase_node(node)


def _in_order(group: list[Lookup]) -> list[Lookup]:
    """Return the lookups in the order in which the concatenation that reads most of them does."""
    nodes = {one.node: one for one in group}
    cats = dict.fromkeys(user for node in nodes for user in node.users if user.target in _JOINS)
    orders = [[part for part in _parts(cat) if part in nodes] for cat in cats]
    best = max(orders, key=len, default=[])
    return [nodes[node] for node in dict.fromkeys([*best, *nodes])]


def _parts(cat: fx.Node) -> list[fx.Node]:
    parts: Any = cat.args[0]
    return list(parts)


def _bring_before(first: fx.Node, node: fx.Node) -> None:
    """Move what a node needs, and the node itself, in front of another that it does not depend on."""
    late, waiting = set(), [node]
    while waiting:
        one = waiting.pop()
        if one not in late and not one < first:
            late.add(one)
            waiting.extend(one.all_input_nodes)
    for one in [one for one in first.graph.nodes if one in late]:
        first.prepend(one)


@dataclass(frozen=True, eq=False)
class _Rows:
    """What stacked tables give, and which of it has been taken out: (start, stop, flat) of neighbouring fields."""

    body: fx.GraphModule
    stacked: fx.Node
    after: fx.Node
    place_of: dict[fx.Node, int]
    taken: dict[tuple[int, int, bool], fx.Node]

    def run(self, start: int, stop: int, *, flat: bool) -> fx.Node:
        """Return a node that gives the rows of some neighbouring fields, side by side or in one long row."""
        if (start, stop, flat) not in self.taken:
            node = self.stacked
            if stop - start < len(self.place_of):
                node = emit(self.body, self.after, aten.slice.Tensor, node, -2, start, stop)
            if flat:
                node = emit(self.body, self.after, aten.flatten.using_ints, node, -2, -1)
            self.taken[start, stop, flat] = node
        return self.taken[start, stop, flat]


def _join(rows: _Rows, user: fx.Node) -> None:
    """Let a concatenation of rows read them from where they stand side by side already, run by run."""
    if user.target not in _JOINS:
        return
    parts, rank, body, place_of = _parts(user), len(shape_of(user) or ()), rows.body, rows.place_of
    dim: Any = user.args[1] if len(user.args) > 1 else user.kwargs.get("dim", 0)
    beside = user.target is aten.stack.default and dim % rank == rank - 2
    if not beside and not (user.target is aten.cat.default and dim % rank == rank - 1):
        return
    runs: list[fx.Node] = []
    at = 0
    while at < len(parts):
        start = place_of.get(parts[at])
        stop = at + 1
        while start is not None and stop < len(parts) and place_of.get(parts[stop]) == start + stop - at:
            stop += 1
        if start is None:
            runs.append(emit(body, user, aten.unsqueeze.default, parts[at], -2) if beside else parts[at])
        else:
            runs.append(rows.run(start, start + stop - at, flat=not beside))
        at = stop
    joined = runs[0] if len(runs) == 1 else emit(body, user, aten.cat.default, runs, -2 if beside else -1)
    user.replace_all_uses_with(joined)
    body.graph.erase_node(user)


RULE = fuse_tables()

"""Which units of a traced model are cut together: a pass over its operators, and what is united by it."""

import operator
import weakref
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor, fx, nn

from flyweight.graph.coupled import elementwise, products, shapes
from flyweight.graph.coupled.axes import Ids, fixed, shape_of, whole
from flyweight.graph.coupled.flow import Flow, Result, Rule, arguments
from flyweight.graph.coupled.labels import Labels, Split
from flyweight.graph.traced import TracedModel

RULES: dict[str, Rule] = {**shapes.RULES, **products.RULES, **elementwise.RULES}
#: Passes with other readings of splits, such as the three parts of a joint projection of query, key and value.
MOST_PASSES = 8


@dataclass(frozen=True, eq=False)
class Analysis:
    """What a model's operators demand of a cut.

    Args:
        flow: dimensions of every node in terms of units.
        part: (ids,) which set each unit belongs to; a set is cut as one.
        why: the reason, for sets that cannot be cut.
        produced: (ids,) whether a layer computes it.
    """

    flow: Flow
    part: Ids
    why: dict[int, str]
    produced: npt.NDArray[np.bool_]


_KNOWN: "weakref.WeakKeyDictionary[TracedModel, Analysis]" = weakref.WeakKeyDictionary()


def analyse(traced: TracedModel) -> Analysis:
    """Return what a traced model's operators demand of a cut; computed once for each model.

    An axis that a view splits in two can be read as whole rows (heads) or as the same place of every row (the three
    parts of a joint projection): rows are tried first, and the other where rows leave nothing to cut.
    """
    if traced not in _KNOWN:
        _KNOWN[traced] = _analyse(traced.body)
    return _KNOWN[traced]


def _analyse(body: fx.GraphModule) -> Analysis:
    choices: dict[Split, int] = {}
    turns: dict[Split, int] = {}
    for _ in range(MOST_PASSES):
        found = _settle(_follow(body, dict(choices)))
        stuck = [key for key, ids in found.flow.labels.splits.items() if not _can_be_cut(found, ids)]
        changed = {key: 1 - choices.get(key, 0) for key in stuck if turns.get(key, 0) < 2}  # there, and back again
        if not changed:
            break
        choices |= changed
        turns |= {key: turns.get(key, 0) + 1 for key in changed}
    return found


def _can_be_cut(found: Analysis, ids: Ids) -> bool:
    parts = np.unique(found.part[ids])
    return sum(int(part) not in found.why for part in parts) > 1


def _follow(body: fx.GraphModule, choices: dict[Split, int]) -> Flow:
    flow = Flow(body, Labels(choices), names={id(tensor): name for name, tensor in body.named_parameters()})
    read_by_ids: set[str] = set()
    for node in body.graph.nodes:
        if node.op == "placeholder":
            flow.values[node] = fixed(shape_of(node), f"the model's input {node.target!r}")
        elif node.op == "get_attr":
            flow.values[node] = flow.tensor(str(node.target))
        elif node.op == "call_module":
            flow.values[node] = _module(flow, node)
            read_by_ids.add(f"{node.target}.weight")
        elif node.op == "call_function" and isinstance(node.meta.get("val"), (Tensor, list, tuple)):
            flow.values[node] = _function(flow, node)
        elif node.op == "output":
            for given in node.all_input_nodes:
                flow.labels.freeze(flow.of(given), "the model returns it")
    for (name, dim), axis in flow.stored.items():
        if dim == 0 and name in read_by_ids:
            flow.labels.freeze(axis, "it is read by ids")
    return flow


def _function(flow: Flow, node: fx.Node) -> Result:
    name = str(node.target)
    if not hasattr(node.target, "_schema"):  # operator.getitem of a node that gives several tensors
        return shapes.item(flow, node) if node.target is operator.getitem else flow.refuse(node)
    given = arguments(node)
    rule = RULES.get(name.split(".")[1]) if name.startswith("aten.") else None
    rule = rule or elementwise.rule_of(node)
    return rule(flow, node, given) if rule else flow.refuse(node)


def _module(flow: Flow, node: fx.Node) -> Result:
    module = flow.body.get_submodule(str(node.target))
    for given in node.all_input_nodes:
        flow.labels.freeze(flow.of(given), "it holds ids, or weights of a bag")
    if not isinstance(module, (nn.Embedding, nn.EmbeddingBag)) or module.max_norm is not None:
        return flow.untouched(node, f"the rows of {node.target} ({type(module).__name__}), whose width is fixed")
    width = flow.axis(f"{node.target}.weight", 1)
    flow.produce(width, "embedding")
    return (*(whole(size, "rows looked up") for size in shape_of(node)[:-1]), width)


def _settle(flow: Flow) -> Analysis:
    labels = flow.labels
    part = components(labels.count, labels.united)
    why: dict[int, str] = {}
    for ids, reason in labels.frozen:
        for one in np.unique(part[ids]).tolist():
            why.setdefault(one, reason)
    produced = np.zeros(labels.count, dtype=np.bool_)
    for ids, _ in labels.produced:
        produced[ids] = True
    return Analysis(flow, part, why, produced)


def components(count: int, united: list[tuple[Ids, Ids]]) -> Ids:
    """Return the set that each of `count` elements belongs to, named by its least element.

    Every round hooks roots onto lower ones and then shortens all ways to the root (Shiloach and Vishkin 1982).

    Example:
        >>> components(4, [(np.array([3]), np.array([1]))]).tolist()
        [0, 1, 2, 1]
    """
    root = np.arange(count, dtype=np.int64)
    if not united:
        return root
    one = np.concatenate([pair[0] for pair in united])
    other = np.concatenate([pair[1] for pair in united])
    while True:
        low, high = np.minimum(root[one], root[other]), np.maximum(root[one], root[other])
        apart = low < high
        if not apart.any():
            return root
        one, other = one[apart], other[apart]
        np.minimum.at(root, high[apart], low[apart])
        while not np.array_equal(root, root[root]):
            root = root[root]

"""Lookups of a traced graph that one stacked table could answer, and why others cannot be among them."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import fx, nn

from flyweight.rewrite.emit import shape_of
from flyweight.rewrite.spread import SPREAD
from flyweight.rewrite.stacked_tables import Asked, identity
from flyweight.rewrite.table_plan import TablePlan, plan_table, with_sums
from flyweight.tables.coded_embedding import CodedEmbedding
from flyweight.tables.coded_table import CODEBOOK_VALUES, FLOAT_EXACT, CodedTable

#: Whether the ids of two lookups may stand in one array: whether they have as many rows in every call.
Same = Callable[[fx.Node, fx.Node], bool]
#: Tables kept row by row are copied when they are stacked; more than this is left where it lies.
STACKED_BYTES = 64 << 20
#: A table that other lookups read as well would be stored twice; so much does not matter.
TWICE_BYTES = 1 << 16
#: Half-precision rows up to so many values lie in the codebook beside the codewords of other tables.
SMALL_VALUES = 1 << 16


@dataclass(frozen=True, eq=False)
class Lookup:
    """A node that reads rows, what it reads, and the kind of table; only lookups of one kind can be stacked."""

    node: fx.Node
    asked: Asked
    plan: TablePlan
    kind: tuple[object, ...]

    @property
    def values(self) -> int:
        """Numbers in the codebook that it brings, sums included."""
        summed = with_sums(self.plan)
        return self.plan.codebook.numel() if summed is None else summed.codebook.numel() + summed.sum_values


def lookup_of(body: fx.GraphModule, node: fx.Node) -> Lookup | None:
    """Return what a node reads if it looks ids up in a table."""
    if node.op != "call_module" or len(node.args) != 1 or node.kwargs or not isinstance(node.args[0], fx.Node):
        return None
    module, ids = body.get_submodule(str(node.target)), shape_of(node.args[0])
    if ids is None or not ids:
        return None
    if isinstance(module, CodedEmbedding):
        asked = Asked(module.table, module.padding_idx, module.padding_row)
    elif isinstance(module, nn.Embedding) and module.max_norm is None:
        asked = Asked(module)
    else:
        return None
    plan = plan_table(asked.table)
    return Lookup(node, asked, plan, (*_kind(plan, asked), *map(str, ids)))


def _kind(plan: TablePlan, asked: Asked) -> tuple[object, ...]:
    shape = plan.dim, plan.groups, plan.dtype, plan.codebook.dtype
    small = plan.codebook.dtype == torch.float16 and plan.codebook.numel() <= SMALL_VALUES
    if not isinstance(asked.table, CodedTable) and not small:
        return *shape, "rows"
    summed = with_sums(plan)
    if summed is None or summed.sum_values + summed.codebook.numel() > CODEBOOK_VALUES // 4:
        return *shape, "codewords one by one", plan.stages
    return *shape, "codes"


def why_alone(lookup: Lookup, all_lookups: list[Lookup], members: list[Lookup]) -> str | None:
    """Return why a lookup cannot be stacked with the others of its kind, None where it can."""
    plan, asked = lookup.plan, lookup.asked
    if plan.longest_position >= FLOAT_EXACT:
        return (
            f"its codes begin up to {plan.longest_position:,} bits after the first, and stacked tables compute places "
            f"below {FLOAT_EXACT:,}, where float32 is exact"
        )
    own = asked.padding_row
    if own is not None and not torch.equal(own.to(plan.codebook.dtype).to(own.dtype), own):
        return f"its padding row is not exact in {plan.codebook.dtype}, in which codewords are stored"
    size = plan.codes.numel() + plan.codebook.numel() * plan.codebook.element_size()
    company = {one.node for one in members}
    readers = [one.node for one in all_lookups if identity(one.asked.table) == identity(asked.table)]
    others = [node for node in readers if node not in company]
    if others and size > TWICE_BYTES:
        return f"{others[0].name} reads the same table at other ids, and {size:,} bytes would be stored twice"
    if lookup.kind[4] == "rows" and size > STACKED_BYTES:
        return f"its rows are kept as they are, and {size:,} bytes would be copied (at most {STACKED_BYTES:,})"
    return None


def before_spread(graph: fx.Graph) -> set[fx.Node]:
    """Return the nodes whose values have a row for each request: what is spread over the rows comes from them."""
    found: set[fx.Node] = set()
    waiting = [node.args[0] for node in graph.find_nodes(op="call_function", target=SPREAD)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, fx.Node) and node not in found:
            found.add(node)
            waiting.extend(node.all_input_nodes)
    return found


def same_rows(first: fx.Node, second: fx.Node) -> bool:
    """Return whether two lookups of ids of one shape have as many rows in every call: both of requests, or neither.

    Shapes that were traced with as many requests as rows do not tell; what is spread over the rows does.
    """
    requests = before_spread(first.graph)
    return (first in requests) == (second in requests)

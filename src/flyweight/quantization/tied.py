"""A table that scores are tied to: once its rows are rounded for the product, lookups read the rounded rows too.

A sequence model scores items with the table that it looks them up in. Rounding the product alone leaves the float table
in the file beside its integers, which makes the model larger.
"""

import torch
from torch import fx, nn

from flyweight.graph.traced import tensor_of
from flyweight.quantization.fake_quantize import FakeQuantize
from flyweight.quantization.sites import QUANTIZERS

aten = torch.ops.aten


def round_tied_lookups(body: fx.GraphModule) -> tuple[str, ...]:
    """Have each `nn.Embedding` whose weight is rounded by row elsewhere look up those rows; return their names."""
    order: dict[fx.Node, int] = {node: place for place, node in enumerate(body.graph.nodes)}
    done = []
    for node in body.graph.find_nodes(op="call_module"):
        module = body.get_submodule(str(node.target))
        if type(module) is not nn.Embedding or module.max_norm is not None:
            continue
        rounded = _rounded_rows(body, module)
        if rounded is None or order[rounded] > order[node]:
            continue
        with body.graph.inserting_before(node):
            lookup = body.graph.call_function(aten.embedding.default, (rounded, node.args[0]))
        lookup.meta = dict(node.meta)
        node.replace_all_uses_with(lookup)
        body.graph.erase_node(node)
        module.stored_bytes = module.weight.numel() + 4 * module.num_embeddings  # type: ignore[assignment]
        done.append(str(node.target))
    return tuple(done)


def _rounded_rows(body: fx.GraphModule, table: nn.Embedding) -> fx.Node | None:
    """Return the node that gives a table's weight rounded with a scale for each row, if there is one."""
    for read in body.graph.find_nodes(op="get_attr"):
        if tensor_of(body, str(read.target)) is not table.weight:
            continue
        for user in read.users:
            if user.op == "call_module" and str(user.target).startswith(f"{QUANTIZERS}."):
                module = body.get_submodule(str(user.target))
                if isinstance(module, FakeQuantize) and _is_by_row(module, table.num_embeddings):
                    return user  # type: ignore[no-any-return]
    return None


def _is_by_row(module: FakeQuantize, rows: int) -> bool:
    return module.axis == 0 and module.block is None and module.scale.numel() == rows

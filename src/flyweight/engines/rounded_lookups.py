"""`Q(T[i])` is `Q(T)[i]`: rows that are looked up only to be rounded for a layer are looked up rounded.

The rounded table is worked out by the engine as it loads the file, like all that is made of constants. Rows of a byte
a number are read instead of four, and nothing is rounded in a call: with 14 fields of 16 numbers and 500 candidates
that is 112,000 numbers, 20 of 150 microseconds.
"""

import onnx_ir as ir

from flyweight.engines.graph_edits import constant_of, replace

#: What hands its input on number by number.
_HANDS_ON = frozenset({"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Identity"})


def look_up_rounded(model: ir.Model) -> None:
    """Move roundings with one scale for all numbers before the lookups that they alone read, in place."""
    for node in [node for node in model.graph if node.op_type == "QuantizeLinear"]:
        chain = _to_lookup(node.inputs[0])
        if chain and _one_scale(node) and _is_constant(chain[-1].inputs[0]):
            _move(node, chain)


def _one_scale(node: ir.Node) -> bool:
    """Return whether a rounding has one scale, and its zero point, of which the type is read, is written out."""
    scale = constant_of(node.inputs[1])
    return scale is not None and scale.size == 1 and len(node.inputs) > 2 and node.inputs[2] is not None


def _to_lookup(value: ir.Value | None) -> list[ir.Node]:
    """Return the nodes from a value back to the lookup that it is made of; none where others read on the way."""
    chain: list[ir.Node] = []
    while value is not None and len(value.uses()) == 1 and not value.is_graph_output():
        node = value.producer()
        if node is None:
            return []
        chain.append(node)
        if node.op_type == "Gather":
            axis = node.attributes.get("axis")
            return chain if axis is None or axis.as_int() == 0 else []
        if node.op_type not in _HANDS_ON:
            return []
        value = node.inputs[0]
    return []


def _is_constant(value: ir.Value | None) -> bool:
    """Return whether a value is made of constants alone."""
    stack, seen = [value], set()
    while stack:
        one = stack.pop()
        if one is None or one in seen or (one.const_value is not None and not one.is_graph_input()):
            continue
        seen.add(one)
        node = one.producer()
        if node is None:
            return False
        stack += node.inputs
    return True


def _move(rounding: ir.Node, chain: list[ir.Node]) -> None:
    """Round the table of the lookup at the chain's end, and let what was rounded hand on whole numbers."""
    lookup, kind = chain[-1], rounding.outputs[0].dtype
    table = lookup.inputs[0]
    assert table is not None
    assert kind is not None
    early = ir.node("QuantizeLinear", [table, *rounding.inputs[1:]], dict(rounding.attributes.items()))
    rounded = early.outputs[0]
    early.name = rounded.name = f"{lookup.outputs[0].name}.QuantizeLinear"
    rounded.shape, rounded.dtype = table.shape, kind
    assert lookup.graph is not None
    lookup.graph.insert_before(lookup, early)
    lookup.replace_input_with(0, rounded)
    for node in chain:
        node.outputs[0].dtype = kind
    replace(rounding, chain[0].outputs[0])

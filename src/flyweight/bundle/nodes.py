"""One node of a graph against its operator's published schema: operator, inputs, outputs and attributes."""

import re

from onnx import AttributeProto, NodeProto, defs

from flyweight.bundle.operators import OPERATORS
from flyweight.bundle.tensors import MAX_RANK, check_inline
from flyweight.errors import BundleError

MAX_LIST = 4096
MAX_TEXT = 4096
MAX_STEP = 2**24
_STEPS = """
    block_size blocksize dilations group hidden_size kernel_shape kv_num_heads num_groups num_outputs q_num_heads size
    strides
"""
_RANK = (-MAX_RANK, MAX_RANK)
#: Least and greatest value of whole-number attributes. Engines divide by some and index with others, unchecked.
RANGES: dict[str, tuple[int, int]] = {
    **dict.fromkeys(_STEPS.split(), (1, MAX_STEP)),
    **dict.fromkeys(("axis", "axes", "batch_axis", "time_axis", "stash_type"), _RANK),
    **dict.fromkeys(("batch_dims", "perm"), (0, MAX_RANK)),
    **dict.fromkeys(("pads", "output_padding", "output_shape", "border"), (-MAX_STEP, MAX_STEP)),
    **dict.fromkeys(("start", "end", "value_int", "value_ints"), (-(2**63), 2**63 - 1)),
}
_TERM = rb"[A-Za-z]*(\.\.\.)?[A-Za-z]*"
_EINSUM = re.compile(rb"%s(,%s)*(->%s)?" % (_TERM, _TERM, _TERM))
_OTHERWISE = (-(2**31), 2**31 - 1)


def check_node(node: NodeProto, opset: int, where: str) -> None:
    """Check one node.

    Raises:
        BundleError: the operator is not among those a bundle may hold, or the node does not fit its schema.
    """
    if node.domain not in ("", "ai.onnx") or node.overload or node.op_type not in OPERATORS:
        full = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
        raise BundleError(
            f"{where} holds the operator {full[:80]!r} (node {node.name[:80]!r}), which no bundle may hold. "
            "If the model is yours, write it with standard operators; otherwise do not trust this bundle."
        )
    try:
        schema = defs.get_schema(node.op_type, opset, "")
    except defs.SchemaError:
        raise _refusal(node, where, f"is not in operator set {opset}") from None
    if schema.deprecated:
        raise _refusal(node, where, f"is no longer in operator set {opset}")
    _check_ends(node, schema, where)
    known = schema.attributes
    seen: set[str] = set()
    for one in node.attribute:
        if one.name not in known or one.name in seen:
            raise _refusal(node, where, f"has the unknown or doubled attribute {one.name[:80]!r}")
        seen.add(one.name)
        if one.type != known[one.name].type.value or one.ref_attr_name:  # type: ignore[attr-defined]
            raise _refusal(node, where, f"has attribute {one.name!r} of the wrong type")
        _check_attribute(node, one, where)
    lost = [name for name, attribute in known.items() if attribute.required and name not in seen]
    if lost or (node.op_type == "Constant" and len(seen) != 1):
        raise _refusal(node, where, f"lacks attribute {lost[0] if lost else 'value'!r}")
    _check_promises(node, where)


def _check_promises(node: NodeProto, where: str) -> None:
    """Check what onnx 1.23 and ONNX Runtime 1.32 believe unseen: they read past the end or never come back."""
    said = {one.name: one for one in node.attribute}
    if node.op_type == "Split" and "num_outputs" in said and said["num_outputs"].i != len(node.output):
        raise _refusal(node, where, f"has {len(node.output)} outputs and says {said['num_outputs'].i}")
    if node.op_type == "LayerNormalization" and not node.input[-1]:
        raise _refusal(node, where, "names no bias where one must stand or the place be left out")
    if node.op_type == "Einsum":
        equation = said["equation"].s.replace(b" ", b"")
        terms = equation.partition(b"->")[0].split(b",")
        if not _EINSUM.fullmatch(equation) or len(terms) != len(node.input):
            raise _refusal(node, where, f"has the equation {equation[:80]!r} for {len(node.input)} inputs")


def _check_ends(node: NodeProto, schema: defs.OpSchema, where: str) -> None:
    if not schema.min_input <= len(node.input) <= schema.max_input or not node.output[:1]:
        raise _refusal(node, where, f"has {len(node.input)} inputs, {schema.min_input} to {schema.max_input} are due")
    if not schema.min_output <= len(node.output) <= schema.max_output:
        raise _refusal(
            node, where, f"has {len(node.output)} outputs, {schema.min_output} to {schema.max_output} are due"
        )
    if len(node.input) > MAX_LIST or len(node.output) > MAX_LIST:
        raise _refusal(node, where, f"has {len(node.input):,} inputs and {len(node.output):,} outputs")
    for place, name in enumerate(node.input):
        formal = schema.inputs[min(place, len(schema.inputs) - 1)]
        if not name and formal.option != defs.OpSchema.FormalParameterOption.Optional:
            raise _refusal(node, where, f"lacks its input {formal.name!r}")
    if not node.output[0]:
        raise _refusal(node, where, "lacks its first output")


def _check_attribute(node: NodeProto, one: AttributeProto, where: str) -> None:
    if one.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) or one.HasField("g") or one.graphs:
        raise _refusal(node, where, f"holds a graph inside attribute {one.name!r}")
    if one.tensors or one.sparse_tensors or one.type_protos or one.HasField("sparse_tensor") or one.HasField("tp"):
        raise _refusal(node, where, f"holds a type, a list or a sparse tensor in attribute {one.name!r}")
    if one.HasField("t"):
        check_inline(one.t, where)
    longest = max(len(one.ints), len(one.floats), len(one.strings))
    if longest > MAX_LIST or len(one.s) > MAX_TEXT or sum(map(len, one.strings)) > MAX_TEXT:
        raise _refusal(node, where, f"has an attribute {one.name!r} of {max(longest, len(one.s)):,} parts")
    low, high = RANGES.get(one.name, _OTHERWISE)
    numbers = [one.i] if one.type == AttributeProto.INT else one.ints
    odd = next((number for number in numbers if not low <= number <= high), None)
    if odd is not None:
        raise _refusal(node, where, f"has {one.name} {odd}; {low:,} to {high:,} is due")


def _refusal(node: NodeProto, where: str, why: str) -> BundleError:
    return BundleError(f"{where}: {node.op_type[:80]} {node.name[:80]!r} {why}. Get the bundle again from its source.")

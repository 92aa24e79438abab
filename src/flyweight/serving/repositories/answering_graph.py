"""A bundle's model as a server runs it: plain inputs, one request a call, and the answers of `Ranker.score`."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, TensorProto, helper, numpy_helper

from flyweight.bundle.manifest import MODEL
from flyweight.bundle.read import Bundle
from flyweight.errors import InputError
from flyweight.serving.repositories.added_nodes import AddedNodes
from flyweight.serving.repositories.asked_tensors import AskedTensor, Signature
from flyweight.serving.repositories.prepared_inputs import asked_dtype, prepare_input
from flyweight.serving.repositories.refused_inputs import (
    CheckedInput,
    count_refused,
    count_rows,
    fail_if,
    no_numbers_if,
    require_lengths,
)
from flyweight.serving.repositories.unpacked_weights import unpack_weights

#: Constants that the bundle's model does not have, id maps mostly. They have a file of their own, so that
#: `model.onnx.data` stays the bundle's, byte for byte.
ADDED = "added.data"
_INLINE_BYTES = 1024
_JSON_FLOATS = {TensorProto.FLOAT, TensorProto.DOUBLE}


@dataclass(frozen=True)
class AnsweringGraph:
    """A graph that answers as `Ranker.score` does.

    Args:
        model: its large constants lie in the bundle's `model.onnx.data`, added ones in `added.data`.
        added: the bytes of that file; empty where there is none.
        signature: what it is asked and answers.
        unread: inputs of the bundle that the model does not read, and a server does not take.
    """

    model: ModelProto
    added: bytes
    signature: Signature
    unread: tuple[str, ...]

    def write(self, folder: Path) -> None:
        """Write `model.onnx` and, where it needs one, the file of added constants."""
        (folder / MODEL).write_bytes(self.model.SerializeToString(deterministic=True))
        if self.added:
            (folder / ADDED).write_bytes(self.added)


def fold_preparation(bundle: Bundle, engine: Literal["onnxruntime", "openvino"]) -> AnsweringGraph:
    """Return the model of a bundle with what `Ranker.score` does around it folded in.

    Of a request's fields a call gives one value, shape (1, ...); of a candidate's as many as candidates. Where no field
    belongs to a candidate, a call gives a flat batch, as to `Ranker.predict`.

    Args:
        engine: that the server runs it with. ONNX Runtime gets no integer weights that it would round activations for
            (`unpacked_weights`); OpenVINO gets the one request a call written into the shapes.

    Raises:
        EngineError: ONNX Runtime cannot unpack the weights.
        InputError: the number of candidates cannot be told from the inputs.
    """
    model = onnx.load(bundle.model, load_external_data=False)
    graph = model.graph
    opset = next(one.version for one in model.opset_import if one.domain in ("", "ai.onnx"))
    added = AddedNodes(graph, opset)
    if engine == "onnxruntime":
        for name, weights in unpack_weights(graph, opset, bundle.path, model.ir_version).items():
            added.constants.append(numpy_helper.from_array(weights, name))
    checked = _checked_inputs(bundle)
    _check_countable(bundle, checked)
    lengths = require_lengths(added, checked, fails=engine == "onnxruntime")
    maps = bundle.manifest.id_maps
    repeated = {one.name for one in checked if one.per_call and not bundle.graph.hoisted}
    prepared = {
        one.name: prepare_input(
            added, lengths.read[one.name], one.entry, maps.get(one.name), lengths.rows if one.name in repeated else None
        )
        for one in checked
    }
    refused = count_refused(added, checked, lengths)
    before = list(added.nodes)
    scores = added.fresh("scores")
    kind = graph.output[0].type.tensor_type.elem_type
    finished, rank = _finish(added, scores, bundle.graph.output, kind)
    if refused is not None and engine == "onnxruntime":
        fail_if(added, refused, finished, count_rows(added, finished, rank))
    elif refused is not None:
        no_numbers_if(added, refused, finished, np.dtype(np.float64 if kind == TensorProto.DOUBLE else np.float32))
    after = added.nodes[len(before) :]
    _rewire(graph, prepared, scores if after else None)
    if after:
        after[-1].output[0] = graph.output[0].name
    nodes = [*before, *graph.node, *after]
    del graph.node[:]
    graph.node.extend(nodes)
    data = _place_constants(graph, added.constants)
    open_requests = engine == "onnxruntime" and bundle.graph.hoisted
    signature = _declare(graph, checked, bundle.graph.output, open_requests)
    unread = tuple(name for name in bundle.manifest.inputs if name not in prepared)
    entry = bundle.timing.files["manifest.json"]
    helper.set_model_props(model, {"flyweight.bundle": bundle.manifest.name, "flyweight.manifest": entry.sha256})
    return AnsweringGraph(model, data, signature, unread)


def _checked_inputs(bundle: Bundle) -> list[CheckedInput]:
    entries = bundle.manifest.inputs
    ranks = bundle.graph.hoisted or any(entry.role != "request" for entry in entries.values())
    return [
        CheckedInput(name, entries[name], ranks and entries[name].role == "request", name in bundle.graph.flat)
        for name in bundle.graph.inputs
    ]


def _check_countable(bundle: Bundle, inputs: list[CheckedInput]) -> None:
    """Check that the inputs tell how many candidates a request has, and which values are whose."""
    asked = [one for one in inputs if one.per_call]
    bags = [one.name for one in inputs if one.own_length]
    if asked and bags:
        raise InputError(
            f"{bundle.path}: input {bags[0]!r} has a length of its own, so a server cannot tell which candidate its "
            f"values belong to, beside {asked[0].name!r} of a request; serve the bundle with Ranker.predict()."
        )
    if asked and not bundle.graph.hoisted and not any(one.is_cut for one in inputs):
        raise InputError(
            f"{bundle.path}: the model reads none of its candidates' inputs, so every score of a request is the same; "
            "there is nothing to serve."
        )


def _finish(added: AddedNodes, scores: str, width: tuple[int | None, ...], kind: int) -> tuple[str, int]:
    """Return scores and their rank, of one dimension where they are one number a candidate, and never in float16."""
    rank = 1 + len(width)
    if _is_single(width):
        scores, rank = added.node("Reshape", scores, added.constant(np.array([-1]))), 1
    if kind not in _JSON_FLOATS:
        scores = added.node("Cast", scores, to=TensorProto.FLOAT)
    return scores, rank


def _is_single(width: tuple[int | None, ...]) -> bool:
    return bool(width) and math.prod(size or 0 for size in width) == 1


def _rewire(graph: GraphProto, prepared: Mapping[str, str], scores: str | None) -> None:
    """Let the model read prepared inputs, and make its scores under another name."""
    output = graph.output[0].name
    renamed = dict(prepared) if scores is None else {**prepared, output: scores}
    for node in graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = renamed.get(name, name)
        for place, name in enumerate(node.output):
            if name == output and scores is not None:
                node.output[place] = scores


def _place_constants(graph: GraphProto, constants: list[TensorProto]) -> bytes:
    """Add constants to a graph, and return the bytes of those that are too large to lie in it."""
    data = bytearray()
    for tensor in constants:
        if len(tensor.raw_data) > _INLINE_BYTES:
            place, raw = len(data), tensor.raw_data
            data += raw + b"\0" * (-len(raw) % 64)
            onnx.external_data_helper.set_external_data(tensor, ADDED, offset=place, length=len(raw))
            tensor.ClearField("raw_data")
        graph.initializer.append(tensor)
    return bytes(data)


def _declare(
    graph: GraphProto, checked: list[CheckedInput], width: tuple[int | None, ...], open_requests: bool
) -> Signature:
    """Write down what the graph is asked and answers, and return it; `request_index` stays the constant it defaults to.

    Args:
        open_requests: leave the number of requests open in the file. ONNX Runtime turns layers whose rows it knows to
            be one into others: the scores of a SASRec moved by 2e-6 and took 0.48 ms in place of 0.27.
    """
    names = {value.name: value.type.tensor_type.shape.dim[0].dim_param or "rows" for value in graph.input}
    inputs = []
    del graph.input[:]
    for one in checked:
        dtype, first = asked_dtype(one.entry), 1 if one.per_call and not open_requests else names[one.name]
        kind = helper.np_dtype_to_tensor_dtype(dtype)
        graph.input.append(helper.make_tensor_value_info(one.name, kind, [first, *one.entry.shape]))
        shape = (1 if one.per_call else None, *one.entry.shape)
        inputs.append(AskedTensor(one.name, dtype, shape))
    output = graph.output[0]
    tensor = output.type.tensor_type
    if tensor.elem_type not in _JSON_FLOATS:
        tensor.elem_type = TensorProto.FLOAT
    if _is_single(width):
        del tensor.shape.dim[1:]
    kept = () if _is_single(width) else width
    answer = AskedTensor(output.name, np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type)), (None, *kept))
    return Signature(tuple(inputs), answer, tuple(one.name for one in checked if one.per_call))

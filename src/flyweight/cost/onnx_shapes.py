"""Shapes and types of every value in an ONNX file, for one request: its inputs' sizes put in place of open ones."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, TypeProto, ValueInfoProto, external_data_helper, helper, shape_inference

from flyweight.errors import InputError

#: Element types of fewer than 8 bits, packed.
_PACKED = {"INT4": 0.5, "UINT4": 0.5, "FLOAT4E2M1": 0.5, "INT2": 0.25, "UINT2": 0.25}
SMALL_BYTES = {getattr(TensorProto, name): size for name, size in _PACKED.items() if hasattr(TensorProto, name)}
#: A constant of so many numbers may hold sizes or axes, which inference has to see.
_FEW = 64


@dataclass(frozen=True)
class Value:
    """A tensor of the graph.

    Args:
        kind: element type, a number of `onnx.TensorProto`.
        shape: all sizes known.
    """

    kind: int
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def bytes(self) -> float:
        """Bytes it fills; 4-bit numbers fill half a one each."""
        return self.elements * element_bytes(self.kind)


def element_bytes(kind: int) -> float:
    """Return the bytes of one element; 0 for strings, whose size is not in the type."""
    if kind in SMALL_BYTES:
        return SMALL_BYTES[kind]
    if kind in (TensorProto.STRING, TensorProto.UNDEFINED):
        return 0.0
    return float(helper.tensor_dtype_to_np_dtype(kind).itemsize)


def read_graph(path: Path) -> ModelProto:
    """Return the graph, its own functions put in their places; of external numbers, only few that may be sizes.

    Raises:
        InputError: the file is missing, or no ONNX, or its external numbers are not there.
    """
    try:
        model = onnx.load(str(path), load_external_data=False)
        for tensor in model.graph.initializer:
            if external_data_helper.uses_external_data(tensor) and math.prod(tensor.dims) <= _FEW:
                external_data_helper.load_external_data_for_tensor(tensor, str(path.parent))
                tensor.data_location = TensorProto.DEFAULT
                del tensor.external_data[:]
    except Exception as error:  # protobuf's DecodeError has no common parent with OSError
        raise InputError(f"{path} cannot be read as an ONNX file: {str(error)[:200]}") from error
    if model.functions:
        from onnx import inliner

        model = inliner.inline_local_functions(model)
    return model


def value_shapes(model: ModelProto, inputs: Mapping[str, NDArray[Any]], folder: Path) -> dict[str, Value]:
    """Return every value of the main graph by name, for inputs of these shapes.

    Shapes are inferred by `onnx.shape_inference`; where a size depends on values that it does not follow, the graph is
    run once in ONNX Runtime and the shapes are read off what it made.

    Args:
        model: as `read_graph` gives it; left as it is.
        inputs: arrays by name; one that has a default may be left out.
        folder: where the file lies, for its external numbers.

    Raises:
        InputError: an input is missing or unknown, or the graph cannot be run with these inputs.
    """
    _check(model, inputs)
    sized = _sized(model, inputs)
    found = _known(sized)
    open_names = [name for name in _made(sized) if name not in found]
    if open_names:
        found.update(_run(sized, inputs, open_names, folder))
    return found


def defaults(model: ModelProto) -> set[str]:
    """Return names of inputs that have a default value."""
    return {one.name for one in model.graph.input} & {one.name for one in model.graph.initializer}


def _check(model: ModelProto, inputs: Mapping[str, NDArray[Any]]) -> None:
    names = {one.name for one in model.graph.input}
    missing, unknown = sorted(names - defaults(model) - set(inputs)), sorted(set(inputs) - names)
    if missing or unknown:
        raise InputError(
            f"The graph reads {sorted(names)}; missing: {missing or 'none'}, not known to it: {unknown or 'none'}."
        )


def _sized(model: ModelProto, inputs: Mapping[str, NDArray[Any]]) -> ModelProto:
    """The model with fixed sizes at its inputs and none claimed elsewhere, inferred anew."""
    copy = ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    given = [one for one in graph.input if one.name in inputs]
    for one in given:
        kind = one.type.tensor_type.elem_type
        one.CopyFrom(helper.make_tensor_value_info(one.name, kind, inputs[one.name].shape))
    overridden = [one for one in graph.initializer if one.name in inputs]
    for tensor in overridden:  # inference would take the default for the value
        graph.initializer.remove(tensor)
    for one in [one for one in graph.input if one.name not in inputs]:
        graph.input.remove(one)  # its default is a constant now
    del graph.value_info[:]
    for one in graph.output:
        one.type.tensor_type.ClearField("shape")
    try:
        return shape_inference.infer_shapes(copy, data_prop=True)
    except Exception as error:  # its InferenceError: sizes that do not fit together
        raise InputError(f"The graph does not take inputs of shapes {_sizes(inputs)}: {str(error)[:200]}") from error


def _sizes(inputs: Mapping[str, NDArray[Any]]) -> dict[str, list[int]]:
    return {name: list(value.shape) for name, value in inputs.items()}


def _known(model: ModelProto) -> dict[str, Value]:
    graph = model.graph
    found = {one.name: Value(one.data_type, tuple(one.dims)) for one in graph.initializer}
    for one in (*graph.input, *graph.value_info, *graph.output):
        value = _value(one.type)
        if value is not None:
            found[one.name] = value
    return found


def _value(kind: TypeProto) -> Value | None:
    tensor = kind.tensor_type
    if not kind.HasField("tensor_type") or not tensor.elem_type or not tensor.HasField("shape"):
        return None
    if not all(size.HasField("dim_value") for size in tensor.shape.dim):
        return None
    return Value(tensor.elem_type, tuple(size.dim_value for size in tensor.shape.dim))


def _made(model: ModelProto) -> Iterable[str]:
    return [name for node in model.graph.node for name in node.output if name]


def _run(
    model: ModelProto, inputs: Mapping[str, NDArray[Any]], names: list[str], folder: Path
) -> dict[str, Value]:
    """Run the graph with these values as its outputs."""
    import onnxruntime

    copy = ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    copy.graph.output.extend(ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    try:
        session = onnxruntime.InferenceSession(copy.SerializeToString(), options, providers=["CPUExecutionProvider"])
        made = session.run(names, dict(inputs))
    except Exception as error:  # its exceptions have no parent of their own
        raise InputError(
            f"Sizes of {len(names)} values are not in the graph ({names[0]!r}), and running it on inputs of shapes "
            f"{_sizes(inputs)} to see them failed: {str(error).splitlines()[0][:200]}"
        ) from error
    return {
        name: Value(helper.np_dtype_to_tensor_dtype(np.asarray(value).dtype), np.asarray(value).shape)
        for name, value in zip(names, made, strict=True)
        if isinstance(value, np.ndarray)
    }

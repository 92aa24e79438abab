"""What a prepared model takes, and arrays made to fit it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from flyweight.errors import InputError


@dataclass(frozen=True)
class Input:
    """One input of a graph.

    Args:
        name: as in the file.
        dtype: of its numbers.
        shape: None where open; dimensions of one name have one size in a batch.
        labels: names of the open dimensions, "" where fixed or not a plain name.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | None, ...]
    labels: tuple[str, ...] = ()


def read_inputs(path: Path) -> tuple[Input, ...]:
    """Return the inputs of an ONNX file, in its order; the numbers beside the file are not read.

    An engine may forget names of dimensions, and then runs batches of unequal length without a word.
    """
    graph = onnx.load(path, load_external_data=False).graph
    constants = {tensor.name for tensor in graph.initializer}
    return tuple(_input(value) for value in graph.input if value.name not in constants)


def _input(value: onnx.ValueInfoProto) -> Input:
    tensor = value.type.tensor_type
    sizes = tensor.shape.dim
    return Input(
        value.name,
        np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)),
        tuple(size.dim_value if size.HasField("dim_value") else None for size in sizes),
        tuple(size.dim_param if size.dim_param.isidentifier() else "" for size in sizes),
    )


def fit_inputs(taken: Sequence[Input], given: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """Return the given arrays by name, of the dtypes that the model takes, contiguous.

    Any whole numbers pass for whole numbers if they fit, any floats for floats; whole numbers pass for floats too.

    Raises:
        InputError: a name is missing or unknown, or a dtype or a shape is not the model's.

    Example:
        >>> fit_inputs([Input("x", np.dtype("float32"), (None, 2))], {"x": np.zeros((3, 2))})["x"].dtype
        dtype('float32')
    """
    names = [one.name for one in taken]
    missing = [name for name in names if name not in given]
    unknown = [name for name in given if name not in names]
    if missing or unknown:
        what = f"lacks input {missing[0]!r}" if missing else f"has {unknown[0]!r}, which the model does not take"
        raise InputError(f"The batch {what}; seen {sorted(given)}, the model takes {names}.")
    sizes: dict[str, tuple[str, int]] = {}
    return {one.name: _fit(one, given[one.name], sizes) for one in taken}


def _fit(one: Input, value: Any, sizes: dict[str, tuple[str, int]]) -> NDArray[Any]:
    array = np.asarray(value)
    _check_shape(one, array, sizes)
    if array.dtype == one.dtype:
        return np.ascontiguousarray(array)
    whole, floating = np.issubdtype(array.dtype, np.integer), np.issubdtype(array.dtype, np.floating)
    takes_whole, takes_float = np.issubdtype(one.dtype, np.integer), np.issubdtype(one.dtype, np.floating)
    if not ((whole and (takes_whole or takes_float)) or (floating and takes_float)):
        due = "whole numbers (int64 or int32)" if takes_whole else "numbers (float32)" if takes_float else "booleans"
        raise InputError(f"Input {one.name!r} has dtype {array.dtype}; the model takes {one.dtype}. Give {due}.")
    if takes_whole and array.size:
        limits = np.iinfo(one.dtype)
        if array.min() < limits.min or array.max() > limits.max:
            raise InputError(
                f"Input {one.name!r} holds {array.min()} to {array.max()}; the model takes {one.dtype}, "
                f"{limits.min} to {limits.max}."
            )
    return np.ascontiguousarray(array, dtype=one.dtype)


def _check_shape(one: Input, array: NDArray[Any], sizes: dict[str, tuple[str, int]]) -> None:
    agrees = array.ndim == len(one.shape) and all(
        size is None or size == seen for size, seen in zip(one.shape, array.shape, strict=True)
    )
    if not agrees:
        wanted = ", ".join("any" if size is None else str(size) for size in one.shape)
        raise InputError(f"Input {one.name!r} has shape {array.shape}; the model takes ({wanted}).")
    for label, seen in zip(one.labels, array.shape, strict=False):
        if label:
            first, size = sizes.setdefault(label, (one.name, seen))
            if size != seen:
                raise InputError(
                    f"Input {one.name!r} has {seen} {label} and {first!r} has {size}; they must be equally long."
                )

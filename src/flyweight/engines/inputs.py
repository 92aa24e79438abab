"""What a prepared model takes, and arrays made to fit it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from flyweight.errors import InputError
from flyweight.task.field import REQUEST_INDEX, REQUESTS

#: The dimension that counts rows, in files that we write.
ROWS = "rows"
_MULTIPLE = re.compile(r"([1-9][0-9]{0,5})\*([A-Za-z_]\w*)")


@dataclass(frozen=True)
class Input:
    """One input of a graph.

    Args:
        name: as in the file.
        dtype: of its numbers.
        shape: None where open; dimensions of one name have one size in a batch.
        labels: names of the open dimensions, "" where fixed or not a plain name.
        multiples: of open dimensions that are so many times a named one ("11*requests"): place, times and name.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | None, ...]
    labels: tuple[str, ...] = ()
    multiples: tuple[tuple[int, int, str], ...] = ()


@dataclass(frozen=True)
class Signature:
    """All inputs of a graph.

    Args:
        required: those that every call gives, in the file's order.
        optional: those that have a default in the file, such as `request_index`.
    """

    required: tuple[Input, ...]
    optional: tuple[Input, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the required inputs."""
        return tuple(one.name for one in self.required)

    def fit(self, given: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
        """Return the given arrays as the model takes them; see `fit_inputs`."""
        return fit_inputs(self.required, given, self.optional)

    def given(self, arrays: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the names of the optional inputs that a call gives."""
        return tuple(one.name for one in self.optional if one.name in arrays)


def read_signature(path: Path) -> Signature:
    """Return the inputs of an ONNX file; the numbers beside the file are not read.

    An engine may forget names of dimensions, and then runs batches of unequal length without a word.
    """
    graph = onnx.load(path, load_external_data=False).graph
    defaults = {tensor.name for tensor in graph.initializer}
    inputs = {value.name: _input(value) for value in graph.input}
    return Signature(
        tuple(one for name, one in inputs.items() if name not in defaults),
        tuple(one for name, one in inputs.items() if name in defaults),
    )


def read_inputs(path: Path) -> tuple[Input, ...]:
    """Return the inputs of an ONNX file that every call gives, in its order."""
    return read_signature(path).required


def _input(value: onnx.ValueInfoProto) -> Input:
    tensor = value.type.tensor_type
    sizes = tensor.shape.dim
    return Input(
        value.name,
        np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)),
        tuple(size.dim_value if size.HasField("dim_value") else None for size in sizes),
        tuple(size.dim_param if size.dim_param.isidentifier() else "" for size in sizes),
        tuple(
            (place, int(found[1]), found[2])
            for place, size in enumerate(sizes)
            if (found := _MULTIPLE.fullmatch(size.dim_param)) is not None
        ),
    )


def fit_inputs(
    taken: Sequence[Input], given: Mapping[str, Any], optional: Sequence[Input] = ()
) -> dict[str, NDArray[Any]]:
    """Return the given arrays by name, of the dtypes that the model takes, contiguous.

    Any whole numbers pass for whole numbers if they fit, any floats for floats; whole numbers pass for floats too.

    Args:
        optional: inputs that may be left out.

    Raises:
        InputError: a name is missing or unknown, or a dtype or a shape is not the model's; `request_index` names a
            request that is not there, or is left out for several requests.

    Example:
        >>> fit_inputs([Input("x", np.dtype("float32"), (None, 2))], {"x": np.zeros((3, 2))})["x"].dtype
        dtype('float32')
    """
    expected = [*taken, *(one for one in optional if one.name in given)]
    if len(expected) != len(given) or any(one.name not in given for one in expected):
        _refuse_names([one.name for one in taken], [one.name for one in expected], given)
    sizes: dict[str, tuple[str, int]] = {}
    checked: set[tuple[object, ...]] = set()
    arrays = {one.name: _fit(one, given[one.name], sizes, checked) for one in expected}
    if any(one.name == REQUEST_INDEX for one in optional):
        _check_requests(arrays.get(REQUEST_INDEX), sizes)
    return arrays


def _refuse_names(taken: Sequence[str], expected: Sequence[str], given: Mapping[str, Any]) -> None:
    missing = [name for name in taken if name not in given]
    unknown = [name for name in given if name not in expected]
    what = f"lacks input {missing[0]!r}" if missing else f"has {unknown[0]!r}, which the model does not take"
    raise InputError(f"The batch {what}; seen {sorted(given)}, the model takes {list(taken)}.")


def _check_requests(index: NDArray[Any] | None, sizes: Mapping[str, tuple[str, int]]) -> None:
    """An engine may read a request that is not there as zeros, or the first of several as the only one."""
    name, requests = sizes.get(REQUESTS, ("", 1))
    if index is None:
        if requests != 1:
            raise InputError(
                f"Input {name!r} has {requests} requests; give {REQUEST_INDEX!r}, the request of each row, or one "
                "request alone."
            )
        return
    rows = sizes.get(ROWS, ("", len(index)))[1]
    if len(index) not in (1, rows):
        raise InputError(f"Input {REQUEST_INDEX!r} has {len(index)} entries for {rows} rows; give one for each row.")
    if index.size and (index.min() < 0 or index.max() >= requests):
        raise InputError(
            f"Input {REQUEST_INDEX!r} holds {index.min()} to {index.max()}; there are {requests} requests, counted "
            "from 0."
        )


def _fit(
    one: Input, value: Any, sizes: dict[str, tuple[str, int]], checked: set[tuple[object, ...]]
) -> NDArray[Any]:
    array: NDArray[Any] = np.asarray(value)
    # A request has dozens of fields and few kinds of them: what passed once need not be looked at again.
    kind = (array.shape, one.labels, one.shape, one.multiples)
    if kind not in checked:
        _check_shape(one, array, sizes)
        checked.add(kind)
    if array.dtype == one.dtype:
        return array if array.flags.c_contiguous else np.ascontiguousarray(array)
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
    for place, times, label in one.multiples:
        first, size = sizes.setdefault(label, (one.name, array.shape[place] // times))
        if size * times != array.shape[place]:
            raise InputError(
                f"Input {one.name!r} has {array.shape[place]} places for {times} of each of the {size} {label} of "
                f"{first!r}; {size * times} are due."
            )

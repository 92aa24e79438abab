"""Stored sample requests with the scores of the reference model, so that a bundle can prove itself anywhere."""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from flyweight.bundle.entry import Count, Entry, Name
from flyweight.bundle.manifest import Dtype, InputEntry
from flyweight.errors import BundleError

MAX_ELEMENTS = 4_000_000


@dataclass(frozen=True)
class Sample:
    """A flat batch of inputs and the reference model's scores for it.

    Args:
        inputs: an array (N, ...) for each input; ids should come from the whole range, the highest included.
        scores: (N,), or (N, columns).
        noise: for a model rounded to few bits, by how much the rounding moves the scores, root mean square: engines may
            differ by as much (see `engines.agreement`).
    """

    inputs: Mapping[str, NDArray[Any]]
    scores: NDArray[Any]
    noise: float = 0.0


class ArrayEntry(Entry):
    """An array as JSON: dtype, shape, and its values in row order; booleans are 0 and 1."""

    dtype: Dtype
    shape: Annotated[list[Count], Field(max_length=8)]
    values: list[int | float]


class SampleEntry(Entry):
    """A `Sample` on disk."""

    inputs: dict[Name, ArrayEntry]
    scores: ArrayEntry
    noise: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0


class SamplesFile(Entry):
    """`samples.json` as it lies on disk."""

    requests: Annotated[list[SampleEntry], Field(max_length=1000)]


def samples_to_json(samples: Iterable[Sample]) -> dict[str, Any]:
    """Return samples as the JSON value of `samples.json`."""
    return {
        "requests": [
            {
                "inputs": {name: array_to_json(array) for name, array in sample.inputs.items()},
                "scores": array_to_json(sample.scores),
                **({"noise": float(sample.noise)} if sample.noise else {}),
            }
            for sample in samples
        ]
    }


def samples_from_entry(
    file: SamplesFile, inputs: Mapping[str, InputEntry], flat: Collection[str], where: str
) -> tuple[Sample, ...]:
    """Return the samples of a bundle, each checked against the manifest's inputs; `flat` ones have their own length.

    Raises:
        BundleError: values do not fit their shape or dtype, an input is missing or unknown, an id is out of range.
    """
    samples = []
    for number, entry in enumerate(file.requests):
        place = f"{where} request {number}"
        if set(entry.inputs) != set(inputs):
            odd = sorted(set(entry.inputs) ^ set(inputs))
            raise BundleError(
                f"{place} and the manifest differ in input {odd[0]!r}; the bundle was altered: get it again."
            )
        scores = array_from_entry(entry.scores, f"{place}: scores")
        arrays = {name: array_from_entry(array, f"{place}: {name}") for name, array in entry.inputs.items()}
        for name, array in arrays.items():
            _check_input(f"{place}: {name}", array, inputs[name], len(array) if name in flat else len(scores))
        samples.append(Sample(arrays, scores, entry.noise))
    return tuple(samples)


def array_to_json(array: NDArray[Any]) -> dict[str, Any]:
    """Return an array as JSON: dtype, shape and values."""
    array = np.asarray(array)
    values = (array.astype(np.uint8) if array.dtype == bool else array).ravel().tolist()
    if array.dtype == np.float32:  # the fewest digits that are read as the same float32, half as many
        values = [float(str(value)) for value in array.ravel()]
    return {"dtype": str(array.dtype), "shape": list(array.shape), "values": values}


def array_from_entry(entry: ArrayEntry, place: str) -> NDArray[Any]:
    """Return the array of an entry.

    Raises:
        BundleError: values do not fit the shape or the dtype, or are not finite.
    """
    elements = math.prod(entry.shape)
    if elements != len(entry.values) or not 0 < elements <= MAX_ELEMENTS or not entry.shape:
        raise BundleError(
            f"{place} has shape {entry.shape} for {len(entry.values):,} values (1 to {MAX_ELEMENTS:,} are read); "
            "the bundle was altered: get it again."
        )
    dtype = np.dtype(entry.dtype)
    if dtype.kind != "f":
        low, high = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
        if any(isinstance(value, float) for value in entry.values):
            raise BundleError(f"{place} holds a fraction where {dtype} is due; the bundle was altered: get it again.")
        if min(entry.values) < low or max(entry.values) > high:
            raise BundleError(f"{place} holds a value outside {dtype}; the bundle was altered: get it again.")
    try:
        with np.errstate(over="ignore"):
            array = np.array(entry.values, dtype=dtype).reshape(entry.shape)
    except OverflowError:
        raise BundleError(f"{place} holds a value outside {dtype}; the bundle was altered: get it again.") from None
    if dtype.kind == "f" and not np.isfinite(array).all():
        raise BundleError(f"{place} holds a value outside {dtype}; the bundle was altered: get it again.")
    return array


def _check_input(place: str, array: NDArray[Any], spec: InputEntry, rows: int) -> None:
    fits = len(array.shape) == 1 + len(spec.shape) and all(
        due is None or due == seen for due, seen in zip(spec.shape, array.shape[1:], strict=True)
    )
    if not fits or str(array.dtype) != spec.dtype or len(array) != rows:
        raise BundleError(
            f"{place} is {array.dtype} of shape {array.shape} for {rows} rows, the manifest says {spec.dtype} "
            f"and {spec.shape} after the batch; the bundle was altered: get it again."
        )
    if spec.rows is not None and (array.min() < 0 or array.max() >= spec.rows):
        raise BundleError(f"{place} holds ids outside 0 to {spec.rows - 1}; the bundle was altered: get it again.")

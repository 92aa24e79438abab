"""Where the tensors of a request's body lie: told by its JSON header, and worked out once for all that have the same.

A client sends the same header for the same number of candidates, and a ranker has dozens of inputs: reading a header
of 25 took half the time that a worker has for a request.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from flyweight.serving.datatypes import (
    DATATYPES,
    array_of_bytes,
    array_of_values,
    check_datatype,
    checked_name,
    checked_shape,
)
from flyweight.serving.json_body import json_object, kind_of
from flyweight.serving.refusal import Refusal, shown

Array = NDArray[Any]
SCORES = "scores"
#: Layouts that are kept, and the longest header of which one is; when there are more, all are forgotten.
MOST_KEPT, LONGEST_KEPT = 1024, 8192


class Cut(NamedTuple):
    """A tensor whose values are bytes after the header: from `begin` to `end` of them."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    elements: int
    begin: int
    end: int


@dataclass(frozen=True, eq=False)
class Layout:
    """What a header says.

    Args:
        cuts: the tensors whose values follow as bytes.
        given: the tensors whose values are in the header, by name.
        names: of all tensors, in their order.
        size: bytes that are to follow.
        id: the caller's name for the request.
        binary: whether scores are due as bytes.
        parameters: the request's own.
        even: the type of all numbers, where all tensors are rows of that one type; None where not.
        fits: what whoever reads tensors found out about all that lie so, by itself.
    """

    cuts: tuple[Cut, ...]
    given: Mapping[str, Array]
    names: tuple[str, ...]
    size: int
    id: str
    binary: bool
    parameters: Mapping[str, Any]
    even: np.dtype[Any] | None
    fits: WeakKeyDictionary[Any, Any] = field(default_factory=WeakKeyDictionary)

    def arrays(self, binary: memoryview) -> dict[str, Array]:
        """Return the tensors by name; those of numbers are views of the bytes, read-only.

        Args:
            binary: the bytes after the header; not copied where they begin at an address that numbers may begin at.

        Raises:
            Refusal: there are more or fewer bytes than the header says, or they are no values of their type.
        """
        if self.size != len(binary):
            self._refuse_size(len(binary))
        if self.even is not None:
            whole = np.frombuffer(binary, self.even)
            if not whole.flags.aligned:
                whole = whole.copy()
            width = self.even.itemsize
            return {cut[0]: whole[cut[4] // width : cut[5] // width] for cut in self.cuts}
        found = dict(self.given)
        for name, datatype, shape, elements, begin, end in self.cuts:
            array = array_of_bytes(name, datatype, binary[begin:end], elements)
            found[name] = array if len(shape) == 1 else array.reshape(shape)
        return found if not self.given else {name: found[name] for name in self.names}

    def _refuse_size(self, seen: int) -> None:
        for cut in self.cuts:
            if cut.end > seen:
                raise Refusal(
                    f"Input {cut.name!r}: binary_data_size says {cut.end - cut.begin:,} bytes; "
                    f"{seen - cut.begin:,} are left in the body."
                )
        raise Refusal(f"The tensors' binary_data_size add up to {self.size:,} bytes; {seen:,} follow the header.")


_kept: dict[bytes, Layout] = {}


def layout_of(header: bytes) -> Layout:
    """Return the layout that a JSON header tells; one that was seen before is not read again.

    Raises:
        Refusal: it is no header of a request of the protocol.
    """
    layout = _kept.get(header)
    if layout is None:
        layout = _read(header)
        if not layout.given and len(header) <= LONGEST_KEPT:
            if len(_kept) >= MOST_KEPT:
                _kept.clear()
            _kept[header] = layout
    return layout


def _read(data: bytes) -> Layout:
    header = json_object(data)
    listed = header.get("inputs")
    if not isinstance(listed, list) or not listed:
        raise Refusal(f"The request must have 'inputs', a list of tensors; seen {_seen(header)}.")
    cuts: list[Cut] = []
    given: dict[str, Array] = {}
    names: dict[str, None] = {}
    for entry in listed:
        name = _name(entry, names)
        names[name] = None
        found = _tensor(name, entry, cuts[-1].end if cuts else 0)
        if isinstance(found, Cut):
            cuts.append(found)
        else:
            given[name] = found
    size = cuts[-1].end if cuts else 0
    told = _id(header), _wants_binary(header), _parameters(header)
    return Layout(tuple(cuts), given, tuple(names), size, *told, None if given else _even(cuts))


def _even(cuts: list[Cut]) -> np.dtype[Any] | None:
    """Return the one type of all tensors, where all are rows of as many bytes as they say."""
    dtype = DATATYPES.get(cuts[0].datatype)
    if dtype is None or dtype.kind == "b":
        return None
    due = dtype.itemsize
    even = all(
        len(cut.shape) == 1 and cut.datatype == cuts[0].datatype and cut.end - cut.begin == cut.elements * due
        for cut in cuts
    )
    return dtype if even else None


def _name(entry: Any, seen: Mapping[str, Any]) -> str:
    if not isinstance(entry, dict):
        raise Refusal(f"Input {len(seen)} must be an object with a 'name'; seen {shown(entry)}.")
    name = checked_name(entry.get("name"), len(seen))
    if name in seen:
        raise Refusal(f"Input {name!r} is given twice; give it once.")
    return name


def _tensor(name: str, entry: dict[str, Any], begin: int) -> Array | Cut:
    """Return an input's array, or where its bytes are, from `begin` on."""
    datatype = entry.get("datatype")
    check_datatype(name, datatype)
    shape = checked_shape(name, entry.get("shape"))
    elements = shape[0] if len(shape) == 1 else prod(shape)
    size = _binary_size(name, entry)
    if size is not None:
        if "data" in entry:
            raise Refusal(f"Input {name!r} has both 'data' and 'binary_data_size'; give one of them.")
        return Cut(name, str(datatype), shape, elements, begin, begin + size)
    array = array_of_values(name, str(datatype), entry.get("data"))
    if array.size != elements:
        raise Refusal(f"Input {name!r}: shape {list(shape)} is {elements:,} values; seen {array.size:,} in its data.")
    return array.reshape(shape)


def _binary_size(name: str, entry: Mapping[str, Any]) -> int | None:
    parameters = entry.get("parameters")
    if parameters is None:
        return None
    if not isinstance(parameters, dict):
        raise Refusal(f"Input {name!r}: parameters must be an object; seen {kind_of(parameters)}.")
    if "shared_memory_region" in parameters:
        raise Refusal(f"Input {name!r}: shared memory is not served here; send the values.")
    size = parameters.get("binary_data_size")
    if size is not None and (type(size) is not int or size < 0):
        raise Refusal(f"Input {name!r}: binary_data_size must be a whole number of bytes; seen {shown(size)}.")
    return size


def _id(header: Mapping[str, Any]) -> str:
    found = header.get("id", "")
    if not isinstance(found, str):
        raise Refusal(f"The request's id must be a string; seen {kind_of(found)}.")
    return found


def _parameters(header: Mapping[str, Any]) -> dict[str, Any]:
    found = header.get("parameters", {})
    if not isinstance(found, dict):
        raise Refusal(f"The request's parameters must be an object; seen {kind_of(found)}.")
    return found


def _wants_binary(header: Mapping[str, Any]) -> bool:
    """Return whether scores are due as bytes: what an output asks for goes before what the request does."""
    outputs = header.get("outputs", [])
    if not isinstance(outputs, list):
        raise Refusal(f"The request's outputs must be a list; seen {kind_of(outputs)}.")
    binary = _parameters(header).get("binary_data_output", False)
    for entry in outputs:
        if not isinstance(entry, dict) or not isinstance(parameters := entry.get("parameters", {}), dict):
            raise Refusal(f"Each output must be an object; seen {shown(entry)}.")
        if entry.get("name") != SCORES:
            raise Refusal(f"Output {shown(entry.get('name'))} is not known; the one output is {SCORES!r}.")
        if parameters.get("classification"):
            raise Refusal("Output 'scores': classification is not served here; rank the scores, or use /v1/rank.")
        if "shared_memory_region" in parameters:
            raise Refusal("Output 'scores': shared memory is not served here; take the values.")
        binary = parameters.get("binary_data", binary)
    return bool(binary)


def _seen(header: Mapping[str, Any]) -> str:
    return f"keys {shown(sorted(header))}" if "inputs" not in header else shown(header["inputs"])

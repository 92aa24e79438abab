"""What a server is asked for and answers: tensors by name, with the data types of the Open Inference Protocol v2."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyweight.errors import InputError

#: NumPy's dtype -> the protocol's data type (Open Inference Protocol v2, "Tensor Data Types").
DATATYPES = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float32": "FP32",
    "float64": "FP64",
}


@dataclass(frozen=True)
class AskedTensor:
    """A tensor of a request or an answer.

    Args:
        name: as in the graph.
        dtype: of its numbers.
        shape: None where any length goes; 1 where a request has one value for all candidates.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | None, ...]

    @property
    def datatype(self) -> str:
        """Return the protocol's name of the dtype.

        Raises:
            InputError: it has none that JSON can carry.
        """
        found = DATATYPES.get(str(self.dtype))
        if found is None:
            raise InputError(f"{self.name!r} is of dtype {self.dtype}, which the protocol's JSON cannot carry.")
        return found


@dataclass(frozen=True)
class Signature:
    """All tensors of a served model.

    Args:
        inputs: in the graph's order.
        output: the one answer.
        per_call: inputs of which a call gives one value for all its candidates.
    """

    inputs: tuple[AskedTensor, ...]
    output: AskedTensor
    per_call: tuple[str, ...]


def as_json_tensor(tensor: AskedTensor, array: NDArray[Any]) -> dict[str, Any]:
    """Return an array as the protocol's JSON spells it: flat, in row order, float32 with the fewest exact digits."""
    values = [float(str(value)) for value in array.ravel()] if array.dtype == np.float32 else array.ravel().tolist()
    return {"name": tensor.name, "shape": list(array.shape), "datatype": tensor.datatype, "data": values}

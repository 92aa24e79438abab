"""An answer of the Open Inference Protocol v2 as bytes: JSON, or a JSON header with the scores' bytes after it."""

from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from flyweight.serving.datatypes import datatype_of
from flyweight.serving.degraded import DEGRADED_ROWS, degraded_rows
from flyweight.serving.layout import SCORES

#: JSON may spell whole numbers and floats of these types alone; others are widened.
_NATIVE = (np.float32, np.float64, np.int64, np.int32)


def write_answer(
    model: str, version: str, scores: NDArray[Any], request_id: str = "", *, binary: bool = False
) -> tuple[bytes, int | None]:
    """Return the body, and how many bytes of it are JSON where the scores follow as bytes; None where all is JSON.

    Args:
        model, version: which answered.
        scores: (N,) or (N, columns).
        request_id: the caller's name for the request; left out where empty.

    """
    degraded = degraded_rows(scores)
    scores = np.ascontiguousarray(scores)
    output: dict[str, Any] = {"name": SCORES, "datatype": datatype_of(scores.dtype), "shape": list(scores.shape)}
    answer: dict[str, Any] = {"model_name": model, "model_version": version, "outputs": [output]}
    if request_id:
        answer["id"] = request_id
    if degraded:
        answer["parameters"] = {DEGRADED_ROWS: degraded}
    if binary:
        output["parameters"] = {"binary_data_size": scores.nbytes}
        header = orjson.dumps(answer)
        return header + scores.tobytes(), len(header)
    flat = scores.ravel()
    output["data"] = flat if scores.dtype in _NATIVE else flat.astype(np.float32)
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY), None

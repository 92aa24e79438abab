"""Which requests a canary answers: a draw for each request, or a field's hash, the same in every worker and after any
restart.

A value falls on a place from 0 to 100 by its hash; places below the canary's percent are the canary's. A larger percent
thus only adds values, and none that had the canary goes back. The canary's version is hashed too, so that not the same
users are first with every new version.
"""

import hashlib
import random
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from flyweight.serving.rollout import Canary


def takes_canary(model: str, canary: Canary, inputs: Mapping[str, NDArray[Any]]) -> bool:
    """Return whether the canary answers a request with these inputs; one without the field never is the canary's."""
    if canary.field is None:
        return random.random() * 100 < canary.percent
    array = inputs.get(canary.field)
    if array is None or not array.size:
        return False
    return place_of(text_of(array), f"{model}/{canary.version}") < canary.percent


def place_of(text: str, salt: str) -> float:
    """Return the place of a text, evenly spread from 0 to below 100.

    Example:
        >>> round(place_of("7", "ranker/2"), 3)
        90.485
    """
    digest = hashlib.blake2b(f"{salt}\0{text}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64 * 100


def text_of(array: NDArray[Any]) -> str:
    """Return the first row's value as text, whatever number type it came in; a request of several users goes by its
    first.

    Example:
        >>> import numpy as np
        >>> text_of(np.array([7], dtype=np.int32)) == text_of(np.array([7.0])) == "7"
        True
    """
    row = array[0].ravel().tolist() if array.ndim > 1 else [array.ravel()[0]]
    return ",".join(map(_text, row))


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    number = float(value)
    # Beyond 2^53 a double is no longer the id it came from.
    return str(int(value)) if number.is_integer() else repr(number)

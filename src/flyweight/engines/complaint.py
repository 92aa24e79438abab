"""What an engine said when it failed, in one line."""

import re

from flyweight.errors import EngineError

LONGEST = 300
#: Where in its own sources an engine noticed; what it noticed comes after.
_PLACE = re.compile(r"Exception from |Check '.*' failed at [^ ]+:$")


def complaint(engine: str, what: str, error: BaseException) -> EngineError:
    """Return an `EngineError` of the engine's name, what it did, and its message as one line of at most 300 characters.

    Example:
        >>> str(complaint("openvino", "failed", RuntimeError("Exception from core.cpp:98:\\nno such operator")))
        'openvino failed: no such operator'
    """
    lines = [line.strip() for line in str(error).splitlines()]
    telling = " ".join(line for line in lines if line and not _PLACE.match(line)) or type(error).__name__
    return EngineError(f"{engine} {what}: {telling if len(telling) <= LONGEST else telling[:LONGEST] + '...'}")

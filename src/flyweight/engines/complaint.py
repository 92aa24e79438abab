"""What an engine said when it failed, in one line."""

from flyweight.errors import EngineError


def complaint(engine: str, what: str, error: BaseException) -> EngineError:
    """Return an `EngineError` of the engine's name, what it did, and the first line of its message that says anything.

    Example:
        >>> str(complaint("openvino", "failed", RuntimeError("Exception from core.cpp:98:\\nno such operator")))
        'openvino failed: no such operator'
    """
    lines = [line.strip() for line in str(error).splitlines()]
    telling = [line for line in lines if line and not line.startswith("Exception from ")]
    return EngineError(f"{engine} {what}: {telling[0] if telling else type(error).__name__}")

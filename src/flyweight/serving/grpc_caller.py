"""Who makes a call over gRPC, as far as its metadata say; for HTTP see `caller`."""

from typing import Any

from flyweight.serving.caller import Caller, clean_id


def metadata_of(context: Any) -> dict[str, str]:
    """Return a call's metadata that are text."""
    return {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}


def caller_of_call(context: Any) -> Caller:
    """Return who asks."""
    told = metadata_of(context)
    return Caller(clean_id(told.get("x-request-id", "")), told.get("traceparent", ""))

"""The guard before the calls of gRPC: the same rules as for HTTP."""

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import unquote

from flyweight.serving.access import PASSED_ON, Access, Origin
from flyweight.serving.answering import Desk
from flyweight.serving.grpc_caller import caller_of_call, metadata_of
from flyweight.serving.refusal import Refusal

#: Asked by what starts and stops services, which has no tokens.
OPEN_CALLS = frozenset({"ServerLive", "ServerReady"})
ADMIN_CALLS = frozenset({"RepositoryModelLoad", "RepositoryModelUnload"})


def interceptors(access: Access, desk: Desk) -> list[Any]:
    """Return what gRPC's server is to ask before each call."""
    import grpc

    class Guard(grpc.aio.ServerInterceptor):  # type: ignore[misc, unused-ignore]
        async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
            handler = await continuation(details)
            name = details.method.rpartition("/")[2]
            if handler is None or handler.unary_unary is None or name in OPEN_CALLS:
                return handler
            return grpc.unary_unary_rpc_method_handler(
                _guarded(handler.unary_unary, name in ADMIN_CALLS, access, desk),
                handler.request_deserializer,
                handler.response_serializer,
            )

    return [Guard()]


def _guarded(call: Callable[[Any, Any], Awaitable[Any]], admin: bool, access: Access, desk: Desk) -> Any:
    from grpc import StatusCode

    async def guarded(request: Any, context: Any) -> Any:
        metadata = metadata_of(context)
        try:
            (access.check_admin if admin else access.check_use)(_origin(metadata, context.peer()))
        except Refusal as found:
            refusal = found
        else:
            return await call(request, context)
        desk.refuse("grpc", "", refusal, caller_of_call(context))
        await context.abort(StatusCode[refusal.status.grpc], str(refusal))
        raise AssertionError("abort raises")

    return guarded


def _origin(metadata: dict[str, str], peer: str) -> Origin:
    """Return where a call comes from; `peer` is "ipv4:127.0.0.1:1234", "ipv6:[::1]:1234" or "unix:..."."""
    kind, _, rest = unquote(peer).partition(":")
    address = rest.rpartition(":")[0].strip("[]") if kind in ("ipv4", "ipv6") else ""
    forwarded = any(name in metadata for name in PASSED_ON)
    return Origin(address, metadata.get("authorization", ""), forwarded)

"""The protocol v2 over gRPC, on the worker's own event loop and through the same queues as HTTP."""

import logging
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from flyweight.errors import FlyweightError
from flyweight.serving.administration import Administration
from flyweight.serving.answering import Desk
from flyweight.serving.caller import Caller
from flyweight.serving.grpc_caller import caller_of_call
from flyweight.serving.grpc_messages import CALLS, SERVICE, messages
from flyweight.serving.grpc_target import read_target
from flyweight.serving.grpc_tensors import read_message, write_message
from flyweight.serving.metadata import describe_server
from flyweight.serving.refusal import Refusal, refusal_of
from flyweight.serving.tensors import Tensors
from flyweight.serving.tls import grpc_credentials

logger = logging.getLogger("flyweight.serving")
Call = Callable[[Any, Any], Awaitable[Any]]
#: Seconds that calls may take at the end before they are cut off.
LAST_SECONDS = 30.0


class GrpcService:
    """The calls of the service.

    Args:
        desk: where requests are handed in.
        administration: loads and unloads models in every worker.
    """

    def __init__(self, desk: Desk, administration: Administration) -> None:
        self._desk = desk
        self._repository = desk.repository
        self._administration = administration
        self._messages = messages()

    def calls(self) -> dict[str, Call]:
        """Return each call's handler by its name."""
        return {
            "ServerLive": self._server_live,
            "ServerReady": self._server_ready,
            "ModelReady": self._model_ready,
            "ServerMetadata": self._server_metadata,
            "ModelMetadata": self._model_metadata,
            "ModelInfer": self._model_infer,
            "RepositoryIndex": self._repository_index,
            "RepositoryModelLoad": self._load,
            "RepositoryModelUnload": self._unload,
        }

    async def _server_live(self, request: Any, context: Any) -> Any:
        return self._messages["ServerLiveResponse"](live=True)

    async def _server_ready(self, request: Any, context: Any) -> Any:
        return self._messages["ServerReadyResponse"](ready=self._repository.ready)

    async def _model_ready(self, request: Any, context: Any) -> Any:
        entry = self._repository.entry(request.name)
        ready = request.version in entry.versions if request.version else entry.answering is not None
        return self._messages["ModelReadyResponse"](ready=ready)

    async def _server_metadata(self, request: Any, context: Any) -> Any:
        return self._messages["ServerMetadataResponse"](**describe_server())

    async def _model_metadata(self, request: Any, context: Any) -> Any:
        served = self._repository.answerer(request.name, request.version or None, {})
        versions = list(self._repository.entry(request.name).versions)
        described = served.describe(versions)
        for one in described["inputs"]:
            one.pop("parameters", None)  # for which the protocol's message has no place
        return self._messages["ModelMetadataResponse"](**described)

    async def _model_infer(self, request: Any, context: Any) -> Any:
        caller = caller_of_call(context)
        try:
            tensors = read_message(request)
        except FlyweightError as error:
            self._desk.refuse("grpc", request.model_name, refusal_of(error), caller)
            raise
        tensors = _in_time(tensors, context.time_remaining())
        told = await self._desk.answer("grpc", request.model_name, request.model_version or None, tensors, caller)
        return write_message(request.model_name, told)

    def early_refusal(self, data: bytes) -> Refusal | None:
        """Return why an inference must be refused whatever is in its message, None where it need not; it is counted."""
        target, desk = read_target(data), self._desk
        refusal = None if target is None else desk.full(*target)
        if target is None or refusal is None:
            return None
        if desk.tally is not None:
            desk.tally("grpc", target[0], refusal.kind)
        else:
            desk.refuse("grpc", target[0], refusal, Caller())
        return refusal

    async def _repository_index(self, request: Any, context: Any) -> Any:
        return self._messages["RepositoryIndexResponse"](models=self._repository.index(ready_only=request.ready))

    async def _load(self, request: Any, context: Any) -> Any:
        await self._administration.load(request.model_name, dict(request.parameters))
        return self._messages["RepositoryModelLoadResponse"]()

    async def _unload(self, request: Any, context: Any) -> Any:
        await self._administration.unload(request.model_name)
        return self._messages["RepositoryModelUnloadResponse"]()


class GrpcServer:
    """A server of the service; several processes share its port.

    Args:
        service: its calls.
        address: host and port, which the process above holds bound.
        most: bytes of one message.
        interceptors: asked before each call.
        tls: paths of the certificate and the key; None serves in the clear.
    """

    def __init__(
        self,
        service: GrpcService,
        address: str,
        most: int,
        interceptors: Sequence[Any] = (),
        tls: tuple[str, str] | None = None,
    ) -> None:
        from grpc import aio

        self._server = aio.server(
            interceptors=interceptors,
            options=[("grpc.so_reuseport", 1), ("grpc.max_receive_message_length", most)], compression=None
        )
        self._server.add_generic_rpc_handlers((_handlers(service),))
        if tls is None:
            self.port = int(self._server.add_insecure_port(address))
        else:
            self.port = int(self._server.add_secure_port(address, grpc_credentials(*tls)))

    async def start(self) -> None:
        """Take calls."""
        await self._server.start()

    async def stop(self) -> None:
        """Refuse new calls and return when those that run are answered."""
        await self._server.stop(LAST_SECONDS)


def _handlers(service: GrpcService) -> Any:
    import grpc

    known = messages()
    calls = service.calls()
    assert set(calls) == set(CALLS)
    return grpc.method_handlers_generic_handler(
        SERVICE,
        {
            name: grpc.unary_unary_rpc_method_handler(
                _guarded(call, known[f"{name}Request"], service.early_refusal if name == "ModelInfer" else None),
                response_serializer=known[f"{name}Response"].SerializeToString,
            )
            for name, call in calls.items()
        },
    )


def _in_time(tensors: Tensors, remaining: float | None) -> Tensors:
    """Return tensors that wait no longer than their caller, whose own deadline passes in `remaining` seconds."""
    asked = tensors.parameters.get("timeout")
    if asked != asked:
        raise Refusal("Parameter timeout must be microseconds, a whole number; seen NaN.")
    if remaining is None or not isinstance(asked, (int, float, type(None))):  # the desk refuses what is no number
        return tensors
    soon = {"timeout": min(asked or math.inf, max(remaining * 1e6, 1.0))}
    return replace(tensors, parameters={**tensors.parameters, **soon})


def _guarded(call: Call, message: Any, early: Callable[[bytes], Refusal | None] | None) -> Call:
    """Return a call that reads its message, and whose errors have the protocol's code, their words and a hint when to
    come again.

    Args:
        message: the class of what it takes. gRPC's own reading tells callers of an exception of Python's.
        early: gives a refusal that needs no reading of the message, and spares it.
    """
    from grpc import StatusCode

    async def guarded(request: bytes, context: Any) -> Any:
        try:
            refusal = None if early is None else early(request)
            if refusal is None:
                return await call(_read(message, request), context)
        except FlyweightError as error:
            refusal = refusal_of(error)
        except Exception:  # the last stop: whatever it is, the caller gets an answer of the protocol
            logger.exception("A call over gRPC failed")
            refusal = Refusal("A fault of the service; its log says more.", "failed")
        await context.abort(StatusCode[refusal.status.grpc], str(refusal), _hint(refusal))
        raise AssertionError("abort raises")

    return guarded


def _read(message: Any, data: bytes) -> Any:
    try:
        return message.FromString(data)
    except DecodeError:
        name = message.DESCRIPTOR.name
        raise Refusal(f"The {len(data):,} bytes of the call are no {name} of the protocol.") from None


def _hint(refusal: Refusal) -> tuple[tuple[str, str], ...]:
    """Return what tells gRPC's own clients when to try again."""
    if refusal.retry_after is None:
        return ()
    return (("grpc-retry-pushback-ms", str(math.ceil(refusal.retry_after * 1e3))),)

"""The other routes of the protocol v2: health, metadata, and the repository of models."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from flyweight.errors import FlyweightError
from flyweight.serving.administration import Administration
from flyweight.serving.answering import Desk
from flyweight.serving.body import Disconnected, read_body, unpack_body
from flyweight.serving.infer_route import retry_headers, whole_number
from flyweight.serving.json_body import json_object
from flyweight.serving.metadata import describe_server
from flyweight.serving.refusal import Refusal, refusal_of

Handler = Callable[[Request], Awaitable[Response]]


class Protocol:
    """The handlers of the protocol's routes.

    Args:
        desk: with the models.
        administration: loads and unloads them in every worker.
    """

    def __init__(self, desk: Desk, administration: Administration) -> None:
        self._repository = desk.repository
        self._administration = administration

    def routes(self) -> list[Route]:
        """Return all routes but inference."""
        model = "/v2/models/{model}"
        return [
            Route("/v2", self._server),
            Route("/v2/health/live", self._live),
            Route("/v2/health/ready", self._ready),
            *(Route(f"{path}/ready", self._model_ready) for path in (model, f"{model}/versions/{{version}}")),
            *(Route(path, self._model) for path in (model, f"{model}/versions/{{version}}")),
            # `infer_route` takes these before any route is looked for: here they are told to come by POST.
            *(
                Route(f"{path}/infer", self._not_by_post, methods=["POST"])
                for path in (model, f"{model}/versions/{{version}}")
            ),
            Route("/v2/repository/index", self._index, methods=["POST"]),
            Route("/v2/repository/models/{model}/load", self._load, methods=["POST"]),
            Route("/v2/repository/models/{model}/unload", self._unload, methods=["POST"]),
        ]

    async def _server(self, request: Request) -> Response:
        return answer_json(describe_server())

    async def _live(self, request: Request) -> Response:
        return answer_json({"live": True})

    async def _ready(self, request: Request) -> Response:
        if self._repository.ready:
            return answer_json({"ready": True})
        draining = "the service is ending" if self._repository.draining else "a model is not ready"
        raise Refusal(f"Not ready: {draining}.", "draining", 1.0)

    async def _model_ready(self, request: Request) -> Response:
        model, version = request.path_params["model"], request.path_params.get("version")
        entry = self._repository.entry(model)
        if version is None and entry.answering is None:
            raise Refusal(f"Model {model!r} is not ready: {entry.reason}.", "draining", 1.0)
        self._repository.answerer(model, version, {})
        return answer_json({"name": model, "ready": True})

    async def _model(self, request: Request) -> Response:
        model, version = request.path_params["model"], request.path_params.get("version")
        served = self._repository.answerer(model, version, {})
        return answer_json(served.describe(list(self._repository.entry(model).versions)))

    async def _not_by_post(self, request: Request) -> Response:
        raise AssertionError("infer_route answers inference")

    async def _index(self, request: Request) -> Response:
        body = await self._object(request)
        return answer_json(self._repository.index(ready_only=body.get("ready") is True))

    async def _load(self, request: Request) -> Response:
        body = await self._object(request)
        await self._administration.load(request.path_params["model"], body.get("parameters") or {})
        return answer_json({})

    async def _unload(self, request: Request) -> Response:
        await self._object(request)
        await self._administration.unload(request.path_params["model"])
        return answer_json({})

    async def _object(self, request: Request) -> dict[str, Any]:
        settings = self._repository.settings
        return await read_object(request, settings.max_body, settings.read_seconds)


async def read_object(request: Request, most: int, seconds: float) -> dict[str, Any]:
    """Return a body that is a JSON object, unpacked where it came packed; an empty one is an object without keys.

    Raises:
        Refusal: it is none, too large or too slow.
    """
    headers = dict(request.scope["headers"])
    body = await read_body(request.receive, whole_number(headers, b"content-length"), most, seconds)
    encoding = headers.get(b"content-encoding", b"").decode("latin-1").strip().lower()
    body = bytes(unpack_body(body, encoding, most)) if body else body
    return json_object(body) if body.strip() else {}


def answer_json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return a JSON answer."""
    return Response(orjson.dumps(value), status, headers, "application/json")


def application(routes: Sequence[Route]) -> Starlette:
    """Return routes as an application whose errors are those of the protocol."""

    async def refuse(request: Request, error: Exception) -> Response:
        assert isinstance(error, FlyweightError)
        refusal = refusal_of(error)
        hints = () if refusal.retry_after is None else retry_headers(refusal.retry_after)
        headers = {name.decode(): value.decode() for name, value in hints}
        if refusal.kind in ("too_large", "slow"):
            headers["connection"] = "close"
        if "caller" in request.scope:
            headers["x-request-id"] = request.scope["caller"].named()
        return answer_json({"error": str(refusal)}, refusal.status.http, headers)

    async def odd(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        words = {
            404: f"There is nothing at {request.url.path[:200]}; see /docs for what is.",
            405: f"{request.method} is not taken at {request.url.path[:200]}; see /docs.",
        }.get(error.status_code, str(error.detail))
        return answer_json({"error": words}, error.status_code, dict(error.headers or {}))

    async def gone(request: Request, error: Exception) -> Response:
        return Response(status_code=499)

    async def fault(request: Request, error: Exception) -> Response:
        return answer_json({"error": "A fault of the service; its log says more."}, 500)

    handlers: Any = {Exception: fault, FlyweightError: refuse, HTTPException: odd, Disconnected: gone}
    return Starlette(routes=list(routes), exception_handlers=handlers)

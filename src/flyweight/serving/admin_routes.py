"""The routes that change what is served, under `/v1/admin`, all JSON; `is_admin_path` says which to guard."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from flyweight.serving.administration import Administration
from flyweight.serving.refusal import Refusal
from flyweight.serving.repository import Repository
from flyweight.serving.routes import answer_json, read_object

PREFIX = "/v1/admin"
#: Letters of a text: no path is longer, and all that is asked must fit into a line between processes.
LONGEST = 4096


def is_admin_path(path: str) -> bool:
    """Return whether a path changes what is served, here or by the protocol's repository extension.

    Example:
        >>> is_admin_path("/v2/repository/models/ranker/load"), is_admin_path("/v2/repository/index")
        (True, False)
    """
    return path == PREFIX or path.startswith((f"{PREFIX}/", "/v2/repository/models/"))


class AdminRoutes:
    """The handlers.

    Args:
        repository: of this worker, whose state is told.
        administration: makes changes in every worker.
    """

    def __init__(self, repository: Repository, administration: Administration) -> None:
        self._repository = repository
        self._administration = administration

    def routes(self) -> list[Route]:
        """Return all of them."""
        model = f"{PREFIX}/models/{{model}}"
        return [
            Route(f"{PREFIX}/models", self._list),
            Route(model, self._tell),
            Route(f"{model}/versions", self._load, methods=["POST"]),
            Route(f"{model}/versions/{{version}}", self._retire, methods=["DELETE"]),
            Route(f"{model}/activate", self._activate, methods=["POST"]),
            Route(f"{model}/rollback", self._go_back, methods=["POST"]),
            Route(f"{model}/unload", self._unload, methods=["POST"]),
            Route(f"{model}/canary", self._set_canary, methods=["PUT"]),
            Route(f"{model}/canary", self._end_canary, methods=["DELETE"]),
            Route(f"{model}/shadow", self._set_shadow, methods=["PUT"]),
            Route(f"{model}/shadow", self._end_shadow, methods=["DELETE"]),
            Route(f"{model}/drift", self._drift),
        ]

    async def _list(self, request: Request) -> Response:
        return answer_json({"models": [describe_rollouts(self._repository, name) for name in self._repository.models]})

    async def _tell(self, request: Request) -> Response:
        return answer_json(describe_rollouts(self._repository, request.path_params["model"]))

    async def _load(self, request: Request) -> Response:
        body = await self._body(request, path=str, version=str, activate=bool, shards=list)
        if "path" not in body:
            raise Refusal('The bundle\'s path is missing; give {"path": "/folder/ranker.fly"}.')
        return await self._change(request, "load", body)

    async def _retire(self, request: Request) -> Response:
        return await self._change(request, "retire", {"version": request.path_params["version"]})

    async def _activate(self, request: Request) -> Response:
        return await self._change(request, "activate", _with_version(await self._body(request, version=str)))

    async def _go_back(self, request: Request) -> Response:
        return await self._change(request, "rollback", await self._body(request))

    async def _unload(self, request: Request) -> Response:
        return await self._change(request, "unload", await self._body(request))

    async def _set_canary(self, request: Request) -> Response:
        body = _with_version(await self._body(request, version=str, percent=float, field=str))
        if "percent" not in body:
            raise Refusal('The percent is missing; give {"version": "2", "percent": 5}.')
        return await self._change(request, "canary", {"canary": body})

    async def _end_canary(self, request: Request) -> Response:
        return await self._change(request, "canary", {"canary": None})

    async def _set_shadow(self, request: Request) -> Response:
        body = _with_version(await self._body(request, version=str, percent=float, top=int))
        return await self._change(request, "shadow", {"shadow": body})

    async def _end_shadow(self, request: Request) -> Response:
        return await self._change(request, "shadow", {"shadow": None})

    async def _drift(self, request: Request) -> Response:
        return answer_json(await self._administration.change("drift", request.path_params["model"], {}))

    async def _change(self, request: Request, change: str, values: Mapping[str, Any]) -> Response:
        model = request.path_params["model"]
        await self._administration.change(change, model, values)
        return answer_json(describe_rollouts(self._repository, model))

    async def _body(self, request: Request, **due: type) -> dict[str, Any]:
        settings = self._repository.settings
        return checked_values(await read_object(request, settings.max_body, settings.read_seconds), due)


def describe_rollouts(repository: Repository, model: str) -> dict[str, Any]:
    """Return what is held of a model, which parts the versions have, and how each was checked.

    Raises:
        Refusal: there is no model of that name.
    """
    entry = repository.entry(model)
    rollout = entry.rollout
    versions = []
    for source in rollout.held:
        served = entry.versions[source.version]
        versions.append(
            {
                "version": source.version,
                "path": source.path,
                "digest": served.opened.digest,
                "engine": served.opened.ranker.engine,
                "stored_requests_agreed": served.opened.warmth.agreed,
                **({"shards": list(source.shards)} if source.shards else {}),
            }
        )
    return {
        "model": model,
        "answering": rollout.answering,
        "before": list(rollout.before),
        "canary": None if rollout.canary is None else asdict(rollout.canary),
        "shadow": None if rollout.shadow is None else asdict(rollout.shadow),
        "versions": versions,
        "reason": entry.reason,
    }


def checked_values(body: Mapping[str, Any], due: Mapping[str, type]) -> dict[str, Any]:
    """Return a body's values if each is one of those due; null counts as not given.

    Raises:
        Refusal: a key is not known, or a value of another type or too long.
    """
    words = {str: "a string", bool: "true or false", float: "a number", int: "a whole number", list: "a list"}
    values = {name: value for name, value in body.items() if value is not None}
    for name, value in values.items():
        if name not in due:
            known = f"it takes {', '.join(due)}" if due else "it takes none"
            raise Refusal(f"Key {name[:60]!r} is not known; {known}.")
        fits = type(value) in (int, float) if due[name] is float else type(value) is due[name]
        if not fits:
            raise Refusal(f"{name!r} must be {words[due[name]]}; seen {str(value)[:60]!r}.")
        if due[name] is str and len(value) > LONGEST:
            raise Refusal(f"{name!r} may have {LONGEST:,} letters; seen {len(value):,}.")
    return values


def _with_version(body: dict[str, Any]) -> dict[str, Any]:
    if "version" not in body:
        raise Refusal('The version is missing; give {"version": "2"}.')
    return body

"""One replica: the models of a service in a process of Ray Serve, behind the same routes as without Ray."""

import gc
from collections.abc import Mapping
from typing import Any

from starlette.applications import Starlette

from flyweight.errors import EngineError, FlyweightError
from flyweight.serving.access import Access
from flyweight.serving.answering import Desk
from flyweight.serving.application import build_application
from flyweight.serving.following import Follower
from flyweight.serving.http_guard import guarded
from flyweight.serving.refusal import Refusal
from flyweight.serving.replicas.counting import Telling, counting_actor
from flyweight.serving.repository import Repository
from flyweight.serving.rollout import begun_with
from flyweight.serving.settings import settings_from_json
from flyweight.serving.status_routes import StatusRoutes
from flyweight.serving.watching import start_watching


class Replica:
    """Opens every bundle, checks it, warms it up, then takes requests: Ray sends none before `__init__` is done.

    Args:
        settings: of the service, as JSON; each source has the digest of its bundle.
        mark: of the deployment.

    Raises:
        EngineError: a bundle cannot be opened here; names the node.
    """

    async def __init__(self, settings: str, mark: str) -> None:  # type: ignore[misc]  # Ray awaits it
        self._mark = mark
        self._repository = Repository(settings_from_json(settings))
        follower = Follower(self._repository)
        for source in self._repository.settings.sources:
            try:
                await follower.begin(begun_with(source), first=False)
            except FlyweightError as error:
                raise EngineError(f"Node {_node()}: {error}") from error
        gc.collect()
        gc.freeze()  # what is there now stays: the collector need not look through it again during a request
        desk, settings_here = Desk(self._repository), self._repository.settings
        self._watchers = start_watching(desk, settings_here.watching)
        self._telling = Telling(_name(), _node(), self._watchers.snapshot, counting_actor)
        status = StatusRoutes(self._repository, self._watchers.metering, self._telling.total)
        app = build_application(desk, StandingAdministration(), status)
        self.answer = guarded(app, Access(settings_here.security), desk)

    def mark(self) -> str:
        """Return the mark of the deployment that this replica is of."""
        return self._mark

    def check_health(self) -> None:
        """Tell Ray whether to send requests.

        Raises:
            EngineError: a model is not ready.
        """
        if not self._repository.ready:
            raise EngineError("A model is not ready.")


class RepliesOfReplica:
    """The ASGI application that Ray Serve is given: it hands requests to the replica of its process."""

    def __init__(self) -> None:
        self._without_routes = Starlette()  # answers what an ASGI server asks at its beginning and end

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._without_routes(scope, receive, send)
            return
        from ray import serve

        await serve.get_replica_context().servable_object.answer(scope, receive, send)


class StandingAdministration:
    """Changes nothing: a replica that Ray starts later would know nothing of it."""

    async def load(self, model: str, parameters: Mapping[str, Any]) -> None:
        """Refuse to load."""
        raise _refusal(f"load model {model!r}")

    async def unload(self, model: str) -> None:
        """Refuse to unload."""
        raise _refusal(f"unload model {model!r}")

    async def change(self, change: str, model: str, values: Mapping[str, Any]) -> Any:
        """Refuse any other change."""
        raise _refusal(f"{change} model {model!r}")


def _refusal(what: str) -> Refusal:
    return Refusal(
        f"Cannot {what[:100]} here: replicas on Ray serve what they were started with. Deploy anew with the bundles "
        "that are wanted (`flyweight serve --ray-address ... NAME=PATH`): replicas are replaced one after another.",
        "conflict",
    )


def _name() -> str:
    from ray import serve

    return str(serve.get_replica_context().replica_tag)


def _node() -> str:
    """Return the address of this replica's node, as the cluster calls it."""
    import ray

    own = ray.get_runtime_context().get_node_id()
    found = [node["NodeManagerAddress"] for node in ray.nodes() if node["NodeID"] == own]
    return str(found[0]) if found else str(own)

"""The guard before the HTTP application: what may not pass is answered here, and nothing behind it is run."""

from typing import Any

from flyweight.serving.access import OPEN_PATHS, PASSED_ON, Access, Origin, is_admin
from flyweight.serving.answering import Desk
from flyweight.serving.caller import caller_of
from flyweight.serving.infer_route import App, send_refusal
from flyweight.serving.page_routes import PAGE_PATHS
from flyweight.serving.refusal import Refusal


def guarded(app: App, access: Access, desk: Desk) -> App:
    """Return an ASGI application that lets only those through who may pass; the rest is counted.

    The page's own files are open, as a browser has no way to send a token for them; they hold nothing of what is
    served.
    """

    async def guard(scope: Any, receive: Any, send: Any) -> None:
        path = scope.get("path", "")
        admin = is_admin(path)
        if (access.is_open and not admin) or path in OPEN_PATHS or path in PAGE_PATHS:
            await app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        try:
            (access.check_admin if admin else access.check_use)(_origin(scope, headers))
        except Refusal as refusal:
            caller = caller_of(headers)
            desk.refuse("http", "", refusal, caller)
            # The body was not read: what is left of it would be taken for the next request.
            await send_refusal(send, refusal, closing=True, request_id=caller.named())
            return
        await app(scope, receive, send)

    return guard


_PASSED_ON = frozenset(name.encode() for name in PASSED_ON)


def _origin(scope: Any, headers: dict[bytes, bytes]) -> Origin:
    def told(name: bytes) -> str:
        return headers.get(name, b"").decode("latin-1")

    client = scope.get("client")
    forwarded = not _PASSED_ON.isdisjoint(headers)
    return Origin(client[0] if client else "", told(b"authorization"), forwarded, told(b"origin"), told(b"host"))

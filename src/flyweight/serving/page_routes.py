"""The page at `/`: files that hold nothing of what is served; a script in them asks `/v1/status`."""

from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

FILES = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/chart.js": ("chart.js", "text/javascript"),
}
PAGE_PATHS = frozenset(FILES)
#: No script, style or request but to this service, no frame around the page.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {"content-security-policy": POLICY, "x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}


def page_routes() -> list[Route]:
    """Return the routes of the page's files."""
    folder = files("flyweight.serving") / "page"
    return [_file(path, (folder / name).read_bytes(), kind) for path, (name, kind) in FILES.items()]


def _file(path: str, content: bytes, kind: str) -> Route:
    async def send(request: Request) -> Response:
        return Response(content, media_type=kind, headers={**HEADERS, "cache-control": "no-cache"})

    return Route(path, send)

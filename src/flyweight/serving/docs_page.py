"""The OpenAPI document, and a page made of it that needs no other server: no script, no style from elsewhere."""

import html
import json
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from flyweight.serving.openapi import describe_routes
from flyweight.serving.repository import Repository
from flyweight.serving.routes import answer_json

STYLE = """
:root { color-scheme: light dark; --post: #0a6e4f; --get: #2458a6; --code: #f3f4f6 }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1b1f24;
  overflow-wrap: anywhere }
h1 { font-size: 1.5rem } h2 { font-size: 1rem; margin: 2rem 0 .3rem; font-family: ui-monospace, monospace }
h2 b { display: inline-block; min-width: 3.5rem; color: var(--post) } h2.get b { color: var(--get) }
pre { background: var(--code); padding: .8rem; overflow: auto; border-radius: 4px; font-size: 13px; max-height: 22rem;
  white-space: pre-wrap }
code { font: 13px ui-monospace, monospace } a { color: var(--get) }
td { vertical-align: top; padding: .1rem .8rem .1rem 0 }
td:first-child { font-family: ui-monospace, monospace } .codes td:first-child { white-space: nowrap }
@media (prefers-color-scheme: dark) {
  :root { --post: #4cc38a; --get: #7ab2f4; --code: #22262b } body { background: #15181c; color: #dfe3e8 }
}
"""
TOKEN = "Where the service wants a token, add <code>-H 'Authorization: Bearer TOKEN'</code> to a command."
#: Routes that are no part of the document, for people who run the service.
ALSO = (
    ("GET /", "the page of charts"),
    ("GET /metrics", "for Prometheus"),
    ("GET /v1/admin/models[/{model}]", "the versions that are held, and which part each has"),
    ("POST /v1/admin/models/{model}/versions", 'another version, or a new model: {"path": "/bundles/ranker.fly"}'),
    ("DELETE /v1/admin/models/{model}/versions/{version}", "frees a version that has no part"),
    ("POST /v1/admin/models/{model}/activate", 'a version that is held answers: {"version": "2"}'),
    ("POST /v1/admin/models/{model}/rollback", "the version before answers again"),
    ("POST /v1/admin/models/{model}/unload", "takes a model out of service"),
    ("PUT, DELETE /v1/admin/models/{model}/canary", 'a part of the requests: {"version": "2", "percent": 5}'),
    ("PUT, DELETE /v1/admin/models/{model}/shadow", 'scores beside the answer: {"version": "2", "percent": 50}'),
    ("GET /v1/admin/models/{model}/drift", "how the shadow's scores differ"),
)


def docs_routes(repository: Repository) -> list[Route]:
    """Return the routes of the document and its page."""

    async def document(request: Request) -> Response:
        return answer_json(describe_routes(repository))

    async def page(request: Request) -> Response:
        text = render_docs(describe_routes(repository), str(request.base_url).rstrip("/"))
        return Response(text, media_type="text/html", headers={"content-security-policy": POLICY})

    return [Route("/openapi.json", document), Route("/docs", page)]


#: Names of models stand on the page: should one of them hold a script that slipped through, no browser runs it.
POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def render_docs(document: dict[str, Any], url: str) -> str:
    """Return the page of a document; `url` is where its examples are sent to."""
    info = document["info"]
    title = f"{_text(info['title'])} {_text(info['version'])}"
    parts = [f"<h1>{title}</h1><p>{_text(info['description'])}</p><p>{TOKEN}</p>"]
    paths: dict[str, Any] = document["paths"]
    for path in sorted(paths, key=lambda path: "post" not in paths[path]):  # what is asked for most comes first
        parts += [_route(path, method, route, url) for method, route in paths[path].items()]
    also = "".join(f"<tr><td>{_text(route)}<td>{_text(words)}" for route, words in ALSO)
    parts.append(f"<h2>For those who run the service</h2><table>{also}</table>")
    head = '<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content="width=device-width">'
    head += f"<title>flyweight serve</title><style>{STYLE}</style>"
    return head + "".join(parts) + '<p>The same for programs: <a href="/openapi.json">/openapi.json</a></p></html>'


def _route(path: str, method: str, route: dict[str, Any], url: str) -> str:
    rows = "".join(
        f"<tr><td>{code}<td>{_text(answer['description'])}" for code, answer in route["responses"].items()
    )
    body = route.get("requestBody", {}).get("content", {}).get("application/json", {})
    shown = [
        _example(
            path.replace("{model}", model).replace("{version}", example.get("x-version", "")), url, example["value"]
        )
        for model, example in body.get("examples", {}).items()
    ]
    title = f'<h2 class={method}><b>{method.upper()}</b> {_text(path)}</h2><p>{_text(route["summary"])}</p>'
    return f"{title}{''.join(shown)}<table class=codes>{rows}</table>"


def _example(path: str, url: str, value: dict[str, Any]) -> str:
    body = json.dumps(value).replace("'", "'\\''")
    return f"<pre>curl -s {_text(url + path)} -d '{_text(body)}'</pre>"


def _text(value: object) -> str:
    return html.escape(str(value))

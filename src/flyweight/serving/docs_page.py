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
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1b1f24 }
h1 { font-size: 1.5rem } h2 { font-size: 1rem; margin: 2rem 0 .3rem; font-family: ui-monospace, monospace }
h2 b { display: inline-block; min-width: 3.5rem; color: #0a6e4f } h2.get b { color: #2458a6 }
pre { background: #f3f4f6; padding: .8rem; overflow: auto; border-radius: 4px; font-size: 13px; max-height: 22rem }
td { vertical-align: top; padding: .1rem .8rem .1rem 0 } td:first-child { font-family: ui-monospace, monospace }
@media (prefers-color-scheme: dark) { body { background: #15181c; color: #dfe3e8 } pre { background: #22262b } }
"""


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
    parts = [f"<h1>{_text(info['title'])} {_text(info['version'])}</h1><p>{_text(info['description'])}</p>"]
    for path, methods in document["paths"].items():
        for method, route in methods.items():
            parts.append(_route(path, method, route, url))
    head = f"<!doctype html><html lang=en><meta charset=utf-8><title>flyweight serve</title><style>{STYLE}</style>"
    return head + "".join(parts) + '<p>The same for programs: <a href="/openapi.json">/openapi.json</a></p></html>'


def _route(path: str, method: str, route: dict[str, Any], url: str) -> str:
    rows = "".join(
        f"<tr><td>{code}<td>{_text(answer['description'])}" for code, answer in route["responses"].items()
    )
    body = route.get("requestBody", {}).get("content", {}).get("application/json", {})
    shown = [
        _example(path.replace("{model}", model).replace("{version}", "1"), url, example["value"])
        for model, example in body.get("examples", {}).items()
    ]
    title = f'<h2 class={method}><b>{method.upper()}</b> {_text(path)}</h2><p>{_text(route["summary"])}</p>'
    return f"{title}{''.join(shown)}<table>{rows}</table>"


def _example(path: str, url: str, value: dict[str, Any]) -> str:
    body = json.dumps(value).replace("'", "'\\''")
    return f"<pre>curl -s {_text(url + path)} -d '{_text(body)}'</pre>"


def _text(value: object) -> str:
    return html.escape(str(value))

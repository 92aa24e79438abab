"""A real service: ranking for people, the OpenAPI document, limits of bodies, errors of routes."""

import gzip
import html
import json
import re
import shlex
import socket
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from running_service import Service, body_of, request, scores_of, started

ARRAYS = request(30)
CANDIDATES = [
    {"item_id": int(item), "price": float(price), "id": f"sku-{place}"}
    for place, (item, price) in enumerate(zip(ARRAYS["item_id"], ARRAYS["price"], strict=True))
]
RANK: dict[str, Any] = {"model": "ranker", "request": {"user_id": 7}, "candidates": CANDIDATES, "top_k": 5}


DEEP = json.loads("[" * 200 + "1" + "]" * 200)


def test_ranking_is_the_order_of_the_scores(service: Service) -> None:
    status, answer = service.post("/v1/rank", RANK)
    assert status == 200
    scores = scores_of(ARRAYS)
    best = np.argsort(-scores)[:5]
    assert [one["index"] for one in answer["ranked"]] == best.tolist()
    assert [one["id"] for one in answer["ranked"]] == [f"sku-{place}" for place in best]
    np.testing.assert_allclose([one["score"] for one in answer["ranked"]], scores[best], rtol=1e-4, atol=1e-6)


def test_candidates_may_be_named_by_a_field_of_theirs(service: Service) -> None:
    _, answer = service.post("/v1/rank", RANK | {"id_field": "item_id"})
    assert [one["id"] for one in answer["ranked"]] == [CANDIDATES[one["index"]]["item_id"] for one in answer["ranked"]]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"candidates": []}, "'candidates' must be a list of 1 to 1,000 objects; seen an empty list"),
        ({"candidates": {}}, "'candidates' must be a list of 1 to 1,000 objects; seen an object"),
        ({"candidates": [{"item_id": 3}]}, "Candidate 0 lacks the field 'price'; it has item_id"),
        ({"candidates": [CANDIDATES[0], {"item": 3}]}, "Candidate 1 has the field 'item'"),
        ({"candidates": [CANDIDATES[0] | {"item_id": None}]}, "Field 'item_id' is null; it takes whole numbers"),
        ({"candidates": [CANDIDATES[0] | {"item_id": "x"}]}, "'item_id' holds the text 'x'"),
        ({"candidates": [CANDIDATES[0] | {"item_id": 1.5}]}, "Field 'item_id' is 1.5; it takes whole numbers"),
        ({"candidates": [CANDIDATES[0] | {"item_id": [1]}]}, "'item_id' has shape (1, 1)"),
        ({"candidates": [CANDIDATES[0], CANDIDATES[0] | {"item_id": [1]}]}, "of candidate 1 is [1]; it takes whole"),
        ({"candidates": [CANDIDATES[0] | {"price": "x"}]}, "Field 'price' is 'x'; it takes numbers"),
        ({"candidates": None}, "'candidates' must be a list of 1 to 1,000 objects; seen nothing"),
        ({"candidates": [{}]}, "Candidate 0 lacks the fields 'item_id', 'price'; it has none"),
        ({"request": {"user": 7}}, "'request' has the field 'user', which the model does not take; the nearest"),
        ({"request": 7}, "'request' must be an object of the request's fields; seen a number"),
        ({"top_k": 0}, "top_k must be a whole number from 1 on; seen 0"),
        ({"topk": 3}, "Key 'topk' is not known"),
        ({"model": None}, "Several models are served; name one with 'model': ranker, second"),
        ({"id_field": "sku"}, "id_field 'sku' is no field of candidate 0; it has id, item_id, price"),
        ({"id_field": "id", "candidates": [CANDIDATES[0], {"item_id": 3, "price": 0.5}]}, "no field of candidate 1"),
        ({"timeout_ms": "soon"}, "timeout_ms must be milliseconds, a number above 0; seen 'soon'"),
        ({"request": {"user_id": DEEP}}, "Field 'user_id' is [[[[[...]]]]]; it takes whole numbers"),
        ({"top_k": DEEP}, "top_k must be a whole number from 1 on; seen [[[[[...]]]]]"),
    ],
)
def test_bad_ranking_is_told_in_words(service: Service, changes: dict[str, Any], words: str) -> None:
    status, answer = service.post("/v1/rank", RANK | changes)
    assert status == 400
    assert words in answer["error"]


def test_packed_ranking_is_unpacked_and_odd_packing_refused(service: Service) -> None:
    body = gzip.compress(orjson.dumps(RANK))
    assert service.ask("POST", "/v1/rank", body, content_encoding="gzip")[:2] == service.post("/v1/rank", RANK)
    status, answer, _ = service.ask("POST", "/v1/rank", body, content_encoding="br")
    assert (status, answer["error"]) == (415, "Content-Encoding 'br' is not read; send gzip, deflate or none.")
    status, answer, _ = service.ask("POST", "/v1/rank")
    assert (status, "The request is empty" in answer["error"]) == (400, True)


def test_examples_of_the_docs_page_run_as_pasted(service: Service) -> None:
    _, page, headers = service.ask("GET", "/docs")
    assert headers["content-security-policy"] == "default-src 'none'; style-src 'unsafe-inline'"
    commands = [html.unescape(one) for one in re.findall(r"<pre>(curl.*?)</pre>", page.decode(), re.DOTALL)]
    assert len(commands) == 6
    for command in commands:
        found = subprocess.run([*shlex.split(command), "--fail"], capture_output=True, timeout=20)
        assert found.returncode == 0, command
        answer = json.loads(found.stdout)
        assert len(answer.get("ranked") or answer["outputs"][0]["data"]) == 3


def test_document_names_every_route(service: Service) -> None:
    status, document, _ = service.ask("GET", "/openapi.json")
    assert status == 200
    assert document["openapi"] == "3.1.0"
    for path, methods in document["paths"].items():
        for method in methods:
            if not path.endswith("load"):
                where = path.replace("{model}", "ranker").replace("{version}", "1")
                assert service.ask(method.upper(), where)[0] in (200, 400), where


def test_unknown_route_and_method_are_told(service: Service) -> None:
    assert service.ask("GET", "/v3")[:2] == (404, {"error": "There is nothing at /v3; see /docs for what is."})
    status, answer, _ = service.ask("GET", "/v1/rank")
    assert (status, answer) == (405, {"error": "GET is not taken at /v1/rank; see /docs."})
    for path in ("/v2/models/ranker/infer", "/v2/models/ranker/versions/1/infer"):
        status, answer, headers = service.ask("PUT", path)
        assert (status, answer) == (405, {"error": f"PUT is not taken at {path}; see /docs."})
        assert headers["allow"] == "POST"


def test_ranking_may_come_packed(service: Service) -> None:
    body = json.dumps(RANK).encode()
    assert service.ask("POST", "/v1/rank", gzip.compress(body), Content_Encoding="GZIP")[:2] == service.ask(
        "POST", "/v1/rank", body
    )[:2]
    status, answer, _ = service.ask("POST", "/v1/rank", body, Content_Encoding="br")
    assert (status, answer) == (415, {"error": "Content-Encoding 'br' is not read; send gzip, deflate or none."})
    assert service.ask("POST", "/v1/rank", BOMB, Content_Encoding="gzip")[0] == 413


#: The time in a packed body's head would be in the tests' names, and these another in each process.
CUT, BOMB = gzip.compress(b"{" * 500, mtime=0)[:-9], gzip.compress(bytes(2**25), mtime=0)


@pytest.mark.parametrize(
    ("headers", "body", "status", "words"),
    [
        ({"Content_Encoding": "br"}, b"{}", 415, "Content-Encoding 'br' is not read; send gzip, deflate or none"),
        ({"Content_Encoding": "gzip"}, b"{}", 400, "The body is not gzip, as Content-Encoding says"),
        ({"Content_Encoding": "gzip"}, CUT, 400, "ends in the middle of its gzip data"),
        ({"Content_Encoding": "gzip"}, BOMB, 413, "at most 16,777,216 are read (--max-body)"),
        ({"Inference_Header_Content_Length": "x"}, b"{}", 400, "must be a whole number of bytes; seen 'x'"),
        ({}, b"", 400, "is no JSON"),
    ],
)
def test_bad_body_is_told_in_words(
    service: Service, headers: dict[str, str], body: bytes, status: int, words: str
) -> None:
    seen, answer, _ = service.ask("POST", "/v2/models/ranker/infer", body, **headers)
    assert seen == status
    assert words in answer["error"]


def test_too_large_a_body_is_refused_before_it_is_read(service: Service) -> None:
    host, port = service.http.split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(b"POST /v2/models/ranker/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999999\r\n\r\n")
        answer = connection.recv(4096)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in answer


def test_slow_head_slow_body_and_no_http_are_told(hoisted: Path) -> None:
    starts = {
        b"": b"408 Request Timeout",
        b"POST /v2/models/ranker/infer HTTP/1.1\r\nHost: x\r\n": b"408 Request Timeout",
        b"POST /v2/models/ranker/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{": b"408 Request Timeout",
        b"POST /v1/rank HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{": b"408 Request Timeout",
        b"\x00\x01\r\n\r\n": b"400 Bad Request",
    }
    with started(hoisted, "--read-timeout", "0.4") as service:
        host, port = service.http.split(":")
        connections = [socket.create_connection((host, int(port)), timeout=10) for _ in range(100) for _ in starts]
        for connection, start in zip(connections, [*starts] * 100, strict=True):
            connection.sendall(start)
        assert service.post("/v2/models/ranker/infer", body_of(request(5)))[0] == 200
        for connection, due in zip(connections, [*starts.values()] * 100, strict=True):
            answer = b"".join(iter(lambda one=connection: one.recv(4096), b""))
            assert answer.startswith(b"HTTP/1.1 " + due)
            assert b'{"error":"The ' in answer
            connection.close()


def test_too_many_candidates_are_told(service: Service) -> None:
    status, answer = service.post("/v2/models/ranker/infer", body_of(request(1001)))
    assert status == 413
    assert "1,001 candidates; model 'ranker' takes up to 1,000 at once" in answer["error"]


def test_answer_says_where_the_time_went(service: Service) -> None:
    body = json.dumps(body_of({name: array.copy() for name, array in request(5).items()})).encode()
    headers = service.ask("POST", "/v2/models/ranker/infer", body)[2]
    assert re.fullmatch(r"queue;dur=[\d.]+, engine;dur=[\d.]+, total;dur=[\d.]+", headers["server-timing"])

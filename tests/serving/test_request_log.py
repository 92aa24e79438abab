"""Lines for requests: which ids they carry, what is sampled, and that nothing of a request's content is in them."""

import json
import logging
from pathlib import Path

import orjson
import pytest
from running_service import body_of, request, started

from flyweight.serving.answering import Answered
from flyweight.serving.caller import caller_of, clean_id
from flyweight.serving.request_log import JsonFormatter, RequestLog, TextFormatter

SECRET = "a-token-nobody-may-read"


def lines_of(service_lines: list[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in service_lines if line.startswith("{")]


def test_lines_of_requests_carry_ids_and_no_content(hoisted: Path) -> None:
    with started(hoisted, "--access-log", "1", "--drain", "0") as service:
        body = orjson.dumps(body_of(request(5)))
        ours = service.ask("POST", "/v2/models/ranker/infer", body, X_Request_ID="order-7", Authorization=SECRET)
        assert ours[2]["x-request-id"] == "order-7"
        inside = service.post("/v2/models/ranker/infer", body_of(request(5)) | {"id": "inside-8"})
        assert inside[1]["id"] == "inside-8"
        made = service.ask("POST", "/v1/rank", b'{"candidates": [{"password": "hunter2"}], "request": {}}')
        assert made[0] == 400
        service.wait_for("invalid")
        found = {line["request_id"]: line for line in lines_of(service.lines) if line["event"] == "request"}
        assert found["order-7"]["candidates"] == 5
        assert found["order-7"]["level"] == "info"
        assert found["order-7"]["queue_ms"] + found["order-7"]["engine_ms"] <= found["order-7"]["ms"]
        assert found["inside-8"]["status"] == 200
        refused = found[made[2]["x-request-id"]]
        assert (refused["kind"], refused["level"], refused["protocol"]) == ("invalid", "warning", "rank")
        text = "".join(service.lines)
        assert "hunter2" not in text
        assert "password" not in text
        assert SECRET not in text


def test_share_of_answered_requests_is_logged_and_every_refused_one(caplog: pytest.LogCaptureFixture) -> None:
    log = RequestLog(0.1)
    with caplog.at_level(logging.INFO, "flyweight.serving.requests"):
        for number in range(2000):
            log.note(Answered("http", "m", "1", f"r{number}", kind="" if number % 20 else "busy"))
    refused = [one for one in caplog.records if one.levelno == logging.WARNING]
    assert len(refused) == 100
    assert 130 < len(caplog.records) - len(refused) < 250  # 190 are due; five standard deviations


def test_line_of_text_says_what_a_line_of_json_does(caplog: pytest.LogCaptureFixture) -> None:
    told = Answered("rank", "ranker", "2", "order-7", candidates=500, batch=2, seconds=0.00084)
    with caplog.at_level(logging.INFO, "flyweight.serving.requests"):
        RequestLog(1).note(told)
        RequestLog(1).note(Answered("http", "ranker", request_id="order-8", kind="busy"))
    answered, refused = map(TextFormatter("worker").format, caplog.records)
    assert "protocol='rank' model='ranker' version='2' status=200 candidates=500 batch=2 ms=0.84" in answered
    assert answered.endswith(" request_id='order-7'")
    assert refused.endswith(" status=429 kind='busy' ms=0.0 request_id='order-8'")


def test_line_of_a_hostile_name_is_one_line() -> None:
    record = logging.makeLogRecord({"msg": "request", "request_id": "a\nb", "fields": {"model": "x\r\n{}\u2028"}})
    line = JsonFormatter("worker").format(record)
    assert "\n" not in line
    assert json.loads(line)["model"] == "x\r\n{}\u2028"
    text = TextFormatter("worker").format(record)
    assert text.endswith(r": request model='x\r\n{}\u2028' request_id='a\nb'")
    assert text.isascii()
    assert text.isprintable()
    assert clean_id("é\x00ok\r\n") == "ok"
    assert len(caller_of({b"x-request-id": b"a" * 5000}).named()) == 128
    assert caller_of({}).named() != caller_of({}).named()

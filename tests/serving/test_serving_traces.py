"""Spans as a collector receives them, and that nothing of OpenTelemetry is imported where they are off."""

import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import orjson
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from running_service import SOURCE, body_of, request, started

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def test_spans_follow_the_callers_trace(hoisted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    received: list[Any] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            received.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *words: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as collector:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.server_port}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
        with started(hoisted, "--telemetry", "--drain", "0") as service:
            body = orjson.dumps(body_of(request(5)))
            headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "X_Request_ID": "traced-1"}
            assert service.ask("POST", "/v2/models/ranker/infer", body, **headers)[0] == 200
            assert service.ask("POST", "/v2/models/ranker/infer", b"{")[0] == 400
        collector.shutdown()
    found = [
        span for sent in received for resource in sent.resource_spans for scope in resource.scope_spans
        for span in scope.spans
    ]  # fmt: skip
    ours = {span.name: span for span in found if span.trace_id.hex() == TRACE}
    assert set(ours) == {"request", "queue", "engine"}
    whole, queue, engine = ours["request"], ours["queue"], ours["engine"]
    assert whole.parent_span_id.hex() == PARENT
    assert queue.parent_span_id == engine.parent_span_id == whole.span_id
    starts = [whole.start_time_unix_nano, queue.start_time_unix_nano, engine.start_time_unix_nano]
    assert starts == sorted(starts)
    assert queue.end_time_unix_nano == engine.start_time_unix_nano
    assert engine.end_time_unix_nano <= whole.end_time_unix_nano
    told = {one.key: one.value for one in whole.attributes}
    assert told["flyweight.request_id"].string_value == "traced-1"
    assert told["flyweight.candidates"].int_value == 5
    refused = next(span for span in found if span.trace_id.hex() != TRACE)
    assert (refused.status.code, refused.status.message) == (2, "invalid")


def test_worker_without_telemetry_imports_nothing_of_it() -> None:
    code = (
        "import sys, flyweight.serving.worker, flyweight.serving.watching as w, flyweight.serving.answering as a\n"
        "from flyweight.serving.repository import Repository; from flyweight.serving.settings import Settings\n"
        "w.start_watching(a.Desk(Repository(Settings(()))), w.Watching(access_log=1))\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert found.stdout.strip() == "[]", found.stderr

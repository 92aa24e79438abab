"""Traces for OpenTelemetry: a span for each request, with its time in the queue and in the engine below it.

Spans are written after a request was answered, from the times that were taken anyway, so nothing is added to its way
and nothing of OpenTelemetry is imported unless it was asked for. Where spans go, how many, and under which name of
service, is said by OpenTelemetry's own environment variables (OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_TRACES_SAMPLER,
OTEL_SERVICE_NAME).
"""

import importlib.util
import os
import time
from typing import Any

from flyweight.errors import InputError
from flyweight.serving.answering import Answered

NEEDED = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")
EXTRA = "pip install 'flyweight[serve,telemetry]'"


def check_tracing() -> None:
    """Check that what traces need is installed.

    Raises:
        InputError: it is not; says what to install.
    """
    for name in NEEDED:
        try:
            found = importlib.util.find_spec(name) is not None
        except ModuleNotFoundError:
            found = False
        if not found:
            raise InputError(f"--telemetry needs {name}: {EXTRA}")


class Tracing:
    """Sends spans over OTLP/HTTP, in batches, from a thread of its own."""

    def __init__(self) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace import SpanKind, Status, StatusCode
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        name = {} if "OTEL_SERVICE_NAME" in os.environ else {"service.name": "flyweight"}
        self._provider = TracerProvider(resource=Resource.create({**name, "process.pid": os.getpid()}))
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("flyweight.serving")
        self._extract = TraceContextTextMapPropagator().extract
        self._server, self._error, self._status = SpanKind.SERVER, StatusCode.ERROR, Status

    def note(self, told: Answered) -> None:
        """Write a request's spans, below the caller's own where it sent a `traceparent`."""
        from opentelemetry.trace import set_span_in_context

        ended = time.time_ns()
        started = ended - _nanoseconds(told.seconds)
        above = self._extract({"traceparent": told.traceparent}) if told.traceparent else None
        span = self._tracer.start_span("request", above, self._server, _attributes(told), start_time=started)
        if told.kind:
            span.set_status(self._status(self._error, told.kind))
        if told.batch and span.is_recording():
            inside = set_span_in_context(span)
            at = started + _nanoseconds(told.before_seconds)
            for name, seconds in (("queue", told.queue_seconds), ("engine", told.engine_seconds)):
                part = self._tracer.start_span(name, inside, start_time=at)
                at += _nanoseconds(seconds)
                part.end(at)
        span.end(ended)

    def close(self) -> None:
        """Send what is left; waits a few seconds at most."""
        self._provider.shutdown()


def _attributes(told: Answered) -> dict[str, Any]:
    return {
        "flyweight.protocol": told.protocol,
        "flyweight.model": told.model[:80],
        "flyweight.version": told.version[:80],
        "flyweight.request_id": told.request_id,
        "flyweight.candidates": told.candidates,
        "flyweight.batch": told.batch,
    }


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)

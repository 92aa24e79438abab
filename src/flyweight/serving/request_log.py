"""Logs as lines of JSON or of text on stderr: what happens to the service, and where wanted a line for each request.

A line never holds what a request carried: no values, no scores, no tokens.
"""

import logging
import math
import random
import sys
from datetime import UTC, datetime

import orjson

from flyweight.serving.answering import Answered
from flyweight.serving.refusal import STATUSES

#: Letters of a name that a caller gave.
_LONGEST = 80
requests_logger = logging.getLogger("flyweight.serving.requests")


class JsonFormatter(logging.Formatter):
    """Writes a record as one line of JSON.

    Args:
        process: of what kind it is, "worker" or "supervisor".
    """

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            "process": self._process,
            "pid": record.process,
        }
        line |= _more(record)
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


class TextFormatter(logging.Formatter):
    """Writes a record as a line for people, with all that a line of JSON has of a request.

    Args:
        process: of what kind it is; a worker's lines say which.
    """

    def __init__(self, process: str) -> None:
        where = f" {process} {{process}}" if process == "worker" else ""
        super().__init__(f"{{levelname}}{where}: {{message}}", style="{")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """Return the line; names that callers gave are spelled in ASCII, so that none of them looks like a line."""
        more = (f" {name}={value!a}" for name, value in _more(record).items())
        return super().formatMessage(record) + "".join(more)


def _more(record: logging.LogRecord) -> dict[str, object]:
    """Return what a record has beside its message."""
    fields: dict[str, object] = getattr(record, "fields", {})
    return {**fields, "request_id": record.request_id} if hasattr(record, "request_id") else fields


def start_logging(form: str, process: str) -> None:
    """Send this process's log to stderr; "auto" writes text for a terminal, and JSON for what reads logs."""
    handler = logging.StreamHandler(sys.stderr)
    if form == "json" or (form == "auto" and not sys.stderr.isatty()):
        handler.setFormatter(JsonFormatter(process))
    else:
        handler.setFormatter(TextFormatter(process))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # bad requests are counted, not logged one by one


class RequestLog:
    """Writes a line for each refused request, and for a share of those that were answered.

    Args:
        share: of the answered requests, 0 to 1, taken at random.
    """

    def __init__(self, share: float) -> None:
        self._share = share

    def note(self, told: Answered) -> None:
        """Write a request's line."""
        if not told.kind and self._share < 1 and random.random() >= self._share:
            return
        status = STATUSES[told.kind].http if told.kind else 200  # type: ignore[index]
        level = logging.INFO if not told.kind else logging.ERROR if status == 500 else logging.WARNING
        requests_logger.log(level, "request", extra={"request_id": told.request_id, "fields": _fields(told, status)})


def _fields(told: Answered, status: int) -> dict[str, object]:
    model, version = told.model[:_LONGEST], told.version[:_LONGEST]
    found = {"protocol": told.protocol, "model": model, "version": version, "status": status}
    if told.kind:
        return {**found, "kind": told.kind, "ms": _milliseconds(told.seconds)}
    return {
        **found,
        "candidates": told.candidates,
        "batch": told.batch,
        "ms": _milliseconds(told.seconds),
        "queue_ms": _milliseconds(told.queue_seconds),
        "engine_ms": _milliseconds(told.engine_seconds),
    }


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1e3, 3) if math.isfinite(seconds) else 0.0

"""What is to be told of requests."""

from dataclasses import dataclass

from flyweight.errors import InputError


@dataclass(frozen=True)
class Watching:
    """What is told of requests.

    Args:
        log_format: "json", "text", or "auto", which writes text for a terminal and JSON otherwise.
        access_log: share of the answered requests that get a line, with every refused one; 0 writes no lines at all.
        telemetry: whether spans are sent to OpenTelemetry's collector.
    """

    log_format: str = "auto"
    access_log: float = 0.0
    telemetry: bool = False

    def __post_init__(self) -> None:
        if self.log_format not in ("auto", "json", "text"):
            raise InputError(f"--log-format must be auto, json or text; seen {self.log_format!r}.")
        if not 0 <= self.access_log <= 1:
            raise InputError(f"--access-log must be a share from 0 to 1; seen {self.access_log}.")

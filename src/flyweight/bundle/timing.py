"""What `timing.json` holds: what the clock and the machine said, which differs from run to run."""

from typing import Annotated, Literal

from pydantic import Field

from flyweight.bundle.entry import Count, Entry, File, Name, Sha256, Text
from flyweight.task.measurement import Latency

Milliseconds = Annotated[float, Field(ge=0)]


class LatencyEntry(Entry):
    """A `Latency` on disk, in milliseconds."""

    p50: Milliseconds
    p95: Milliseconds
    p99: Milliseconds
    p50_low: Milliseconds
    p50_high: Milliseconds
    repeats: Count
    candidates: Count
    threads: Count

    def latency(self) -> Latency:
        """Return the dataclass."""
        return Latency(**self.model_dump())


class EngineTried(Entry):
    """An engine that was compared: its latency on the compressed model, or why it was not offered."""

    name: Name
    latency: LatencyEntry | None = None
    why: Text = ""


class Latencies(Entry):
    """One call of the original in eager PyTorch, of its float32 export in the same engine, and of the bundle."""

    before: LatencyEntry | None = None
    before_exported: LatencyEntry | None = None
    after: LatencyEntry | None = None


class Hardware(Entry):
    """The machine it was timed on."""

    cpu: Text
    cores: Count
    ram_bytes: Count


class Timing(Entry):
    """`timing.json` but for its hashes.

    Args:
        engine: the engine chosen by measurement; `load` takes it unless told otherwise.
        engines: every engine compared.
        threads: that the engine was fastest with; `load` takes it unless told otherwise, None leaves it to the engine.
        versions: of what was running ("python", "torch", "onnxruntime", ...).
        resident_bytes: memory of a running engine, by what was running ("before_exported", "after").
        wall_seconds: time the compression took.
    """

    engine: Name
    engines: list[EngineTried] = Field(default_factory=list)
    threads: Count | None = None
    latency: Latencies = Field(default_factory=Latencies)
    hardware: Hardware
    versions: dict[Name, Text] = Field(default_factory=dict)
    resident_bytes: dict[Name, Count] = Field(default_factory=dict)
    wall_seconds: Annotated[float, Field(ge=0)] = 0.0


class TimingFile(Timing):
    """`timing.json` as it lies on disk; `checksum` is over all the rest of it."""

    files: dict[Literal["manifest.json", "report.html"], File]
    checksum: Sha256

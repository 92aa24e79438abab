"""What `manifest.json` holds: all that comes out the same whenever the same task is compressed with the same seed."""

from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, StringConstraints, field_validator, model_validator

from flyweight.bundle.entry import Count, Entry, File, Name, Text, as_json
from flyweight.task.change import Skipped
from flyweight.task.estimate import Estimate
from flyweight.task.field import Role

#: Raised when an older flyweight could misread a bundle; the reader refuses what is newer than itself.
#: 2: request fields with rows of their own, a `request_index`, an id for unknown values. 3: sharded bundles, see
#: `shards.plan`. 4: vocabularies; a bundle without them is written as 2.
FORMAT, PLAIN_FORMAT = 4, 2
MODEL, DATA, SAMPLES = "model.onnx", "model.onnx.data", "samples.json"
MANIFEST, TIMING, REPORT = "manifest.json", "timing.json", "report.html"
VOCABULARIES = "vocabularies.safetensors"

Dtype = Literal["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64"]
Output = Literal["logit", "probability", "columns", "value"]
Version = Annotated[str, StringConstraints(max_length=64, pattern=r"^[0-9]+(\.[0-9A-Za-z+]+)*$")]
Size = Annotated[int, Field(ge=1, le=2**40)]


class InputEntry(Entry):
    """One input of the model.

    Args:
        role, rows, unknown: as in `flyweight.task.field.Field`.
        dtype: what the graph takes ("int64", "float32", ...).
        shape: the dimensions after the batch, None where any length goes: [] for one id a row, [None] for a history.
    """

    role: Role
    rows: Annotated[int, Field(ge=1, le=2**48)] | None = None
    dtype: Dtype
    shape: Annotated[list[Size | None], Field(max_length=8)] = Field(default_factory=list)
    unknown: Annotated[int, Field(ge=0, le=2**48)] | None = None


class EstimateEntry(Entry):
    """An `Estimate` on disk; an end that is not finite is null."""

    value: float | None
    low: float | None
    high: float | None
    n: Count
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    groups: Count | None = None
    method: Text = ""

    def estimate(self) -> Estimate:
        """Return the dataclass, with NaN for null."""
        value, low, high = (float("nan") if x is None else x for x in (self.value, self.low, self.high))
        return Estimate(value, low, high, self.n, self.confidence, self.groups, self.method)


class MeasurementEntry(Entry):
    """A `Measurement` on disk."""

    bytes: Count
    table_bytes: Count
    macs: Count
    quality: EstimateEntry
    guards: dict[Name, EstimateEntry] = Field(default_factory=dict)
    split: Name = "test"


class Guard(Entry):
    """A metric watched beside the main one: its drop (positive is worse) and whether it stayed within `margin`."""

    drop: EstimateEntry
    margin: float | None = None
    held: bool


class Certificate(Entry):
    """How sure the drop is.

    Args:
        metric, margin: the metric and the largest drop allowed in it; None where no budget was given.
        confidence: of the two-sided interval.
        certified: whether the interval's bad end lies within the margin.
        split, method, n, groups: what it was measured on and how the interval was made.
        guards: the other metrics watched.
    """

    metric: Name
    margin: float | None
    confidence: Annotated[float, Field(gt=0, lt=1)]
    certified: bool
    split: Name = "test"
    method: Text = ""
    n: Count
    groups: Count | None = None
    guards: dict[Name, Guard] = Field(default_factory=dict)


class TableEntry(Entry):
    """One embedding table: its shape, its bytes before and after, and its coding in words."""

    name: Name
    rows: Count
    dim: Count
    bytes_before: Count
    bytes_after: Count
    coding: Text


class PointEntry(Entry):
    """A `Point` of the curve of bytes against drop, on disk."""

    table_bytes: Count
    ratio: float
    drop: EstimateEntry
    chosen: bool = False
    label: Text = ""


class SkippedEntry(Entry):
    """A `Skipped` on disk: what was left as it was, and why, but for what the clock said."""

    what: Text
    why: Text
    step: Text = ""

    @model_validator(mode="before")
    @classmethod
    def _from_code(cls, value: Any) -> Any:
        if not isinstance(value, Skipped):
            return value
        return as_json({"what": value.what, "why": value.why, "step": value.step})


class StepEntry(Entry):
    """One step of the recipe with its settings."""

    step: Name
    settings: dict[str, JsonValue] = Field(default_factory=dict)

    @field_validator("settings", mode="before")
    @classmethod
    def _plain(cls, settings: Any) -> Any:
        return as_json(settings)


class Evidence(Entry):
    """The manifest but for version and hashes, as the writer's caller states it.

    The fields take the dataclasses of `flyweight.task` as they are: `Measurement`, `Estimate`, `Point`, `Skipped`.

    Args:
        id_maps: for an input whose rows were relabelled, the row in the model of each id that a user may give.
    """

    name: Name
    inputs: Annotated[dict[Name, InputEntry], Field(min_length=1, max_length=4096)]
    output: Output
    recipe: list[StepEntry]
    before: MeasurementEntry
    after: MeasurementEntry
    drop: EstimateEntry
    certificate: Certificate
    tables: list[TableEntry] = Field(default_factory=list)
    curve: list[PointEntry] = Field(default_factory=list)
    skipped: list[SkippedEntry] = Field(default_factory=list)
    id_maps: dict[Name, list[Annotated[int, Field(ge=0, le=2**48)]]] = Field(default_factory=dict)


class VocabularyEntry(Entry):
    """What is known beforehand of an input's raw values: how many there are, and the seed of their hashes."""

    values: Annotated[int, Field(ge=1, lt=2**32)]
    seed: Annotated[int, Field(ge=0, lt=2**32)]


class Manifest(Evidence):
    """`manifest.json` as it lies on disk; `vocabularies` is left out where there are none."""

    format: Annotated[int, Field(ge=1, le=FORMAT)]
    flyweight: Version
    files: dict[Literal["model.onnx", "model.onnx.data", "samples.json", "vocabularies.safetensors"], File]
    vocabularies: Annotated[dict[Name, VocabularyEntry], Field(max_length=4096)] = Field(default_factory=dict)

    def as_written(self) -> dict[str, Any]:
        """Return what lies on disk."""
        return self.model_dump(exclude=None if self.vocabularies else {"vocabularies"})

"""What a step did: the new model, what it changed and what it left alone with the reason."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flyweight.task.estimate import Estimate

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Skipped:
    """Something that was left as it was.

    Args:
        what: the module, operator or rule, by its name in the model.
        why: the reason, in words.
        step: who left it ("encode_tables", "export", "macs", ...).
        seen: what the clock said, where it decided; it differs from run to run, so that manifests leave it out.
    """

    what: str
    why: str
    step: str = ""
    seen: str = ""

    def __str__(self) -> str:
        return f"{self.what}: {self.reason}"

    @property
    def reason(self) -> str:
        """Why, with what the clock said."""
        return f"{self.why}, {self.seen}" if self.seen else self.why


@dataclass(frozen=True)
class Point:
    """One point of a curve of bytes against drop, as a step tried it on validation data.

    Args:
        table_bytes: bytes of all tables at this point.
        ratio: table bytes before divided by table bytes now.
        drop: the paired drop in the metric on validation; positive is worse.
        chosen: whether this is the point the step handed on.
        label: the choices in words, shortest first.
        bytes, latency_ms: of the whole exported model and of one request in it; None where only tables were tried.
        front: whether no other point is smaller, quicker and better at once.
    """

    table_bytes: int
    ratio: float
    drop: Estimate
    chosen: bool = False
    label: str = ""
    bytes: int | None = None
    latency_ms: float | None = None
    front: bool = False


@dataclass(frozen=True)
class Change:
    """A step's result: nothing was edited in place, `model` is new.

    Args:
        step: name of the step ("encode_tables").
        model: the changed model, for training, evaluation and export.
        settings: the step's own settings, as plain JSON values, so that a recipe can be written.
        done: what was changed: one plain dict per module, with its bytes before and after.
        skipped: what was left, each with its reason.
        curve: points tried on the way, on validation data.
        interrupted: whether the user stopped the work and this is the best found until then.
        dropped_inputs: inputs that the new model no longer takes, though it puts up with being given them.
        teacher: whom later steps learn from, in place of the original; None changes nothing.
    """

    step: str
    model: "nn.Module"
    settings: dict[str, Any] = field(default_factory=dict)
    done: tuple[dict[str, Any], ...] = ()
    skipped: tuple[Skipped, ...] = ()
    curve: tuple[Point, ...] = ()
    interrupted: bool = False
    dropped_inputs: tuple[str, ...] = ()
    teacher: "nn.Module | None" = None


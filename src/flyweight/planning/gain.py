"""What a method would gain, said before it is applied."""

from dataclasses import dataclass

from flyweight.task.span import Span

#: How a gain is known: from a clock, by counting, or by a formula that a benchmark holds against the truth.
MEASURED, COUNTED, ESTIMATED = "measured", "counted", "estimated"


@dataclass(frozen=True)
class Gain:
    """What one method alone makes of a model.

    Args:
        method: as it is written: "EncodeTables(max_drop=0.001)".
        bytes: of the model after it; None where it is not about bytes.
        ms: of the timed request after it, in the quickest engine; None where it is not about time.
        known: "measured", "counted" or "estimated": the weakest that went in.
        how: how it was worked out, one sentence.
    """

    method: str
    bytes: Span | None
    ms: Span | None
    known: str
    how: str

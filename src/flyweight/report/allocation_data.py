"""What was chosen for each part of a model, as plain values: for every table its bands, for every layer its form."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class AllocationPart:
    """A run of a table's rows that are stored alike, or a whole layer.

    Args:
        share: of the table's rows, 0 to 1; 1 for a layer.
        words: how they are stored ("one 4-bit code", "32 x 56 int8").
        bits_per_value: bits stored for each value of the original, codebooks not counted.
    """

    share: float
    words: str
    bits_per_value: float


@dataclass(frozen=True)
class AllocationRow:
    """A table or a layer, and what was chosen for its parts.

    Args:
        name: as in the model.
        bytes_before: of the original's numbers.
        parts: in the order of the rows; their shares add up to 1.
    """

    name: str
    kind: Literal["table", "layer"]
    bytes_before: int
    parts: tuple[AllocationPart, ...]

    @property
    def bits_per_value(self) -> float:
        """Bits for each value, over all parts."""
        return sum(part.share * part.bits_per_value for part in self.parts)

"""What one call of a model does, operator by operator: bytes touched and multiply-accumulates."""

from collections import Counter
from dataclasses import dataclass

from flyweight.task.change import Skipped


@dataclass(frozen=True)
class OperatorWork:
    """What one operator does in one call.

    Args:
        name: of the node, or of what it makes.
        operator: "MatMul", "Gather", ...
        weights: bytes of constants read, each constant charged to its first reader.
        rows: bytes of table rows read by gathers, no more than the table has.
        read, written: bytes of values that differ from call to call.
        kept: of those, bytes that need not move: an elementwise operator takes over what the one before it made.
        macs: multiply-accumulates.
        precision: of their factors; "" where there are none.
        joined: whether it can run as part of the operator before it, and needs no start of its own.
    """

    name: str
    operator: str
    weights: int
    rows: int
    read: int
    written: int
    kept: int
    macs: int
    precision: str
    joined: bool

    @property
    def bytes(self) -> int:
        """Bytes touched, all kinds together."""
        return self.weights + self.rows + self.read + self.written


@dataclass(frozen=True)
class Work:
    """What a file does in one call.

    Args:
        operators: in the file's order, without those that only read constants (done once, while loading).
        skipped: what has no formula, with the reason.
    """

    operators: tuple[OperatorWork, ...]
    skipped: tuple[Skipped, ...]

    @property
    def weights(self) -> int:
        """Bytes of constants, each read once."""
        return sum(one.weights for one in self.operators)

    @property
    def rows(self) -> int:
        """Bytes of table rows."""
        return sum(one.rows for one in self.operators)

    @property
    def activations(self) -> int:
        """Bytes of all other values, written and read."""
        return sum(one.read + one.written for one in self.operators)

    @property
    def kept(self) -> int:
        """Bytes of activations that need not leave the operator that made them."""
        return sum(one.kept for one in self.operators)

    @property
    def bytes(self) -> int:
        """Bytes touched, all together."""
        return self.weights + self.rows + self.activations

    @property
    def largest(self) -> int:
        """Bytes of the operator that reads and writes most: what lies near while it runs."""
        return max((one.read + one.written for one in self.operators), default=0)

    @property
    def started(self) -> int:
        """Operators that an engine has to start: views and what joins another are none."""
        return sum(not one.joined for one in self.operators)

    @property
    def macs(self) -> dict[str, int]:
        """Multiply-accumulates by precision."""
        counts: Counter[str] = Counter()
        for one in self.operators:
            if one.macs:
                counts[one.precision] += one.macs
        return dict(counts)

"""One recipe of the search, as a point of its space: how far each method goes, and in which order."""

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from flyweight.distillation.distill import Distill
from flyweight.pruning.drop_fields import DropFields
from flyweight.pruning.factorize import Factorize
from flyweight.pruning.prune import Prune
from flyweight.pruning.share_weights import ShareWeights
from flyweight.quantization.quantize import Quantize
from flyweight.tables.coded_teacher import CodedTeacher
from flyweight.tables.encode_tables import EncodeTables
from flyweight.task.step import Step

Bits = Literal["float32", "int8", "int8 weights"]
#: Units go layer by layer, and widths land on what engines like.
KINDS = ("neurons", "channels", "heads")
#: Bits of the codes that single weights share values with.
SHARED_BITS = 5
#: What low ranks are multiples of: once tables are coded, a few ranks hold all that layers still tell apart.
MULTIPLE = 1


@dataclass(frozen=True)
class Candidate:
    """How far each method goes.

    Args:
        tables: table bytes before divided by after; 1 leaves tables as they are.
        fields: whole inputs that go.
        units: share of neurons, channels and heads that go, 0 for none.
        weights: share of single weights that go, 0 for none; what stays shares a few values.
        macs: share of the multiply-accumulates that low ranks leave, 1 for whole matrices.
        epochs: of learning from the original, 0 for none.
        teacher: table bytes before divided by after, of the teacher; 1 lets the original teach.
        learn_first: whether learning comes before low ranks, or after.
        bits: what layers are stored and run in.
        seed: of everything drawn.
    """

    tables: float = 1.0
    fields: int = 0
    units: float = 0.0
    weights: float = 0.0
    macs: float = 1.0
    epochs: float = 0.0
    teacher: float = 1.0
    learn_first: bool = True
    bits: Bits = "float32"
    seed: int = 0

    @property
    def learns(self) -> bool:
        """Whether it trains anything."""
        return self.epochs > 0

    def untrained(self) -> "Candidate":
        """Return the same shapes without the learning: as small and as quick, whatever its quality."""
        return replace(self, epochs=0.0)

    def plain(self) -> dict[str, Any]:
        """Return it as plain values; `Candidate(**plain)` is the same again."""
        return asdict(self)

    def __str__(self) -> str:
        words = [f"tables {self.tables:,.0f}x"] if self.tables > 1 else []
        words += [f"{self.fields} field{'s' if self.fields > 1 else ''} fewer"] if self.fields else []
        words += [f"{self.units:.0%} of units off"] if self.units else []
        words += [f"{self.weights:.1%} of weights off"] if self.weights else []
        learned = [f"{self.epochs:g} epoch{'' if self.epochs == 1 else 's'}"] if self.learns else []
        ranks = [f"low rank {self.macs:.1%}"] if self.macs < 1 else []
        words += [*learned, *ranks] if self.learn_first else [*ranks, *learned]
        words += [self.bits] if self.bits != "float32" else []
        return ", ".join(words) or "rewriting alone"


def steps_of(candidate: Candidate, macs: int, *, checkpoint: str | None = None) -> tuple[Step, ...]:
    """Return the steps of a candidate.

    Args:
        macs: multiply-accumulates of one row of the original.
        checkpoint: a file that learning goes on from after a kill.
    """
    one, seed = candidate, candidate.seed
    steps: list[Step] = []
    if one.tables > 1:
        steps.append(EncodeTables(ratio=one.tables, seed=seed))
    if one.teacher > 1 and one.learns:
        steps.append(CodedTeacher(ratio=one.teacher, seed=seed))
    if one.fields:
        steps.append(DropFields(at_most=one.fields, seed=seed))
    if one.units:
        steps.append(Prune(ratio=one.units, kinds=KINDS, seed=seed, force=True))
    learning: list[Step] = [Distill(epochs=one.epochs, seed=seed, checkpoint=checkpoint)] if one.learns else []
    left = max(1, round(one.macs * macs))
    split = Factorize(max_macs=left, multiple=MULTIPLE, seed=seed, force=True, contract=True)
    ranks: list[Step] = [split] if one.macs < 1 else []
    if one.weights:
        # Weights go in rounds, each mended by learning: at once, most of them cannot (Han et al. 2015).
        share = one.epochs / 2
        steps += ranks
        steps.append(Prune(ratio=one.weights, structured=False, rounds=3, recover=share / 3, seed=seed, force=True))
        steps.append(ShareWeights(bits=SHARED_BITS, recover=share, seed=seed))
        return tuple(steps)
    steps += [*learning, *ranks] if one.learn_first else [*ranks, *learning]
    if one.bits != "float32":
        activations: Literal["int8"] | None = "int8" if one.bits == "int8" else None
        steps.append(Quantize(activations=activations, mixed=False, seed=seed, force=True))
    return tuple(steps)

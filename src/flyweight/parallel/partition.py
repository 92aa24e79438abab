"""A model cut into stages of about the same measured time: what each holds, takes and sends."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from flyweight.errors import InputError
from flyweight.graph.trace import trace
from flyweight.graph.traced import TracedModel, module_of
from flyweight.parallel.balance import Crossing, Link, balanced
from flyweight.parallel.cuts import Cut, Cuts, find_cuts, operators_of
from flyweight.parallel.node_times import operator_seconds
from flyweight.parallel.simulate import Schedule, Simulated, StageCost, simulate
from flyweight.parallel.split import StageModule, stage_module
from flyweight.task.progress import stage as shown
from flyweight.task.scores import cuts_by_row, evaluating
from flyweight.task.task import Task

#: Two processes of one machine, shared memory, where nothing was measured (`link.measure_link` does).
NEIGHBOURS = Link(5.0e9, 5.0e-5, sender=1.0, receiver=0.5)
#: How far stages one after the other may lie from the whole model, relative to the largest output.
TOLERANCE = 1e-5
#: Training a layer takes about so many times its inference: gradients by inputs and by weights, one product each.
BACKWARD = 2.0


@dataclass(frozen=True)
class StagePlan:
    """What one stage is.

    Args:
        first, last: numbers of its operators in the graph.
        modules: the model's modules that they are of, in order.
        seconds: of computing, for one micro-batch.
        sent: bytes of one row that go to the next stage; 0 for the last.
        weights: bytes of what it holds.
    """

    first: int
    last: int
    modules: tuple[str, ...]
    seconds: float
    sent: int
    weights: int


@dataclass(frozen=True, eq=False)
class Partition:
    """A model cut into stages.

    Args:
        traced: the whole model as a graph.
        cuts: one fewer than stages.
        stages: what each is.
        rows: of the micro-batch that was timed.
        link: what stages are joined by.
        single: the operator that takes longest, by its module, and its share of the whole time.
        seconds: of each operator, for one micro-batch; none where a plan said where to cut.
    """

    traced: TracedModel
    cuts: tuple[Cut, ...]
    stages: tuple[StagePlan, ...]
    rows: int
    link: Link
    single: tuple[str, float]
    seconds: tuple[float, ...] = ()

    def module(self, stage: int) -> StageModule:
        """Return a stage as a module; its weights are those of `traced`."""
        ends = (None, *self.cuts, None)
        return stage_module(self.traced, ends[stage], ends[stage + 1])

    @property
    def speedup(self) -> float:
        """How many times the throughput of one unit the slowest stage allows, however many micro-batches there are."""
        slowest = max(max(one.forward, one.occupies) for one in self._costs(0.0))
        return sum(one.seconds for one in self.stages) / slowest

    def simulate(self, micro_batches: int, schedule: Schedule = "1f1b", *, training: bool = False) -> Simulated:
        """Return how long a batch of so many micro-batches takes; see `simulate.simulate`."""
        return simulate(self._costs(BACKWARD if training else 0.0), micro_batches, schedule)

    def _costs(self, back: float) -> list[StageCost]:
        sent = [self.link.crossing(cut.bytes * self.rows) for cut in self.cuts]
        return costs_of([one.seconds for one in self.stages], sent, back)

    def _slowest(self) -> str:
        costs = self._costs(0.0)
        computing, sending = max(one.forward for one in costs), max(one.occupies for one in costs)
        return "the slowest stage" if computing >= sending else "what is sent"

    def __str__(self) -> str:
        lines = [f"{len(self.stages)} stages, micro-batches of {self.rows:,} rows"]
        for number, one in enumerate(self.stages):
            what = one.modules[0] if len(one.modules) == 1 else f"{one.modules[0]} to {one.modules[-1]}"
            sent = f", sends {one.sent * self.rows / 1e6:.3g} MB" if one.sent else ""
            lines.append(
                f"  {number}: {what}: {1e3 * one.seconds:.3g} ms, {one.weights / 1e6:.3g} MB of weights{sent}"
            )
        lines.append(f"At most {self.speedup:.2f} times the throughput of one unit: {self._slowest()} decides.")
        name, share = self.single
        if share > 1 / len(self.stages):
            lines.append(
                f"{name} alone takes {share:.0%} of the time and cannot be divided: no number of stages is more than "
                f"{1 / share:.2f} times as fast."
            )
        return "\n".join(lines)


def partition(task: Task, stages: int, *, rows: int | None = None, link: Link = NEIGHBOURS) -> Partition:
    """Cut a task's model into stages, by measured time and by what is sent, so that the slowest is as quick as can be.

    Args:
        stages: how many; one is the whole model.
        rows: of a micro-batch, the timed call; None takes a batch of the validation split.
        link: what stages are joined by.

    Raises:
        InputError: more stages than there are places to cut (says how many there are, and why elsewhere it cannot be
            done), or rows that the model does not score one by one.
        ExportError: the model cannot be traced; names the line.

    Example:
        >>> print(fw.partition(task, stages=2))  # doctest: +SKIP
    """
    if isinstance(stages, bool) or not isinstance(stages, int) or stages < 1:
        raise InputError(f"stages must be a whole number of at least 1; seen {stages!r}.")
    inputs, target, _ = next(task.batches("validation"))
    given = _rows_of(task, inputs, len(target), rows)
    with shown("Finding places to cut", total=2) as work:
        traced = trace(task.model, given)
        cuts = find_cuts(traced)
        work.advance()
        _check_enough(cuts, stages)
        with evaluating(traced):
            seconds = operator_seconds(traced, given)
        work.advance()
    count = max(len(value) for value in given.values())
    sent = [link.crossing(cut.bytes * count) for cut in cuts.legal]
    at = balanced(seconds, [cut.after for cut in cuts.legal], sent, stages)
    chosen = tuple(cuts.legal[number] for number in at)
    plans, single = _plans(traced, chosen, seconds), _longest(traced, seconds)
    found = Partition(traced, chosen, plans, count, link, single, tuple(seconds))
    _check_same(found, given)
    return found


def costs_of(seconds: Sequence[float], sent: Sequence[Crossing], back: float) -> list[StageCost]:
    """Return what stages cost.

    Args:
        seconds: of computing, of each stage.
        sent: between two stages each.
        back: a backward pass, in times of its forward; gradients are sent as what they are of was.
    """
    ends = (Crossing(), *sent, Crossing())
    return [
        StageCost(
            forward=before.receiver + own + behind.sender,
            backward=before.sender + back * own + behind.receiver if back else 0.0,
            sends=behind.arrives,
            occupies=behind.link,
        )
        for own, before, behind in zip(seconds, ends, ends[1:], strict=False)
    ]


def fingerprint_of(traced: TracedModel) -> str:
    """Return what tells whether another process has traced the same graph."""
    words = [f"{node.name} {node.target}" for node in operators_of(traced.body)]
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:16]


def _rows_of(task: Task, inputs: dict[str, Tensor], count: int, rows: int | None) -> dict[str, Tensor]:
    """Return a batch of so many rows.

    Raises:
        InputError: a batch cannot be cut by row.
    """
    if not cuts_by_row(task.model, inputs, count):
        raise InputError(
            "The model's batches cannot be cut by row (flat bags with offsets, or rows whose output hangs on other "
            "rows of their batch), so there are no micro-batches to pass from stage to stage."
        )
    if rows is None:
        return inputs
    if isinstance(rows, bool) or not isinstance(rows, int) or rows < 1:
        raise InputError(f"rows must be a whole number of at least 1; seen {rows!r}.")
    return {name: value.repeat(-(-rows // count), *[1] * (value.ndim - 1))[:rows] for name, value in inputs.items()}


def _check_enough(cuts: Cuts, stages: int) -> None:
    if stages - 1 <= len(cuts.legal):
        return
    why = "; ".join(f"{count:,} because {reason}" for reason, count in list(cuts.reasons().items())[:4])
    raise InputError(
        f"{stages} stages need {stages - 1} places to cut, and the model has {len(cuts.legal)} between its "
        f"{cuts.operators} operators" + (f" ({why})." if why else ".") + f" Ask for at most {len(cuts.legal) + 1}."
    )


def _plans(traced: TracedModel, cuts: Sequence[Cut], seconds: Sequence[float]) -> tuple[StagePlan, ...]:
    operators = operators_of(traced.body)
    ends = [*(cut.after for cut in cuts), len(operators) - 1]
    bounds = (None, *cuts, None)
    found, first = [], 0
    for number, last in enumerate(ends):
        named = [_name(node) for node in operators[first : last + 1]]
        module = stage_module(traced, bounds[number], bounds[number + 1])
        found.append(
            StagePlan(
                first=first,
                last=last,
                modules=tuple(dict.fromkeys(named)),
                seconds=sum(seconds[first : last + 1]),
                sent=cuts[number].bytes if number < len(cuts) else 0,
                weights=_bytes(module),
            )
        )
        first = last + 1
    return tuple(found)


def _longest(traced: TracedModel, seconds: Sequence[float]) -> tuple[str, float]:
    operators = operators_of(traced.body)
    at = max(range(len(seconds)), key=seconds.__getitem__)
    return _name(operators[at]), seconds[at] / max(sum(seconds), 1e-12)


def _name(node: fx.Node) -> str:
    """Return the module that an operator is of; its own name where it is of none."""
    module = module_of(node)
    return node.name if not module or module.startswith("_") else module


def _bytes(module: nn.Module) -> int:
    held = {id(one): one for one in [*module.parameters(), *module.buffers()]}
    return sum(one.numel() * one.element_size() for one in held.values())


def _check_same(found: Partition, inputs: dict[str, Tensor]) -> None:
    """Check that stages one after the other, on each half of a batch, give what the whole gives on all of it.

    Raises:
        InputError: they do not, as rows that hang on others of their batch would have it.
    """
    count = max(len(value) for value in inputs.values())
    half = max(1, count // 2)
    with torch.inference_mode(), evaluating(found.traced):
        wanted = found.traced(**inputs)
        modules = [found.module(number) for number in range(len(found.stages))]
        parts = []
        for piece in (slice(0, half), slice(half, count)):
            mine = {name: value[piece] for name, value in inputs.items()}
            if not len(next(iter(mine.values()))):
                continue
            sent: tuple[Tensor, ...] = ()
            for module in modules:
                given = module(*sent, **{name: mine[name] for name in module.reads})
                sent = given if isinstance(given, tuple) else (given,)
            parts.append(sent[0])
    far = float((torch.cat(parts) - wanted).abs().max() / wanted.abs().max().clamp_min(1e-12))
    if not far <= TOLERANCE:
        raise InputError(
            f"Micro-batches give other outputs than the whole batch, {far:.2g} of the largest away: a row's output "
            "hangs on other rows of its batch, so the model cannot be run as a pipeline."
        )

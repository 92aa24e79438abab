"""What each method would gain, before any is applied: measured where that is quick, else counted or estimated."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from flyweight.cost.limits import Limits
from flyweight.engines.operator_times import LOOKUPS, PRODUCTS
from flyweight.engines.registry import ROUNDING
from flyweight.errors import ExportError, InputError
from flyweight.graph.traced import TracedModel
from flyweight.planning.gain import COUNTED, ESTIMATED, MEASURED, Gain
from flyweight.planning.parts import Part
from flyweight.planning.timed_forms import EAGER, REWRITTEN, Timed, engine_of
from flyweight.pruning.input_fields import find_fields
from flyweight.quantization.sites import find_sites
from flyweight.tables.rate_distortion import coded_bytes
from flyweight.tables.sites import Table
from flyweight.tables.usage import inputs_of_tables
from flyweight.task.change import Skipped
from flyweight.task.measurement import Latency
from flyweight.task.span import Span, exactly
from flyweight.task.task import Task

STEP = "gains"
#: What tables may cost, as `compress` takes it where nothing is said.
MAX_DROP = 0.001
#: The share of the work that is left, in what is said of pruning and factorising.
HALF = 0.5
#: By how much of what goes the widths and ranks that engines like miss a target.
ROUNDED = 0.1


@dataclass(frozen=True, eq=False)
class Known:
    """What gains are worked out from.

    Args:
        parts, bytes, macs: of the model as it is.
        timed: the model as it is and rewritten.
        limits: of the machine; None where they cannot be measured.
        tables, counts: that can be coded, and how often training looks up each row.
        traced: the model as a graph; None where it cannot be traced.
    """

    task: Task
    parts: tuple[Part, ...]
    bytes: int
    macs: int
    timed: Timed
    limits: Limits | None
    tables: tuple[Table, ...]
    counts: Mapping[str, Tensor]
    traced: TracedModel | None = None

    @property
    def best(self) -> str | None:
        """The quickest export, from which all times are worked out; None where no engine runs one."""
        return self.timed.quickest()

    @property
    def ms(self) -> float | None:
        """Of a request now."""
        return None if self.best is None else self.timed.latencies[self.best].p50

    @property
    def overhead_ms(self) -> float:
        """What a call takes at least to start its operators."""
        times = None if self.best is None else self.timed.operators.get(self.best)
        if self.limits is None or times is None:
            return 0.0
        return 1e3 * self.limits.overhead.seconds(len(times.operators))

    def spent(self, purpose: str) -> float | None:
        """Return the milliseconds of a request that go into products or lookups, None where that was not seen."""
        if self.best is None or self.best not in self.timed.operators:
            return None
        times = self.timed.operators[self.best]
        seen = times.ms + times.between_ms
        return times.by_purpose()[purpose] / seen * self.timed.latencies[self.best].p50 if seen else None


def find_gains(known: Known) -> tuple[tuple[Gain, ...], tuple[Skipped, ...]]:
    """Return what each method alone would gain, those first that change no number, and what could not be said."""
    gains, skipped = [], []
    for words, method in METHODS.items():
        try:
            gain = method(known)
        except (InputError, ExportError) as error:
            skipped.append(Skipped(words, str(error), STEP))
            continue
        if gain is not None:
            gains.append(gain)
    return tuple(gains), tuple(skipped)


def _engine(known: Known) -> Gain | None:
    """The quickest engine instead of ONNX Runtime, or of PyTorch where that is all there is."""
    best = known.timed.quickest(rewritten=False)
    if best is None:
        return None
    latencies = known.timed.latencies
    others = [one for one in latencies if not one.endswith(REWRITTEN) and engine_of(one) not in ROUNDING]
    slower = sorted((one for one in others if one != best), key=lambda name: latencies[name].p50)
    words = ", ".join(f"{'eager PyTorch' if one == EAGER else one} {latencies[one].p50:.3g} ms" for one in slower)
    return Gain(f"engine: {best}", None, _measured(latencies[best]), MEASURED, f"timed beside {words}")


def _once(known: Known) -> Gain | None:
    best, plain = known.timed.quickest(rewritten=True), known.timed.quickest(rewritten=False)
    if best is None or plain is None:
        return None
    before = known.timed.latencies[plain].p50
    how = f"rewritten and timed in {engine_of(best)}; as it is, {before:.3g} ms in {plain}"
    return Gain("each request once", None, _measured(known.timed.latencies[best]), MEASURED, how)


def _bfloat16(known: Known) -> Gain | None:
    latencies = known.timed.latencies
    best = min((one for one in latencies if engine_of(one) in ROUNDING), key=lambda one: latencies[one].p50, default="")
    if not best:
        return None
    how = f"timed in {best}; compress() takes it only where validation data bear the rounding"
    return Gain("engine in bfloat16", None, _measured(latencies[best]), MEASURED, how)


def _encode_tables(known: Known) -> Gain | None:
    if not known.tables:
        return None
    others = known.bytes - sum(table.bytes for table in known.tables)
    tables = coded_bytes(known.task, known.tables, dict(known.counts), MAX_DROP)
    span = Span(*(others + size for size in (tables.low, tables.likely, tables.high)))
    lookups = known.spent(LOOKUPS)
    ms = None
    if known.ms is not None and lookups is not None:
        ms = Span(known.ms - lookups, known.ms, known.ms + lookups)
    how = "from the spread, use and gradients of rows (docs/profile.md); decoding takes up to twice a lookup"
    return Gain(f"EncodeTables(max_drop={MAX_DROP:g})", span, ms, ESTIMATED, how)


def _quantize(known: Known) -> Gain | None:
    if known.traced is None:
        return None
    sites, _ = find_sites(known.traced)
    if not sites:
        return None
    saved = 0
    for weight in {site.weight: site for site in sites if not site.shared}.values():
        tensor, outputs = weight.tensor(known.traced), weight.tensor(known.traced).shape[weight.out_axis]
        scales = (5 if weight.bias is None else 9) * outputs  # a scale and a zero point each, and a scale of the bias
        saved += tensor.numel() * (tensor.element_size() - 1) - scales
    how = "a byte a weight and its scales; products at the machine's int8 peak at best, taken back if slower"
    return Gain("Quantize(mixed=False)", exactly(known.bytes - saved), _quantized_ms(known), ESTIMATED, how)


def _quantized_ms(known: Known) -> Span | None:
    products = known.spent(PRODUCTS)
    if known.ms is None or products is None or known.limits is None:
        return None
    exact, whole = known.limits.peak("float32"), known.limits.peak("int8")
    if exact is None or whole is None:
        return None
    low = max(known.ms - products * (1 - min(exact.rate / whole.rate, 1.0)), known.overhead_ms)
    return Span(low, (low + known.ms) / 2, known.ms)


def _prune(known: Known) -> Gain | None:
    work = [part for part in known.parts if part.macs]
    if not work:
        return None
    low, high = _bytes_gone(work, known.macs * (1 - HALF))
    tables = sum(table.bytes for table in known.tables)
    span = Span(known.bytes - high - (1 - HALF) * tables, known.bytes - (low + high) / 2, known.bytes - low)
    how = "half the products' time at best; bytes of the layers that do half the work; tables may get narrower"
    return Gain(f"Prune(max_macs={_half(known)})", span, _halved_ms(known), ESTIMATED, how)


def _factorize(known: Known) -> Gain | None:
    work = [part for part in known.parts if part.macs and part.kind == "Linear"]
    if sum(part.macs for part in work) < known.macs * (1 - HALF):
        return None
    low, high = _bytes_gone(work, known.macs * (1 - HALF))
    span = Span(known.bytes - high, known.bytes - (low + high) / 2, known.bytes - low)
    how = "half the products' time at best, with twice as many products; bytes as their work"
    return Gain(f"Factorize(max_macs={_half(known)})", span, _halved_ms(known), ESTIMATED, how)


def _half(known: Known) -> str:
    return f"{round(known.macs * HALF):_}"


def _halved_ms(known: Known) -> Span | None:
    products = known.spent(PRODUCTS)
    if known.ms is None or products is None:
        return None
    low = max(known.ms - (1 - HALF) * products, known.overhead_ms)
    return Span(low, (low + known.ms) / 2, known.ms)


def _bytes_gone(parts: list[Part], macs: float) -> tuple[float, float]:
    """Return the least and the most bytes that go with so many multiply-accumulates, taken from layers as wholes."""

    def taken(order: list[Part]) -> float:
        left, size = macs, 0.0
        for part in order:
            share = min(left / part.macs, 1.0)
            left, size = left - share * part.macs, size + share * part.bytes
        return size

    by_bytes = sorted(parts, key=lambda part: part.bytes / part.macs)
    return (1 - ROUNDED) * taken(by_bytes), (1 + ROUNDED) * taken(by_bytes[::-1])


def _drop_field(known: Known) -> Gain | None:
    """The field whose table is the largest of those that one field alone looks up."""
    if known.traced is None or not known.tables:
        return None
    fields = inputs_of_tables(known.task, known.tables)
    droppable = {one.name for one in find_fields(known.traced)[0]}
    alone = [one for one in known.tables if len(set(fields.get(one.name, []))) == 1]
    alone = [one for one in alone if fields[one.name][0] in droppable]
    if not alone or len(known.task.inputs) < 2:
        return None
    largest = max(alone, key=lambda table: table.bytes)
    method = f"DropFields(names=[{fields[largest.name][0]!r}])"
    how = "the largest table that one field alone looks up; what it costs in quality is not known before"
    left = known.bytes - largest.bytes + 4 * largest.dim
    ms = None
    if known.ms is not None:
        lookups = known.spent(LOOKUPS) or 0.0
        ms = Span(known.ms - lookups / len(known.tables), known.ms, known.ms)
    return Gain(method, exactly(left), ms, COUNTED, how)


def _distill(known: Known) -> Gain:
    how = "gains nothing by itself: it wins back quality that the others cost, so that they may go further"
    return Gain("Distill()", None, None, COUNTED, how)


def _measured(latency: Latency) -> Span:
    return Span(latency.p50_low, latency.p50, latency.p50_high)


#: In the order in which they are told of.
METHODS: Mapping[str, Callable[[Known], Gain | None]] = {
    "the quickest engine": _engine,
    "each request once": _once,
    "bfloat16": _bfloat16,
    "EncodeTables": _encode_tables,
    "Quantize": _quantize,
    "Prune": _prune,
    "Factorize": _factorize,
    "DropFields": _drop_field,
    "Distill": _distill,
}

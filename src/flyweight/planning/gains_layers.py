"""What fewer bits, fewer units and lower ranks of layers would gain: bytes by counting, time by the products' share."""

from flyweight.engines.operator_times import PRODUCTS
from flyweight.planning.gain import COUNTED, ESTIMATED, Gain
from flyweight.planning.known import Known
from flyweight.planning.parts import Part
from flyweight.quantization.sites import find_sites
from flyweight.task.span import Span, exactly

#: The share of the work that is left, in what is said of pruning and factorising.
HALF = 0.5
#: Of the time that could be saved at best, how much is likely: what benchmarks/profile_gains.py found, about.
REACHED = 0.75
#: By how much of what goes the widths and ranks that engines like miss a target.
ROUNDED = 0.1


def quantized(known: Known) -> Gain | None:
    """Return what all layers in int8 take, None where there is none."""
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
    return _at_best(known.ms, low)


def pruned(known: Known) -> Gain | None:
    """Return what half the multiply-accumulates take, whole units gone; None where there are none."""
    work = [part for part in known.parts if part.macs]
    if not work:
        return None
    low, high = _bytes_gone(work, known.macs * (1 - HALF))
    tables = sum(table.bytes for table in known.tables)
    span = Span(known.bytes - high - (1 - HALF) * tables, known.bytes - (low + high) / 2, known.bytes - low)
    how = "half the products' time at best; bytes of the layers that do half the work; tables may get narrower"
    return Gain(f"Prune(max_macs={_half(known)})", span, _halved_ms(known), ESTIMATED, how)


def factorized(known: Known) -> Gain | None:
    """Return what half the multiply-accumulates take in layers of low rank; None where linear layers are too few."""
    work = [part for part in known.parts if part.macs and part.kind == "Linear"]
    if sum(part.macs for part in work) < known.macs * (1 - HALF):
        return None
    low, high = _bytes_gone(work, known.macs * (1 - HALF))
    span = Span(known.bytes - high, known.bytes - (low + high) / 2, known.bytes - low)
    how = "half the products' time at best, with twice as many products; bytes as their work"
    return Gain(f"Factorize(max_macs={_half(known)})", span, _halved_ms(known), ESTIMATED, how)


def _at_best(now: float, best: float) -> Span:
    return Span(best, now - REACHED * (now - best), now)


def _half(known: Known) -> str:
    return f"{round(known.macs * HALF):_}"


def _halved_ms(known: Known) -> Span | None:
    products = known.spent(PRODUCTS)
    if known.ms is None or products is None:
        return None
    low = max(known.ms - (1 - HALF) * products, known.overhead_ms)
    return _at_best(known.ms, low)


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


def distilled(known: Known) -> Gain:
    """Return that distillation is for quality."""
    how = "gains nothing by itself: it wins back quality that the others cost, so that they may go further"
    return Gain("Distill()", None, None, COUNTED, how)

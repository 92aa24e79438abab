"""What coding tables, and dropping a field with its table, would gain."""

from flyweight.engines.operator_times import LOOKUPS
from flyweight.planning.gain import COUNTED, ESTIMATED, Gain
from flyweight.planning.known import Known
from flyweight.pruning.input_fields import find_fields
from flyweight.tables.rate_distortion import coded_tables
from flyweight.tables.usage import inputs_of_tables
from flyweight.task.span import Span, exactly

#: What tables may cost, as `compress` takes it where nothing is said.
MAX_DROP = 0.001
#: Nanoseconds that a code takes where it is unpacked for each candidate, on one x86 core; benchmarks/profile_gains.py.
CODE_NS = 8.0
#: Of a request, what the mean in a field's place may take: as many rows of it as there are candidates.
MEAN = 0.03


def encoded_tables(known: Known) -> Gain | None:
    """Return what coded tables take, None where there is no table that can be coded."""
    if not known.tables:
        return None
    others = known.bytes - sum(table.bytes for table in known.tables)
    coded = coded_tables(known.task, known.tables, known.counts, MAX_DROP)
    span = Span(*(others + size for size in (coded.bytes.low, coded.bytes.likely, coded.bytes.high)))
    how = f"from the spread, use and gradients of rows; decoding takes up to {CODE_NS:g} ns for each code of a lookup"
    return Gain(f"EncodeTables(max_drop={MAX_DROP:g})", span, _decoding_ms(known, coded.codes), ESTIMATED, how)


def _decoding_ms(known: Known, codes: dict[str, float]) -> Span | None:
    """At best codebooks fold into the layer that reads them and lookups cost nothing; else each code is unpacked."""
    lookups = known.spent(LOOKUPS)
    if known.best is None or known.ms is None or lookups is None:
        return None
    rows, sources = known.timed.latencies[known.best].candidates, inputs_of_tables(known.task, known.tables)
    once = {name for name, fields in sources.items() if all(known.task.inputs[one].role == "request" for one in fields)}
    decoded = sum(count * (1 if name in once else rows) for name, count in codes.items())
    slow = known.ms + decoded * CODE_NS / 1e6
    return Span(known.ms - lookups, (known.ms + slow) / 2, slow)


def dropped_field(known: Known) -> Gain | None:
    """Return what is left without the field whose table is the largest that one field alone looks up."""
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
        ms = Span(known.ms - lookups / len(known.tables), known.ms, (1 + MEAN) * known.ms)
    return Gain(method, exactly(left), ms, COUNTED, how)

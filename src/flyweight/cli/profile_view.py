"""How a profile looks in a terminal: tables of modules, embedding tables, times and gains, and sentences."""

from collections.abc import Iterable

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from flyweight.engines.operator_times import OperatorTimes
from flyweight.planning.parts import Part
from flyweight.planning.profile import Profile
from flyweight.planning.repeated import Repeated
from flyweight.report.words import REQUEST_ONLY, bytes_in_words, count_in_words, operators_in_words
from flyweight.rewrite.apply_rules import Done
from flyweight.tables.table_use import TableUse
from flyweight.task.span import Span

#: Modules, tables, kinds of operators and refusals that are listed; the rest are added up.
MODULES, TABLES, KINDS, REFUSALS = 12, 8, 8, 4


#: What is told of what was left out, by who left it.
_LEFT = {"rewrite": "Not looked at:", "gains": "Not known:", "encode_tables": "EncodeTables leaves"}


def render(found: Profile) -> RenderableType:
    """Return a profile as tables and sentences, for 100 columns."""
    head = f"{found.name}: {bytes_in_words(found.bytes)}, {count_in_words(found.macs)} multiply-adds a row"
    blocks: list[list[RenderableType]] = [[Text(head, style="bold")], [_parts(found)]]
    if found.tables:
        blocks.append([_tables(found)])
    blocks.append([_times(found)])
    if found.best in found.operators:
        blocks.append([_kinds(found.best, found.operators[found.best])])
    if found.bound is not None:
        blocks.append([Text(one) for one in found.bound.words])
    if found.repeated is not None:
        blocks.append(_repeated(found.repeated))
    blocks.append([Text(f"{_LEFT[one.step]} {one}") for one in found.skipped if one.step in _LEFT])
    if found.gains:
        hows = ((one.method.partition("(")[0], one.how) for one in found.gains)
        blocks += [[_gains(found)], [_listed(hows, "dim")]]
    blocks.append([Text(one, style="green") for one in found.advice])
    return Group(*_spaced(block for block in blocks if block))


def _spaced(blocks: Iterable[list[RenderableType]]) -> Iterable[RenderableType]:
    for place, block in enumerate(blocks):
        if place:
            yield Text("")
        yield from block


def _table(*headings: str, left: int = 1) -> Table:
    """A table whose first columns are words and the others numbers; where it is too wide, words are cut."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for place, heading in enumerate(headings):
        if place < left:
            table.add_column(heading, vertical="bottom", overflow="ellipsis")
        else:
            table.add_column(heading, vertical="bottom", justify="right", no_wrap=True)
    return table


def _parts(found: Profile) -> Table:
    timed = found.timed is not None
    times = (f"ms in\n{found.timed}", "") if timed else ()
    table = _table("module", "", "bytes", "", "multiply-\nadds", "", *times, left=2)
    spent = found.operators[found.timed].ms if found.timed is not None else 0.0

    def add(name: str, kind: str, parts: list[Part]) -> None:
        size, macs, ms = (sum(getattr(one, key) or 0 for one in parts) for key in ("bytes", "macs", "ms"))
        numbers = (*_with_share(bytes_in_words(size), size, found.bytes),
                   *_with_share(count_in_words(macs), macs, found.macs))  # fmt: skip
        table.add_row(Text(name), Text(kind), *numbers, *(_with_share(_ms(ms), ms, spent) if timed else ()))

    by_share = sorted(found.parts, key=lambda one: -_weight(one, found, spent))
    for one in by_share[:MODULES]:
        add(one.name or "(the model itself)", one.kind, [one])
    if by_share[MODULES:]:
        add(f"{len(by_share) - MODULES} others", "", by_share[MODULES:])
    between = spent - sum(one.ms or 0.0 for one in found.parts)
    if timed and between > 0:
        table.add_row(Text("between modules"), "", "", "", "", "", *_with_share(_ms(between), between, spent))
    return table


def _weight(part: Part, found: Profile, spent: float) -> float:
    shares = ((part.bytes, found.bytes), (part.macs, found.macs), (part.ms or 0.0, spent))
    return sum(value / total for value, total in shares if total)


def _with_share(words: str, value: float, total: float) -> tuple[str, str]:
    return (words, f"{value / total:.0%}" if total else "") if value else ("-", "")


def _tables(found: Profile) -> Table:
    table = _table("embedding table", "rows", "dim", "bytes", "lookups in\ntraining", "never\nseen", "seen\nonce")
    largest = sorted(found.tables, key=lambda one: -one.bytes)
    for one in largest[:TABLES]:
        table.add_row(Text(one.name), f"{one.rows:,}", f"{one.dim}", bytes_in_words(one.bytes), *_use([one]))
    rest = largest[TABLES:]
    if rest:
        rows, size = sum(one.rows for one in rest), sum(one.bytes for one in rest)
        table.add_row(f"{len(rest)} others", f"{rows:,}", "", bytes_in_words(size), *_use(rest))
    return table


def _use(tables: list[TableUse]) -> tuple[str, str, str]:
    """Lookups, and the shares of rows never seen and seen once, of those that were counted."""
    counted = [one for one in tables if one.lookups is not None]
    rows = sum(one.rows for one in counted)
    if not rows:
        return "-", "-", "-"
    never, once = (sum((getattr(one, key) or 0.0) * one.rows for one in counted) / rows for key in ("never", "once"))
    return f"{sum(one.lookups or 0 for one in counted):,}", f"{never:.0%}", f"{once:.0%}"


def _times(found: Profile) -> Table:
    what = "request" if found.repeated is not None else "call"
    table = _table(f"one {what} of {found.rows:,}", "p50, ms", "p95", "p99")
    for name, time in sorted(found.latencies.items(), key=lambda one: one[1].p50):
        table.add_row(Text(name), _ms(time.p50), _ms(time.p95), _ms(time.p99))
    return table


def _kinds(name: str, times: OperatorTimes) -> Table:
    table = _table(f"operators of {name}", "how many", "ms", "")
    kinds = list(times.by_kind().items())
    for kind, (count, ms) in kinds[:KINDS]:
        table.add_row(Text(kind), f"{count}", *_with_share(_ms(ms), ms, times.ms))
    rest = kinds[KINDS:]
    if rest:
        ms = sum(one for _, (_, one) in rest)
        count = sum(one for _, (one, _) in rest)
        table.add_row(f"{len(rest)} more", f"{count}", *_with_share(_ms(ms), ms, times.ms))
    return table


def _repeated(found: Repeated) -> list[RenderableType]:
    share = found.request_only / found.row if found.row else 0.0
    sentences = [
        f"Computed again for each candidate: {share:.0%} of a candidate's work reads the request alone; with layers "
        f"that read both sides split, {found.saved:.0%} is done once.",
        f"Rewritten, a request costs {found.once:,} multiply-adds, and each candidate {found.candidate:,} instead of "
        f"{found.row:,}.",
    ]
    refused = [("refused", str(one)) for one in found.refused]
    more = len(refused) - REFUSALS
    lines = [("done", _done(one)) for one in found.done if one.times] + refused[:REFUSALS]
    lines += [("", f"and {more} more, all in --json")] if more > 0 else []
    lines += [("undone", str(one)) for one in found.undone]
    return [*(Text(one) for one in sentences), _listed(lines)]


def _listed(lines: Iterable[tuple[str, str]], style: str = "") -> Table:
    """What each line is about, and beside it the line, however long."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column()
    for about, words in lines:
        grid.add_row(Text(about, style=style), Text(words, style=style))
    return grid


def _done(one: Done) -> str:
    """Say what a rule did: "split linear, 1 x in mlp.0"; of operators that moved, how many."""
    if one.rule == REQUEST_ONLY:
        return f"{operators_in_words(one.times)} once for each request"
    return f"{one.rule}, {one.times} x{_where(one.where)}"


def _where(modules: tuple[str, ...]) -> str:
    named = [one for one in modules if one]
    return f" in {', '.join(named[:4])}{' ...' if len(named) > 4 else ''}" if named else ""


def _gains(found: Profile) -> Table:
    table = _table("each method alone", "known by", "model after", "ms after", left=2)
    for one in found.gains:
        size = "-" if one.bytes is None else _size_span(one.bytes)
        table.add_row(Text(one.method), one.known, size, "-" if one.ms is None else _ms_span(one.ms))
    return table


def _size_span(span: Span) -> str:
    low, high = bytes_in_words(span.low), bytes_in_words(span.high)
    return low if low == high else f"{low} to {high}"


def _ms_span(span: Span) -> str:
    return _ms(span.likely) if span.exact else f"{_ms(span.likely)} [{_ms(span.low)}, {_ms(span.high)}]"


def _ms(value: float) -> str:
    """Return milliseconds without their unit.

    Example:
        >>> _ms(0.0412), _ms(3.283), _ms(104.2)
        ('0.041', '3.28', '104')
    """
    return f"{value:,.{3 if value < 0.1 else 2 if value < 10 else 1 if value < 100 else 0}f}"

"""The one sentence that says whether it worked, and the rows of the before/after table beneath it."""

from dataclasses import dataclass
from typing import Literal

from flyweight.report.data import ReportData
from flyweight.report.words import (
    bytes_in_words,
    count_in_words,
    divided,
    metric_in_words,
    milliseconds_in_words,
    ratio_in_words,
    signed,
)
from flyweight.task.estimate import Estimate

Tone = Literal["good", "bad", "plain"]


@dataclass(frozen=True)
class Verdict:
    """The outcome in words.

    Args:
        sentence: what became of the model, at what cost, how sure.
        badge: two or three words of the same.
        tone: "good" certified, "bad" the budget was missed, "plain" there was no budget.
    """

    sentence: str
    badge: str
    tone: Tone


@dataclass(frozen=True)
class Line:
    """One line of the before/after table; `change` is a ratio, or a drop with its interval.

    Args:
        tone: how the change is to be read: "good", "bad", or "plain".
        note: what the change is held against ("allowed: 0.001").
    """

    what: str
    before: str
    after: str
    change: str
    tone: Tone = "plain"
    note: str = ""


def judge(data: ReportData) -> Verdict:
    """Return the verdict on a result.

    Example: "187.0 MB became 540.0 kB, 346x smaller; the AUC drop of +0.0002 [-0.0001, +0.0005] is inside the margin
    of 0.001: certified on 78,008 rows in 5,012 groups."
    """
    size = f"{bytes_in_words(data.before.bytes)} became {bytes_in_words(data.after.bytes)}"
    if data.before.bytes > data.after.bytes:
        size += f", {divided(data.before.bytes, data.after.bytes)} smaller"
    drop = f"the {metric_in_words(data.metric)} drop of {_interval(data.drop)}"
    rows = _rows(data.drop)
    if data.margin is None:
        return Verdict(f"{size}; {drop} was measured on {rows}. No budget was set.", "Measured, no budget set", "plain")
    if data.certified:
        inside = f"is inside the margin of {data.margin:g}: certified on {rows}."
        if data.missed:
            sentence = f"{size}; {drop} {inside} {_sentences(data.missed)}"
            return Verdict(sentence, "Quality certified, budget missed", "bad")
        return Verdict(f"{size}; {drop} {inside}", "Certified", "good")
    reasons = _sentences(data.missed) or f"Not certified on {rows}."
    if data.drop.high > data.margin:
        outside = f"reaches {signed(data.drop.high)}, outside the margin of {data.margin:g}"
        return Verdict(f"{size}; {drop} {outside}. {reasons}", "Not certified", "bad")
    return Verdict(f"{size}; {drop} is inside the margin of {data.margin:g}, but: {reasons}", "Not certified", "bad")


def _sentences(missed: tuple[str, ...]) -> str:
    return " ".join(f"{one[0].upper()}{one[1:].removesuffix('.')}." for one in missed)


def comparison(data: ReportData) -> tuple[Line, ...]:
    """Return the before/after lines: size, quality, guards, latency, memory, work; what is unknown is left out."""
    before, after = data.before, data.after
    lines = [_size_line("Model on disk", before.bytes, after.bytes)]
    if before.table_bytes:
        lines.append(_size_line("Embedding tables", before.table_bytes, after.table_bytes))
    lines += _quality_lines(data)
    lines += _latency_lines(data)
    if data.resident_before and data.resident_after:
        lines.append(_size_line("Memory while serving", data.resident_before, data.resident_after))
    if before.macs:
        macs = divided(before.macs, after.macs)
        lines.append(Line("Multiply-adds a row", count_in_words(before.macs), count_in_words(after.macs), macs))
    return tuple(lines)


def _size_line(what: str, before: int, after: int) -> Line:
    tone: Tone = "good" if after < before else "plain"
    return Line(what, bytes_in_words(before), bytes_in_words(after), divided(before, after), tone)


def _quality_lines(data: ReportData) -> list[Line]:
    metrics: list[tuple[str, Estimate, Estimate, Estimate | None, float | None]] = [
        (data.metric, data.before.quality, data.after.quality, data.drop, data.margin)
    ]
    for name, old in data.before.guards.items():
        if name in data.after.guards:
            change = (data.after.guards[name], data.guard_drops.get(name), data.guard_margins.get(name))
            metrics.append((name, old, *change))
    lines = []
    for name, old, new, drop, margin in metrics:
        tone: Tone = "plain" if drop is None or margin is None else "good" if drop.high <= margin else "bad"
        change_in_words = "" if drop is None else f"drop {_interval(drop)}"
        note = "" if margin is None else f"allowed {margin:g}"
        words = metric_in_words(name)
        title = words[:1].upper() + words[1:]
        lines.append(Line(title, f"{old.value:.4f}", f"{new.value:.4f}", change_in_words, tone, note))
    return lines


def _latency_lines(data: ReportData) -> list[Line]:
    old, new = data.timing("before"), data.timing("after")
    if old is None or new is None:
        return []
    ratio = data.speedup.value if data.speedup else old.latency.p50 / new.latency.p50
    note = f"{data.speedup.low:.3g} to {data.speedup.high:.3g}" if data.speedup else ""
    tone: Tone = "good" if ratio > 1 else "bad"
    rows = old.latency.candidates
    lines = []
    for title, pick in (("median", "p50"), ("p99", "p99")):
        first, last = float(getattr(old.latency, pick)), float(getattr(new.latency, pick))
        what = f"{rows:,} {data.unit}, {title}" if rows > 1 else f"One row, {title}"
        times = ratio_in_words(ratio) if pick == "p50" else divided(first, last)
        beside = note if pick == "p50" else ""
        lines.append(Line(what, milliseconds_in_words(first), milliseconds_in_words(last), times, tone, beside))
    return lines


def _interval(drop: Estimate) -> str:
    return f"{signed(drop.value)} [{signed(drop.low)}, {signed(drop.high)}]"


def _rows(drop: Estimate) -> str:
    return f"{drop.n:,} rows" + ("" if drop.groups is None else f" in {drop.groups:,} groups")

"""What `inspect` reads off a bundle, as the table that was shown when it was made."""

from typing import Any

from flyweight.report.data import ReportData, Timing
from flyweight.report.words import rewrites_in_words
from flyweight.task.change import Skipped
from flyweight.task.estimate import Estimate
from flyweight.task.measurement import Latency, Measurement


def report_of(facts: dict[str, Any]) -> ReportData:
    """Return the facts that `flyweight.bundle.inspect.inspect` gives as what the terminal table shows."""
    certificate, guards, resident = facts["certificate"], facts["guards"], facts["resident_bytes"]
    drop = {name: facts["drop"][name] for name in ("value", "low", "high", "n", "confidence")}
    return ReportData(
        name=facts["name"],
        metric=certificate["metric"],
        before=_measurement(facts["before"]),
        after=_measurement(facts["after"]),
        drop=Estimate(**drop, groups=certificate["groups"], method=certificate["method"]),
        certified=certificate["certified"],
        margin=certificate["margin"],
        guard_drops={name: Estimate(**guard["drop"]) for name, guard in guards.items()},
        guard_margins={name: guard["margin"] for name, guard in guards.items() if guard["margin"] is not None},
        timings=_timings(facts),
        resident_before=resident.get("before_exported"),
        resident_after=resident.get("after"),
        engine=facts["engine"] or "",
        hoisted=_rewritten(facts["recipe"]),
        skipped=tuple(Skipped(**one) for one in facts["skipped"]),
    )


def _rewritten(recipe: list[dict[str, Any]]) -> str:
    """Return the rewrites of a recipe in words; what others wrote there and is no count is left out."""
    applied = (one["settings"] for one in recipe if one["step"] == "rewrite")
    return rewrites_in_words({rule: times for one in applied for rule, times in one.items() if type(times) is int})


def _measurement(facts: dict[str, Any]) -> Measurement:
    guards = {name: Estimate(**guard) for name, guard in facts["guards"].items()}
    return Measurement(
        facts["bytes"], facts["table_bytes"], facts["macs"], Estimate(**facts["quality"]), guards, facts["split"]
    )


def _timings(facts: dict[str, Any]) -> tuple[Timing, ...]:
    before, after = facts["latency_ms"]["before"], facts["latency_ms"]["after"]
    if before is None or after is None:
        return ()
    return (
        Timing("original, PyTorch", "before", Latency(**before)),
        Timing(f"compressed, {facts['engine']}", "after", Latency(**after), chosen=True),
    )

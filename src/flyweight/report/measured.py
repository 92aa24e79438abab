"""How it was measured, in plain words: what a sceptic asks first."""

from flyweight.report.data import ReportData
from flyweight.report.words import bytes_in_words, seconds_in_words
from flyweight.task.estimate import Estimate

#: Methods of an interval, by the name an `Estimate` carries.
METHODS: dict[str, str] = {
    "delong": "DeLong's variance of two AUCs on the same rows",
    "grouped delong": "the variance of two AUCs on the same rows, with rows of one group taken together",
    "bootstrap": "a paired bootstrap over rows",
    "grouped bootstrap": "a paired bootstrap that draws whole groups, because rows of one group are not independent",
}


def how_measured(data: ReportData) -> tuple[tuple[str, str], ...]:
    """Return pairs of a heading and a sentence or two; what is unknown is left out."""
    found = [
        ("Quality", _quality(data.drop, data.after.split)),
        ("Size", "Bytes of the exported models on disk; the original is its float32 ONNX export."),
        ("Time", _time(data)),
        ("Work", _work(data)),
        ("Machine", _machine(data)),
        ("Software", _software(data)),
        ("Chance", "" if data.seed is None else f"Everything random was drawn from seed {data.seed}."),
        ("Duration", "" if data.seconds is None else f"The whole work took {seconds_in_words(data.seconds)}."),
        ("Machine's limits", f"The compressed model: {data.limit}" if data.limit else ""),
        *(("Note", note) for note in data.notes),
    ]
    return tuple((heading, text) for heading, text in found if text)


def _quality(drop: Estimate, split: str) -> str:
    groups = "" if drop.groups is None else f" in {drop.groups:,} groups"
    name, comma, details = drop.method.partition(",")  # "bootstrap, 2,000 resamples"
    how = f" by {METHODS.get(name, name)}{comma}{details}" if drop.method else ""
    once = " The test rows were used once, for this; choices were made on validation rows." if split == "test" else ""
    return (
        f"Both exported models scored the same {drop.n:,} {split} rows{groups}. A drop is a paired difference, "
        f"positive when quality was lost, with a two-sided {drop.confidence:.0%} interval{how}.{once}"
    )


def _time(data: ReportData) -> str:
    if not data.timings:
        return ""
    latency = data.timings[0].latency
    rows = f"{latency.candidates:,} {data.unit}" if latency.candidates > 1 else "one row"
    return (
        f"{latency.repeats:,} rounds of one call with {rows}, after warm-up, {latency.threads} "
        f"thread{'s' if latency.threads != 1 else ''}. All models took turns in the same run, in shuffled order. "
        f"The interval of a median is made of order statistics; for the original it is "
        f"{latency.p50_low:.3g} to {latency.p50_high:.3g} ms around {latency.p50:.3g} ms."
    )


def _work(data: ReportData) -> str:
    if not data.before.macs:
        return ""
    return "Multiply-adds of one row by PyTorch's counter; operators it has no formula for are listed as skipped."


def _machine(data: ReportData) -> str:
    facts = data.hardware
    if not facts.get("cpu"):
        return ""
    cores = facts.get("cores_allowed") or facts.get("cores")
    parts = [str(facts["cpu"]), f"{cores} core{'s' if cores != 1 else ''}" if cores else ""]
    parts.append(f"{bytes_in_words(facts['memory_bytes'])} of memory" if facts.get("memory_bytes") else "")
    parts += [", ".join(facts.get("instructions") or ()), str(facts.get("system", ""))]
    return "; ".join(part for part in parts if part) + "."


def _software(data: ReportData) -> str:
    packages = dict(data.hardware.get("packages") or {})
    named = [f"Python {data.hardware['python']}"] if data.hardware.get("python") else []
    named += [f"{name} {version}" for name, version in packages.items()]
    return ", ".join(named) + "." if named else ""

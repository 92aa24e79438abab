"""What the steps did, in words."""

from collections import Counter
from collections.abc import Callable
from typing import Any

from flyweight.planning.rewriting import REWRITE
from flyweight.report.words import rewrites_in_words
from flyweight.task.change import Change

Done = dict[str, Any]


def words_of(changes: tuple[Change, ...]) -> tuple[str, ...]:
    """Return a sentence for each step, and what is to be said beside it."""
    found = []
    for change in changes:
        settings = ", ".join(f"{name}={value}" for name, value in change.settings.items() if _is_told(value))
        did = [_SAYS[what](entries) for what, entries in _by_kind(change).items() if what in _SAYS]
        if change.step == REWRITE and change.done:
            found.append(rewritten_words(changes))
            continue
        title = f"{change.step}({settings})" if settings else change.step
        found.append(f"{title}: {'; '.join(did) or 'nothing changed'}")
        found += [str(one) for one in change.skipped if one.what == change.step]
        if change.interrupted:
            found.append(f"{change.step} was interrupted; this is the best found until then")
    return tuple(found)


def rewritten_words(changes: tuple[Change, ...]) -> str:
    """Return what the exported model computes once, as a sentence; nothing where nothing was rewritten."""
    rules = {done["rule"]: done["times"] for change in changes if change.step == REWRITE for done in change.done}
    return rewrites_in_words(rules)


def _is_told(value: object) -> bool:
    """Return whether a setting is worth its place in a sentence; the manifest has them all."""
    return bool(value) and not isinstance(value, (list, tuple, dict))


def _by_kind(change: Change) -> dict[str, list[Done]]:
    kinds: dict[str, list[Done]] = {}
    for done in change.done:
        kinds.setdefault(str(done.get("what")), []).append(done)
    return kinds


def _tables(entries: list[Done]) -> str:
    return _count(entries, "table") + " coded"


def _weights(entries: list[Done]) -> str:
    """Weights were made float32, left out one by one, or made to share values."""
    first = entries[0]
    if "from" in first:
        return f"{first['weights']:,} weights of {first['from']} made float32"
    if "kept" in first:
        kept, of = (sum(done[name] for done in entries) for name in ("kept", "of"))
        return f"{kept:,} of {of:,} weights kept in {_count(entries, 'layer')}"
    most = max(done["values"] for done in entries)
    return f"the weights of {_count(entries, 'layer')} share at most {most} values each"


def _recalibrated(entries: list[Done]) -> str:
    done = entries[0]
    return f"logits recalibrated: x {done['scale']:.4f} {done['bias']:+.4f}, {done['how']}"


def _groups(entries: list[Done]) -> str:
    before, after = (sum(done[f"units_{when}"] for done in entries) for when in ("before", "after"))
    kinds = ", ".join(sorted({str(done["kind"]) for done in entries}))
    return f"{after:,} of {before:,} units kept in {_count(entries, 'group')} ({kinds})"


def _layers(entries: list[Done]) -> str:
    kinds = Counter(str(done["to"]) for done in entries)
    return ", ".join(f"{_number(count, 'layer')} in {kind}" for kind, count in kinds.most_common())


def _training(entries: list[Done]) -> str:
    done = entries[0]
    before, after = done["validation_before"], done["validation_after"]
    return (
        f"{done['parameters']:,} weights trained for {done['epochs']:g} epochs of {done['loss']}, "
        f"{done['metric']} on validation {before:.4f} to {after:.4f}"
    )


def _rounds(entries: list[Done]) -> str:
    last = entries[-1]
    left = f"{last['macs']:,} multiply-adds" if "macs" in last else f"{last['density']:.1%} of the weights"
    return f"{_count(entries, 'round')} to {left}"


def _low_rank(entries: list[Done]) -> str:
    return "as products of two: " + ", ".join(f"{done['name']} of rank {done['rank']}" for done in entries)


def _contracted(_: list[Done]) -> str:
    return "what is multiplied with them summed over the rank"


def _fields(entries: list[Done]) -> str:
    return "no longer asks for " + ", ".join(str(done["name"]) for done in entries)


def _blocks(entries: list[Done]) -> str:
    return "taken out: " + ", ".join(str(done["name"]) for done in entries)


def _teacher(entries: list[Done]) -> str:
    ratio = entries[0]["bytes_before"] / max(entries[0]["bytes_after"], 1)
    return f"a copy with tables {ratio:,.0f} times smaller, which forgot what rows had learned by heart, teaches"


def _count(entries: list[Done], word: str) -> str:
    return _number(len(entries), word)


def _number(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"


_SAYS: dict[str, Callable[[list[Done]], str]] = {
    "table": _tables,
    "weights": _weights,
    "recalibration": _recalibrated,
    "group": _groups,
    "layer": _layers,
    "round": _rounds,
    "low rank": _low_rank,
    "contracted": _contracted,
    "training": _training,
    "field": _fields,
    "block": _blocks,
    "teacher": _teacher,
}

"""What a metric asks of its data: direction, kind of target, grouping. The formulas live in `flyweight.quality`."""

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal

from flyweight.errors import InputError

Kind = Literal["binary", "label", "real", "ranking", "any"]


@dataclass(frozen=True)
class Metric:
    """A quality metric.

    Args:
        name: what it is called in reports ("auc", "ndcg@10").
        larger_is_better: its direction.
        kind: what targets it takes: "binary" 0/1 with one score a row; "label" a class index, or 0/1 with one score;
            "real" a number with one prediction a row; "ranking" either 0/1 with one score a row and a group, or
            the index of the right column with one score a column; "any" whatever `function` takes.
        needs_group: whether rows must be told apart by request or user (`Task(group=...)`).
        at: the cut-off k of "...@k"; None otherwise.
        function: for the user's own metric, `function(outputs, targets) -> float` on NumPy arrays.
    """

    name: str
    larger_is_better: bool = True
    kind: Kind = "any"
    needs_group: bool = False
    at: int | None = None
    function: Callable[[Any, Any], float] | None = None


#: Every metric known by name. "@" stands for a family with a cut-off.
METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("auc", kind="binary"),
        Metric("gauc", kind="binary", needs_group=True),
        Metric("logloss", larger_is_better=False, kind="binary"),
        Metric("accuracy", kind="label"),
        Metric("precision", kind="label"),
        Metric("recall", kind="label"),
        Metric("f1", kind="label"),
        Metric("hit_rate@", kind="ranking"),
        Metric("recall@", kind="ranking"),
        Metric("ndcg@", kind="ranking"),
        Metric("rmse", larger_is_better=False, kind="real"),
    )
}


def find_metric(metric: "str | Metric | Callable[[Any, Any], float]") -> Metric:
    """Return the `Metric` for a name ("auc", "recall@20"), a `Metric` or a callable (larger is better).

    Raises:
        InputError: the name is unknown, or its cut-off is missing or not a positive whole number.
    """
    if isinstance(metric, Metric):
        if metric.function is None and _family(metric.name) not in METRICS:
            raise InputError(f"Metric {metric.name!r} has no function and is not a known name; give function=.")
        return metric
    if callable(metric):
        return Metric(getattr(metric, "__name__", "metric"), function=metric)
    if not isinstance(metric, str):
        raise InputError(f"metric must be a name, a Metric or a callable; seen {type(metric).__name__}.")
    name = _family(metric)
    if name not in METRICS:
        near = get_close_matches(name.rstrip("@"), [known.rstrip("@") for known in METRICS], n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        known = ", ".join(known + "k" if known.endswith("@") else known for known in METRICS)
        raise InputError(f"Unknown metric {metric!r}.{hint} Known: {known}.")
    found = METRICS[name]
    if not name.endswith("@"):
        return found
    cut = metric[len(name) :]
    if not cut.isdigit() or int(cut) < 1:
        raise InputError(f"Metric {metric!r} needs a cut-off after @, a positive whole number, as in {name}20.")
    return Metric(metric, found.larger_is_better, found.kind, found.needs_group, at=int(cut))


def _family(name: str) -> str:
    """Return the key of METRICS for a name: "recall@20" -> "recall@"."""
    return name[: name.index("@") + 1] if "@" in name else name

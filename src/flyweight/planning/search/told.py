"""A search as the report shows it."""

from flyweight.planning.budget import Budget
from flyweight.planning.search.outcome import Outcome, frontier, is_inside
from flyweight.planning.search.search import Found
from flyweight.report.search_data import PeerPoint, SearchTold, TriedRecipe


def told(
    found: Found, budget: Budget, before: int, test_size: float, recipe: tuple[str, ...], peers: tuple[PeerPoint, ...]
) -> SearchTold:
    """Return what the report shows of a search.

    Args:
        before: bytes of the original's float32 export.
        test_size: rows (groups, where there are any) of the test split for each one of validation.
        recipe: the chosen recipe, a sentence a step.
    """
    front = {one.number for one in frontier(found.outcomes)}

    def row(one: Outcome) -> TriedRecipe:
        measured = one.measured
        return TriedRecipe(
            number=one.number,
            words=str(one.candidate),
            state=one.state,
            reason=one.reason,
            bytes=None if measured is None else measured.bytes,
            table_bytes=None if measured is None else measured.table_bytes,
            macs=None if measured is None else measured.macs,
            latency_ms=None if measured is None else measured.latency_ms,
            speedup=None if measured is None else measured.speedup,
            engine="" if measured is None else measured.engine,
            drop=one.drop,
            inside=one.state == "done" and is_inside(one, budget, before, test_size),
            front=one.number in front,
            chosen=one is found.best,
            started=one.started,
            seconds=one.seconds,
        )

    return SearchTold(
        trials=tuple(row(one) for one in found.outcomes),
        peers=peers,
        recipe=recipe,
        stopped=found.stopped,
        seconds=found.seconds,
        best_so_far=tuple(found.turns),
        max_bytes=_largest(budget, before),
        max_latency_ms=_slowest(found, budget),
    )


def _largest(budget: Budget, before: int) -> float | None:
    """Return the bytes that a budget allows at most; None where it names none."""
    allowed = [float(budget.max_bytes)] if budget.max_bytes is not None else []
    allowed += [before / budget.min_size_ratio] if budget.min_size_ratio is not None else []
    return min(allowed, default=None)


def _slowest(found: Found, budget: Budget) -> float | None:
    """Return the milliseconds that a budget allows at most, a speed-up by the original's time beside the best trial."""
    allowed = [budget.max_latency_ms] if budget.max_latency_ms is not None else []
    measured = found.best.measured
    if budget.min_speedup is not None and measured is not None:
        allowed.append(measured.latency_ms * measured.speedup / budget.min_speedup)
    return min(allowed, default=None)

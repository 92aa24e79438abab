"""Budgets that no model of a task can meet, refused before the search with the numbers."""

from flyweight.cost.overhead import measure_overhead
from flyweight.errors import EngineError, InputError
from flyweight.planning.budget import Budget
from flyweight.planning.search.workbench import Workbench

#: Bytes of an exported file with nothing in it.
EMPTY = 400
#: An engine may start an operator this much quicker than the one that overheads are measured in.
QUICKER = 0.5


def check_feasible(bench: Workbench, budget: Budget) -> None:
    """Refuse a budget that is below what an empty model of this task would take.

    Raises:
        InputError: with the limit, what was found and what to ask for instead.
    """
    before = bench.before.exported.bytes
    least = EMPTY + (bench.coder.smallest() if bench.coder.tables and _limits_bytes(budget) else 0)
    if budget.max_bytes is not None and budget.max_bytes < least:
        raise InputError(
            f"Budget max_bytes={budget.max_bytes:,} cannot be met: with one vector for each band the tables alone take "
            f"{least:,} bytes. Ask for at least that, or leave tables out of the model."
        )
    if budget.min_size_ratio is not None and before / budget.min_size_ratio < least:
        raise InputError(
            f"Budget min_size_ratio={budget.min_size_ratio:g} cannot be met: the model takes {before:,} bytes, and "
            f"with one vector for each band the tables alone take {least:,}. Ask for at most {before // least:,}."
        )
    if budget.max_latency_ms is not None or budget.min_speedup is not None:
        _check_time(bench, budget)


def _limits_bytes(budget: Budget) -> bool:
    return budget.max_bytes is not None or budget.min_size_ratio is not None


def _check_time(bench: Workbench, budget: Budget) -> None:
    try:
        floor = 1000 * QUICKER * measure_overhead().call
    except EngineError:
        return
    if budget.max_latency_ms is not None and budget.max_latency_ms < floor:
        raise InputError(
            f"Budget max_latency_ms={budget.max_latency_ms:g} cannot be met: a call of an engine with next to nothing "
            f"in it takes {floor:.2g} ms here."
        )
    if budget.min_speedup is not None:
        eager = bench.eager_ms()
        if eager / budget.min_speedup < floor:
            raise InputError(
                f"Budget min_speedup={budget.min_speedup:g} cannot be met: the original takes {eager:.3g} ms in eager "
                f"PyTorch and a call of an engine with next to nothing in it {floor:.2g} ms here, which is "
                f"{eager / floor:,.0f} times less."
            )

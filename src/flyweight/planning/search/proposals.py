"""What is tried next: first what is known to pay, then steps away from the best, in turn with what Optuna draws."""

from collections.abc import Iterator, Sequence, Set
from dataclasses import replace
from itertools import zip_longest
from math import sqrt

from flyweight.planning.budget import Budget
from flyweight.planning.search.candidate import Candidate
from flyweight.planning.search.outcome import Outcome, best_of, excess
from flyweight.planning.search.space import BITS, EPOCHS, UNITS, WEIGHTS, Space

#: By how much a step away from the best changes table bytes and multiply-accumulates.
TABLES, MACS = 1.3, 0.6
#: What tables are made smaller by beyond what fits by the numbers, as codes come in whole bits.
SPARE = 1.02


def first_candidates(space: Space, tables: float, epochs: float, planned: Sequence[Candidate]) -> list[Candidate]:
    """Return what is tried first: tables alone, rewriting alone, the plans for all parts, then thinner models.

    Tables alone are known to hold, and give the most of what there is: where time is short, they are what it goes to.

    Args:
        tables: the ratio that the coding of tables reaches alone; 1 where there are none.
        epochs: of learning that there is time for, a few times over.
        planned: tables and layers planned together, from the safest on.
    """
    coded = Candidate(tables=tables)
    found = [*([coded] if tables > 1 else []), Candidate(), *planned]
    if not space.layers:
        return [*found, *([replace(coded, epochs=epochs)] if tables > 1 else [])]
    if tables > 1:
        learned = (one for one in planned if one.learns)
        start = next(learned, replace(coded, epochs=epochs, macs=0.04, bits="int8", learn_first=False))
        return [*found, _thinner(start, 0.5)]
    found += [replace(coded, bits="int8")]
    found += [Candidate(units=share, epochs=epochs, bits="int8") for share in (0.5, 0.75)]
    found += [Candidate(units=0.5, macs=0.3, epochs=epochs, bits="int8", learn_first=False)]
    if space.single:
        found += [Candidate(weights=share, epochs=2 * epochs) for share in (0.9, 0.95)]
    return found


def neighbours(best: Candidate, space: Space, over: Set[str] = frozenset()) -> Iterator[Candidate]:
    """Yield candidates one step away from the best, the most promising first.

    From one inside the limits: smaller and quicker. From one outside: towards the limit that it misses, and where that
    is the drop, back towards the original.

    Args:
        over: the limits that the best misses, as `outcome.excess` names them.
    """
    more = _step(EPOCHS, best.epochs, 1)
    less = _step(EPOCHS, best.epochs, -1) if best.learns else best.epochs  # long learning takes to heart what few know
    denser, half = (best.tables * step if best.tables > 1 else best.tables for step in (TABLES, TABLES**0.5))
    smaller = (
        replace(best, tables=denser),
        replace(best, tables=denser, epochs=more),
        replace(best, tables=denser, epochs=less),
        replace(best, tables=half),
        replace(best, bits="int8") if best.bits == "float32" else best,
        replace(best, weights=_step(WEIGHTS, best.weights, 1)) if space.single else best,
    )
    quicker = (
        _thinner(best, _step(UNITS, best.units, 1)),
        replace(best, macs=best.macs * MACS),
        replace(best, macs=best.macs * MACS, epochs=more),
    )
    better = (
        replace(best, epochs=more),
        replace(best, epochs=less),
        replace(best, macs=min(best.macs / MACS, 1.0)),
        replace(best, tables=max(best.tables / TABLES, 1.0)),
        replace(best, units=_step(UNITS, best.units, -1)),
        replace(best, learn_first=not best.learn_first),
        replace(best, weights=_step(WEIGHTS, best.weights, -1)),
        *(replace(best, bits=bits) for bits in BITS if bits != best.bits),
    )
    turns = [one for pair in zip_longest(quicker, smaller, fillvalue=best) for one in pair]
    both = replace(best, macs=best.macs * MACS, tables=denser)
    if not over:
        yield from (*turns[:2], both, *turns[2:], *better)
    elif over & {"bytes", "size ratio"}:
        yield from (*(reversed(smaller[:2]) if "drop" in over else smaller[:2]), *smaller[2:], *quicker, both, *better)
    elif over & {"latency", "speed-up"}:
        yield from (*(reversed(quicker[:2]) if "drop" in over else quicker[:2]), *quicker[2:], *smaller, both, *better)
    else:
        yield from (*better, *turns, both)


def next_candidate(
    outcomes: Sequence[Outcome], space: Space, budget: Budget, before: int, test_size: float
) -> Candidate | None:
    """Return an untried step away from the best outcome; None where all were tried."""
    best = best_of(outcomes, budget, before, test_size)
    if best is None:
        return None
    tried = {str(space.candidate(space.params(one.candidate))) for one in outcomes}
    over = {name for name, value in excess(best, budget, before, test_size).items() if value > 0}
    for candidate in (*_fitting(best, budget, before), *neighbours(best.candidate, space, over)):
        held = space.candidate(space.params(candidate))
        if str(held) not in tried:
            return held
    return None


def _fitting(best: Outcome, budget: Budget, before: int) -> Iterator[Candidate]:
    """Yield the best with tables that are smaller by all that it is too large, where tables can be."""
    limit = budget.bytes_within(before)
    if limit is None or best.measured is None or best.measured.bytes <= limit:
        return
    tables = best.measured.table_bytes
    left = tables - (best.measured.bytes - limit)
    if best.candidate.tables > 1 and left > 0:
        yield replace(best.candidate, tables=SPARE * best.candidate.tables * tables / left)


def _thinner(candidate: Candidate, units: float) -> Candidate:
    """Return a candidate with a larger share of its units off; low ranks stay about as they are.

    A layer of rank r takes r for each input and output, and not all of those are units that can go. With the
    multiply-accumulates left as they were, the ranks would rise by what the units save.
    """
    macs = candidate.macs
    if macs < 1:
        macs *= sqrt((1 - units) / (1 - candidate.units))
    return replace(candidate, units=units, macs=macs)


def _step(values: tuple[float, ...], value: float, by: int) -> float:
    place = min(range(len(values)), key=lambda number: abs(values[number] - value))
    return values[min(max(place + by, 0), len(values) - 1)]

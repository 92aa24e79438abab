"""What is tried next: first what is known to pay, then steps away from the best, in turn with what Optuna draws."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from flyweight.planning.budget import Budget
from flyweight.planning.search.candidate import Candidate
from flyweight.planning.search.outcome import Outcome, best_of, is_inside
from flyweight.planning.search.space import BITS, EPOCHS, UNITS, WEIGHTS, Space

#: By how much a step away from the best changes table bytes and multiply-accumulates.
TABLES, MACS = 1.3, 0.6


def first_candidates(space: Space, tables: float, epochs: float) -> list[Candidate]:
    """Return what is tried first: nothing but rewriting, then each method alone on top of it, then all together.

    Args:
        tables: the ratio that the coding of tables reaches alone; 1 where there are none.
        epochs: of learning that there is time for, a few times over.
    """
    coded = Candidate(tables=tables)
    found = [Candidate(), coded] if tables > 1 else [Candidate()]
    if not space.layers:
        return [*found, *([replace(coded, epochs=epochs)] if tables > 1 else [])]
    thin = replace(coded, units=0.875, epochs=epochs)
    if tables > 1:
        found += [replace(thin, macs=0.05, bits="int8"), replace(thin, macs=0.02, bits="int8", tables=1.2 * tables)]
        found += [replace(coded, macs=0.3, bits="int8")]
        return found
    found += [replace(coded, bits="int8"), replace(coded, macs=0.5, bits="int8")]
    found += [replace(coded, units=0.5, epochs=epochs, bits="int8"), replace(thin, macs=0.2, bits="int8")]
    if space.single:
        found += [replace(coded, weights=0.9, epochs=2 * epochs)]
    return found


def neighbours(best: Candidate, space: Space, *, inside: bool) -> Iterator[Candidate]:
    """Yield candidates one step away from the best, the most promising first.

    From one inside the limits: smaller and quicker. From one outside: back towards the original.
    """
    further = (
        replace(best, macs=best.macs * MACS),
        replace(best, tables=best.tables * TABLES) if best.tables > 1 else best,
        replace(best, macs=best.macs * MACS, tables=best.tables * TABLES) if best.tables > 1 else best,
        replace(best, bits="int8") if best.bits == "float32" else best,
        replace(best, units=_step(UNITS, best.units, 1)),
        replace(best, weights=_step(WEIGHTS, best.weights, 1)) if space.single else best,
    )
    back = (
        replace(best, epochs=_step(EPOCHS, best.epochs, 1)),
        replace(best, macs=min(best.macs / MACS, 1.0)),
        replace(best, tables=max(best.tables / TABLES, 1.0)),
        replace(best, units=_step(UNITS, best.units, -1)),
        replace(best, learn_first=not best.learn_first),
        replace(best, weights=_step(WEIGHTS, best.weights, -1)),
        *(replace(best, bits=bits) for bits in BITS if bits != best.bits),
    )
    yield from (*further, *back) if inside else (*back, *further)


def next_candidate(
    outcomes: Sequence[Outcome], space: Space, budget: Budget, before: int, test_size: float
) -> Candidate | None:
    """Return an untried step away from the best outcome; None where all were tried."""
    best = best_of(outcomes, budget, before, test_size)
    if best is None:
        return None
    tried = {str(space.candidate(space.params(one.candidate))) for one in outcomes}
    inside = is_inside(best, budget, before, test_size)
    for candidate in neighbours(best.candidate, space, inside=inside):
        held = space.candidate(space.params(candidate))
        if str(held) not in tried:
            return held
    return None


def _step(values: tuple[float, ...], value: float, by: int) -> float:
    place = min(range(len(values)), key=lambda number: abs(values[number] - value))
    return values[min(max(place + by, 0), len(values) - 1)]

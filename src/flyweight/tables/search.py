"""Finding the choice that meets a byte budget, or the smallest one that stays inside a drop.

Each round expands the damage around the last choice that was tried whole, allocates again and tries again: predictions
steer, trials decide, and every trial is kept for the curve.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from flyweight.tables.allocation import Choice, Damage, Menu, allocate
from flyweight.tables.damage import Anchor, expand, menu_of
from flyweight.tables.kept_damage import kept_damages
from flyweight.tables.trial import Bench, Trial

#: Times the damage is expanded anew around a tried choice for one byte budget.
ROUNDS = 2
#: The ratio tried first, the factor between the next ones, and the precision of the largest feasible one.
FIRST_RATIO = 256
LADDER = 1.5
PRECISION = 1.06
MOST_BUDGETS = 10
#: Times a choice is made anew because what its tables need to be read did not fit beside it.
MOST_REALLOCATIONS = 5


@dataclass
class Search:
    """The trials made so far, and the damage they were chosen by.

    Args:
        bench: what trials are made on.
        tick: called after every trial, for progress.
        keep: the folder that first predictions are kept in, and what says which task they are of.
    """

    bench: Bench
    tick: Callable[[], None] = lambda: None
    trials: list[Trial] = field(default_factory=list)
    keep: "tuple[Path, str] | None" = None

    def __post_init__(self) -> None:
        self.menu: Menu = menu_of(self.bench.items)
        self.start: Choice = self.menu.extreme(largest=True)
        self.overhead = 0.0
        folder, content = self.keep or (None, "")
        self.damages = kept_damages(folder, content, self.menu, self._expand)

    def smallest_bytes(self) -> int:
        """Return the bytes of the smallest choice there is."""
        tables = self.bench.tables_of(self.menu.extreme(largest=False))
        return sum(table.bytes() for table in tables.values())

    def try_bytes(self, budget: float, *, rounds: int = ROUNDS) -> Trial:
        """Return the best of a few trials within a byte budget, expanding the damage around each."""
        best: Trial | None = None
        for turn in range(rounds + 1):
            trial = self._try(budget)
            if best is not None and (trial.choice == best.choice).all():
                break
            if best is None or trial.loss < best.loss:
                best = trial
            if turn < rounds:
                self.damages = self._expand(trial)
        assert best is not None
        return best

    def try_drop(self, max_drop: float, *, precision: float = PRECISION) -> Trial | None:
        """Return the smallest trial that will probably be certified inside `max_drop`; None when none will.

        A ladder of budgets until one holds and one does not, then bisection between the two.

        Args:
            precision: of the bytes found, as a factor.
        """
        floor, ceiling = float(self.smallest_bytes()), self.menu.size(self.menu.extreme(largest=True))
        budget = min(max(self.bench.bytes_before / FIRST_RATIO, floor), ceiling)
        best: Trial | None = None
        failed = 0.0
        for _ in range(MOST_BUDGETS):
            trial = self._try(budget)
            self.damages = self._expand(trial)
            if trial.within(max_drop, self.bench.test_size) and (best is None or trial.table_bytes < best.table_bytes):
                best = trial
            else:
                failed = max(failed, budget)
            if best is None:
                if budget >= ceiling:
                    return None
                budget = min(budget * LADDER * LADDER, ceiling)
            elif best.table_bytes <= max(floor, failed) * precision:
                return best
            else:
                budget = max(best.table_bytes / LADDER, floor) if failed == 0 else (best.table_bytes * failed) ** 0.5
        return best

    def _try(self, budget: float) -> Trial:
        """Allocate a budget by each prediction there is, and return the trial that turned out best.

        The prediction laid at the original is safe far from it; the one laid at the last choice is finer near to it.
        """
        tried: list[Trial] = []
        for damages in self.damages:
            choice, folded = self._allocate(budget, damages)
            if any((choice == other.choice).all() for other in tried):
                continue
            tried.append(self.bench.run(choice, folded))
            self.trials.append(tried[-1])
        self.tick()
        return min(tried, key=lambda trial: trial.loss)

    def _allocate(self, budget: float, damages: tuple[Damage, ...]) -> tuple[Choice, tuple[Choice, ...]]:
        """Allocate a budget on all rows and without each fold; what a table needs to be read counts too."""
        floor = self.menu.size(self.menu.extreme(largest=False))
        for _ in range(MOST_REALLOCATIONS):
            room = max(budget - self.overhead, floor)
            choice, *folded = (allocate(self.menu, damage, room, self.start) for damage in damages)
            size = sum(table.bytes() for table in self.bench.tables_of(choice).values())
            self.overhead = size - self.menu.size(choice)
            if size <= budget or room == floor:
                break
        else:
            choice = self.menu.extreme(largest=False)
        return choice, tuple(folded)

    def _expand(self, *tried: Trial) -> tuple[tuple[Damage, ...], ...]:
        bench = self.bench
        anchors = [Anchor(bench.task.model, bench.fit(bench.before.outputs))]
        anchors += [Anchor(trial.model, trial.calibration, trial.choice) for trial in tried]
        return expand(bench.task, bench.tables, bench.items, tuple(anchors))

"""A task's tables weighed and encoded once, then coded at any size: what a search over whole recipes asks for."""

from dataclasses import dataclass, field

import numpy as np

from flyweight.errors import InputError
from flyweight.tables.encode_tables import FINE_ABOVE
from flyweight.tables.prepare import Weighed, encode_bands, test_size, usable_tables, weigh_rows
from flyweight.tables.record import change_of
from flyweight.tables.search import MOST_BUDGETS, Search
from flyweight.tables.sensitivity import FOLDS, validation_folds
from flyweight.tables.sites import Table
from flyweight.tables.trial import Bench, Trial
from flyweight.task.change import Change, Skipped
from flyweight.task.progress import stage
from flyweight.task.scores import Scores
from flyweight.task.task import Task

#: How precisely the bytes of a coding within a drop are found: a search goes on from there.
COARSE = 1.3
#: Codings that are tried as teachers, as shares of the frugal menu's largest.
TEACHERS = (0.75, 0.4, 0.2)


@dataclass
class TableCoder:
    """The tables of a task, ready to be coded at many sizes; what is the same for all of them is worked out once.

    Args:
        task: whose model's tables are coded, always from the original's rows.
        seed: the same seed gives the same codes.
    """

    task: Task
    seed: int = 0
    _searches: dict[bool, Search] = field(default_factory=dict, init=False)
    _known: dict[float, Trial] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.tables: tuple[Table, ...]
        self.skipped: tuple[Skipped, ...]
        self.tables, self.skipped = usable_tables(self.task)
        self._before: Scores | None = None
        self._weighed: Weighed = {}

    @property
    def bytes(self) -> int:
        """Bytes of the tables as they are."""
        return sum(table.bytes for table in self.tables)

    def smallest(self) -> int:
        """Return the bytes of the smallest coding there is."""
        return self.search(fine=False).smallest_bytes()

    def at(self, ratio: float, *, rounds: int = 1) -> Change:
        """Return the task's model with its tables so many times smaller.

        Args:
            rounds: times the damage is expanded anew around a tried choice.

        Raises:
            InputError: even the smallest coding is larger.
        """
        budget = self.bytes / ratio
        search = self.search(fine=False)
        if ratio in self._known:
            return self._change(self._known[ratio], ratio)
        if budget > FINE_ABOVE * search.menu.size(search.menu.extreme(largest=True)):
            search = self.search(fine=True)
        smallest = search.smallest_bytes()
        if budget < smallest:
            most = self.bytes / smallest
            raise InputError(f"The tables cannot be coded {ratio:,.0f} times smaller; the most is {most:,.0f} times.")
        with stage("Allocating bits and checking on validation data"):
            self._known[ratio] = search.try_bytes(budget, rounds=rounds)
        return self._change(self._known[ratio], ratio)

    def best_teacher(self) -> float:
        """Return the ratio whose coding is better on validation than the original, surely, and the most; 1 for none."""
        search = self.search(fine=False)
        largest = search.menu.size(search.menu.extreme(largest=True))
        best, least = 1.0, 0.0
        for share in TEACHERS:
            budget = max(share * largest, float(search.smallest_bytes()))
            trial = search.try_bytes(budget, rounds=0)
            if trial.drop.high < 0 and trial.drop.value < least:
                best, least = self.bytes / trial.table_bytes, trial.drop.value
                self._known[best] = trial
        return best

    def put(self, choice: tuple[int, ...]) -> float:
        """Try a choice of the frugal menu that was made elsewhere; return the ratio that `at` knows it by."""
        bench = self.search(fine=False).bench
        made = np.array(choice, dtype=np.int64)
        trial = bench.run(made, (made,) * FOLDS)
        ratio = self.bytes / trial.table_bytes
        self._known[ratio] = trial
        return ratio

    def tried(self, ratio: float) -> Trial | None:
        """Return what was tried at exactly this ratio."""
        return self._known.get(ratio)

    def ratio_within(self, max_drop: float) -> float:
        """Return how many times smaller the tables can be coded so that a certificate probably holds; 1 for not at all.

        Args:
            max_drop: the margin for the metric, and for the logloss where outputs are probabilities.
        """
        trial: Trial | None = None
        for fine in (False, True):
            search = self.search(fine=fine)
            with stage("Allocating bits and checking on validation data", total=MOST_BUDGETS) as work:
                search.tick = work.advance
                trial = search.try_drop(max_drop, precision=COARSE)
                search.tick = lambda: None
            if trial is not None:
                ratio = self.bytes / trial.table_bytes
                self._known[ratio] = trial
                return ratio
        return 1.0

    def _change(self, trial: Trial, ratio: float) -> Change:
        """Return the change of a trial."""
        fine = any(trial is one for one in self._searches[True].trials) if True in self._searches else False
        settings = {"ratio": ratio, "seed": self.seed}
        return change_of(self.task, settings, trial, self.search(fine=fine), self.skipped, interrupted=False)

    def search(self, *, fine: bool) -> Search:
        """Return the search over the frugal or the fine menu; made when first asked for."""
        if fine not in self._searches:
            if self._before is None:
                with stage("Weighing rows by use and gradient", seconds=5.0):
                    self._weighed = weigh_rows(self.task, self.tables)
                    self._before = self.task.scores("validation")
            items = encode_bands(self.tables, self._weighed, fine=fine, seed=self.seed)
            folds = validation_folds(self.task).numpy()
            size = test_size(self.task, self._before)
            with stage("Predicting what each coding does", seconds=10.0):
                self._searches[fine] = Search(Bench(self.task, self.tables, items, self._before, folds, size))
        return self._searches[fine]

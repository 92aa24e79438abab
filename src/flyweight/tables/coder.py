"""A task's tables weighed and encoded once, then coded at any size: what a search over whole recipes asks for."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from flyweight.errors import InputError
from flyweight.tables.allocation import Choice
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
#: Ratios of codings that are tried as teachers: few enough bits to forget, enough to know.
TEACHERS = (160.0, 64.0, 32.0)
#: Models kept of codings that were tried; others are built again from their choice when they are asked for.
MOST_TRIED = 4


class Codings(Protocol):
    """Where codings are kept by their ratio, so that the same ratio is the same coding in every sitting."""

    def coding(self, ratio: float) -> dict[str, Any] | None:
        """Return the plain values kept for a ratio; None where there are none."""
        ...

    def note_coding(self, ratio: float, plain: dict[str, Any]) -> dict[str, Any]:
        """Keep plain values for a ratio where none are kept yet; return those that are."""
        ...


@dataclass(frozen=True, eq=False)
class _Known:
    """What was chosen at a ratio: an option of each band, of the fine menu or the frugal one."""

    choice: Choice
    fine: bool


@dataclass(frozen=True, eq=False)
class _Tried:
    """The bench of a trial and that trial alone, as a change is made of them."""

    bench: Bench
    trials: tuple[Trial, ...]


@dataclass
class TableCoder:
    """The tables of a task, ready to be coded at many sizes; what is the same for all of them is worked out once.

    What a ratio is coded as hangs on what was tried before it. So it is chosen once, and kept.

    Args:
        task: whose model's tables are coded, always from the original's rows.
        seed: the same seed gives the same codes.
        keep: the folder that predictions are kept in, and what tells this task from others.
        codings: where choices are kept beyond this process; None keeps them here alone.
    """

    task: Task
    seed: int = 0
    keep: "tuple[Path, str] | None" = None
    codings: Codings | None = None
    _searches: dict[bool, Search] = field(default_factory=dict, init=False)
    _known: dict[float, _Known] = field(default_factory=dict, init=False)
    _trials: dict[float, Trial] = field(default_factory=dict, init=False)

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
        return self._change(self.tried(ratio) or self._try(ratio, rounds), ratio)

    def best_teacher(self) -> float:
        """Return the ratio whose coding is better on validation than the original, surely, and the most; 1 for none."""
        best, least = 1.0, 0.0
        for ratio in TEACHERS:
            if ratio > 0.5 * self.bytes / self.smallest():
                continue
            # Planned twice: what a teacher is better by, its students are better by about half of.
            trial = self.tried(ratio) or self._try(ratio, rounds=1)
            if trial.drop.high < 0 and trial.drop.value < least:
                best, least = ratio, trial.drop.value
            if not best > 1:  # coarser codings forget more: where they do not help, finer ones will not either
                break
        return best

    def put(self, choice: tuple[int, ...], *, fine: bool) -> float:
        """Try a choice that was made elsewhere, of the fine menu or the frugal one; return the ratio it is known by."""
        return self._remember(self._build(_Known(np.array(choice, dtype=np.int64), fine=fine)), fine=fine)

    def tried(self, ratio: float) -> Trial | None:
        """Return what was tried at exactly this ratio, in this sitting or an earlier one."""
        if ratio in self._trials:
            return self._trials[ratio]
        known = self._known.get(ratio) or self._kept(ratio)
        if known is None:
            return None
        self._known[ratio] = known
        with stage("Coding tables as before"):
            self._hold(ratio, self._build(known))
        return self._trials[ratio]

    def search_of(self, ratio: float) -> Search:
        """Return the search over the menu that a known ratio was chosen from; the frugal one where it is not known."""
        return self.search(fine=ratio in self._known and self._known[ratio].fine)

    def ratio_within(self, max_drop: float) -> float:
        """Return how many times smaller the tables can be coded so that a certificate probably holds; 1 for not at all.

        Args:
            max_drop: the margin for the metric, and for the logloss where outputs are probabilities.
        """
        for fine in (False, True):
            search = self.search(fine=fine)
            with stage("Allocating bits and checking on validation data", total=MOST_BUDGETS) as work:
                search.tick = work.advance
                trial = search.try_drop(max_drop, precision=COARSE)
                search.tick = lambda: None
            search.trials.clear()
            if trial is not None:
                return self._remember(trial, fine=fine)
        return 1.0

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
                bench = Bench(self.task, self.tables, items, self._before, folds, size)
                self._searches[fine] = Search(bench, keep=self.keep)
        return self._searches[fine]

    def _try(self, ratio: float, rounds: int) -> Trial:
        """Choose what a ratio is coded as."""
        budget = self.bytes / ratio
        search = self.search(fine=False)
        fine = budget > FINE_ABOVE * search.menu.size(search.menu.extreme(largest=True))
        search = self.search(fine=fine)
        smallest = search.smallest_bytes()
        if budget < smallest:
            most = self.bytes / smallest
            raise InputError(f"The tables cannot be coded {ratio:,.0f} times smaller; the most is {most:,.0f} times.")
        with stage("Allocating bits and checking on validation data"):
            trial = search.try_bytes(budget, rounds=rounds)
        search.trials.clear()
        self._remember(trial, fine=fine, ratio=ratio)
        return self._trials[ratio]

    def _build(self, known: _Known) -> Trial:
        return self.search(fine=known.fine).bench.run(known.choice, (known.choice,) * FOLDS)

    def _remember(self, trial: Trial, *, fine: bool, ratio: float | None = None) -> float:
        """Keep what was chosen, by the ratio asked for, or the one that it came to."""
        ratio = self.bytes / trial.table_bytes if ratio is None else ratio
        known = _Known(trial.choice, fine)
        if self.codings is not None:
            own = {"fine": fine, "bands": self._words(trial.choice, fine=fine)}
            kept = self.codings.note_coding(ratio, own)
            if kept != own:  # another process of the search, or another sitting, was first
                known = self._known_from(kept, ratio)
                trial = self._build(known)
        self._known[ratio] = known
        self._hold(ratio, trial)
        return ratio

    def _hold(self, ratio: float, trial: Trial) -> None:
        self._trials[ratio] = trial
        while len(self._trials) > MOST_TRIED:
            self._trials.pop(next(iter(self._trials)))

    def _words(self, choice: Choice, *, fine: bool) -> list[list[Any]]:
        """Return each band with its coding, in words that outlast a change of the menu."""
        items = self.search(fine=fine).bench.items
        return [
            [item.table, item.start, item.stop, str(item.options[option].coding)]
            for item, option in zip(items, choice, strict=True)
        ]

    def _kept(self, ratio: float) -> _Known | None:
        """Return what an earlier sitting chose at a ratio.

        Raises:
            InputError: it does not fit the tables as they are cut and coded here.
        """
        plain = None if self.codings is None else self.codings.coding(ratio)
        return None if plain is None else self._known_from(plain, ratio)

    def _known_from(self, plain: dict[str, Any], ratio: float) -> _Known:
        """Return a choice from its plain values.

        Raises:
            InputError: it does not fit the tables as they are cut and coded here.
        """
        items = self.search(fine=plain["fine"]).bench.items
        choice = []
        for item, (table, start, stop, words) in zip(items, plain["bands"], strict=False):
            known = [str(option.coding) for option in item.options]
            if [item.table, item.start, item.stop] == [table, start, stop] and words in known:
                choice.append(known.index(words))
        if not len(choice) == len(items) == len(plain["bands"]):
            raise InputError(
                f"The coding of tables {ratio:,.0f}x that the search has kept is of other bands or codings than this "
                "version cuts; search anew in another folder."
            )
        return _Known(np.array(choice, dtype=np.int64), fine=plain["fine"])

    def _change(self, trial: Trial, ratio: float) -> Change:
        """Return the change of a trial."""
        bench = self.search(fine=self._known[ratio].fine).bench
        settings = {"ratio": ratio, "seed": self.seed}
        return change_of(self.task, settings, trial, _Tried(bench, (trial,)), self.skipped, interrupted=False)

"""The search: candidates proposed, tried and kept, until the time or the trials are spent; the best is handed on."""

import os
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace

import optuna

from flyweight.errors import FlyweightError, InputError
from flyweight.planning.budget import Budget
from flyweight.planning.search.candidate import Candidate
from flyweight.planning.search.clock import Clock, clock_from
from flyweight.planning.search.elsewhere import try_elsewhere
from flyweight.planning.search.outcome import Outcome, best_of, excess, is_inside
from flyweight.planning.search.pace import seconds_an_epoch
from flyweight.planning.search.planned import plan_first
from flyweight.planning.search.proposals import first_candidates, next_candidate
from flyweight.planning.search.run_folder import RunFolder
from flyweight.planning.search.run_trial import run_trial
from flyweight.planning.search.space import EPOCHS, Space, find_space
from flyweight.planning.search.study import Trials, kept_outcomes
from flyweight.planning.search.workbench import Workbench
from flyweight.planning.search.workers import working_beside
from flyweight.task.progress import BestSoFar, SearchState, publish
from flyweight.task.runner import Runner

#: Minutes that a search takes where a budget names none.
MINUTES = 10.0
#: The share of the time left that the first learning may take, the most epochs of it, and the most that are ever tried.
#: Half an epoch teaches a ranker more than a whole one (tables 892x on Complete Journey: drop -0.0007, not -0.0003).
LEARNING_SHARE, FIRST_EPOCHS, MOST_EPOCHS = 0.1, 0.5, 16.0
#: Of so many trials one is drawn by Optuna, the others are steps away from the best.
DRAWN = 3
#: Trials in a row without a better best after which a search ends, where no minutes were asked for.
PATIENCE = 12
#: Draws in a row that were all tried before, after which a search ends.
DRAWS = 20


@dataclass(eq=False)
class Found:
    """What a search found.

    Args:
        outcomes: every trial, in order.
        best: the one the budget asks for.
        inside: whether it probably meets every limit.
        stopped: why the search ended, in words.
        seconds: of all sittings.
        turns: (seconds, trial) each time the best changed.
        macs: multiply-accumulates of one row of the original.
        interrupted: whether the user stopped it.
    """

    outcomes: list[Outcome]
    best: Outcome
    inside: bool
    stopped: str
    seconds: float
    turns: list[tuple[float, int]] = field(default_factory=list)
    macs: int = 0
    interrupted: bool = False


@dataclass(frozen=True, eq=False)
class Begun:
    """A trial that was begun: what is tried, and the outcomes so far that are inside every limit."""

    trial: optuna.Trial
    candidate: Candidate
    inside: tuple[Outcome, ...]


@dataclass(eq=False)
class Search:
    """A search under way.

    Args:
        bench: makes and measures candidates.
        budget: the limits.
        folder: where trials are kept.
        test_size: rows (groups, where there are any) of the test split for each one of validation.
        most_trials: None for no limit but time.
        reserve: seconds of the budget's minutes kept for measuring the best.
        workers: processes that try candidates, this one among them.
        begun: when the clock said that the work began, of which the search is a part; None for now.
        runner: makes the trials on other machines; None makes them here.
    """

    bench: Workbench
    budget: Budget
    folder: RunFolder
    test_size: float
    most_trials: int | None = None
    reserve: float = 0.0
    workers: int = 1
    begun: float | None = None
    runner: Runner | None = None

    def run(self) -> Found:
        """Search until time or trials are spent, or the user stops it; return the best.

        Raises:
            InputError: not one candidate could be measured; the reasons of all.
        """
        clock = self._clock()
        self._tell([], clock)
        try:
            return self._searched(clock)
        finally:
            publish(None)

    def _searched(self, clock: Clock) -> Found:
        space = self._space()
        interrupted = False
        with closing(Trials(self.folder, space)) as trials:
            try:
                limits = self.budget.limits()
                # Killed on the way, it proposes what it had not yet; asked for other limits, what those begin with.
                if self.folder.facts().get("proposed") != limits:
                    self._propose_first(trials, space, clock)
                    self.folder.note(proposed=limits)
                stopped = self._with_others(trials, space, clock)
                trials.put_back_all()  # what the others were at
            except KeyboardInterrupt:
                interrupted, stopped = True, "it was interrupted"
                trials.put_back_all()
                if not any(one.state == "done" for one in trials.outcomes()):
                    raise
            outcomes = trials.outcomes()
        self.folder.note(**clock.noted())
        return self._found(outcomes, space, clock, stopped, interrupted=interrupted)

    def _with_others(self, trials: Trials, space: Space, clock: Clock) -> str:
        """Try candidates together with further processes, here or elsewhere; return why it ended."""
        if self.runner is not None:
            return try_elsewhere(self, self.runner, trials, space, clock)
        given = (replace(self, bench=self.bench.bare(), workers=1, begun=None), space, clock.elapsed)
        with working_beside(_join, given, self.workers - 1):
            return self._go_on(trials, space, clock)

    def join(self, space: Space, spent: float) -> None:
        """Try candidates of a search that another process drives, until its time or trials are spent.

        Args:
            space: what can be varied; spent: seconds of the search before now.
        """
        clock = replace(self._clock(), spent=spent)
        with closing(Trials(self.folder, space, seed=os.getpid(), take_up=False)) as trials:
            self._go_on(trials, space, clock)

    def kept(self) -> Found:
        """Return what an earlier search kept, without going on.

        Raises:
            InputError: it measured nothing.
        """
        space = self._space()
        outcomes = kept_outcomes(self.folder.path)
        return self._found(outcomes, space, self._clock(), "one of its trials was picked", interrupted=False)

    def _space(self) -> Space:
        space = find_space(self.bench, MOST_EPOCHS, self.folder.facts().get("teacher"))
        self.folder.note(teacher=space.teacher)
        return space

    def _clock(self) -> Clock:
        minutes = self.budget.max_minutes or MINUTES
        return clock_from(self.folder.facts(), 60 * minutes, self.reserve, self.begun)

    def _propose_first(self, trials: Trials, space: Space, clock: Clock) -> None:
        tables = self._ratio_alone(space) if space.most > 1 else 1.0
        epochs = self._first_epochs(clock) if space.epochs else 0.0
        planned = plan_first(self.bench, tables, epochs) if space.layers and clock.left > 0 else []
        for candidate in first_candidates(space, tables, epochs, planned):
            trials.propose(candidate)

    def _ratio_alone(self, space: Space) -> float:
        """Return how many times smaller coding alone makes the tables within the budget.

        As much as the whole model is to be, at the least: nothing else can be made so small.
        """
        before = self.bench.before.exported.bytes
        most = self.budget.bytes_within(before)
        least = 1.0 if most is None else before / most
        found = 64.0
        if self.budget.max_drop is not None:
            with suppress(FlyweightError):  # a coding that breaks the model; trials will say it
                found = self.bench.coder.ratio_within(self.budget.max_drop)
        return min(max(found, least, 1.0), space.most)

    def _first_epochs(self, clock: Clock) -> float:
        """Return the epochs of a first learning: timed on a few batches, so that it takes a small share of the time."""
        seconds = seconds_an_epoch(self.bench.task)
        clock.saw(epoch=seconds)
        return min(clock.epochs(LEARNING_SHARE), FIRST_EPOCHS)

    def _go_on(self, trials: Trials, space: Space, clock: Clock) -> str:
        """Try one candidate after the other; return why it ended."""
        while True:
            begun = self.next_trial(trials, space, clock)
            if isinstance(begun, str):
                return begun
            try:
                outcome = run_trial(
                    self.bench,
                    begun.trial.number,
                    begun.candidate,
                    macs=space.macs,
                    inside=begun.inside,
                    margin=self.budget.max_drop,
                    clock=clock,
                    learning=self.folder.learning,
                )
            except KeyboardInterrupt:
                trials.put_back(begun.trial)
                raise
            self.end_trial(trials, begun.trial, outcome, clock)

    def next_trial(self, trials: Trials, space: Space, clock: Clock, under_way: int = 0) -> "Begun | str":
        """Begin the next trial and return it, or why the search is over.

        Args:
            under_way: trials that this process has begun and not ended.
        """
        outcomes = trials.outcomes()
        self._tell(outcomes, clock)
        reason = self._over(outcomes, clock, under_way)
        if reason:
            return reason
        before = self.bench.before.exported.bytes
        if not trials.waiting() and len(outcomes) % DRAWN:
            step = next_candidate(outcomes, space, self.budget, before, self.test_size)
            if step is not None:
                trials.propose(step)
        begun = self._begin(trials, outcomes, clock)
        if begun is None:
            return "nothing else was left to try"
        trial, candidate = begun
        self.folder.note(**clock.noted())  # a kill loses the time of the trial under way, no more
        inside = [one for one in outcomes if is_inside(one, self.budget, before, self.test_size)]
        self._tell(outcomes, clock, f"trial {trial.number}: {candidate}")
        return Begun(trial, candidate, tuple(inside))

    def end_trial(self, trials: Trials, trial: optuna.Trial, outcome: Outcome, clock: Clock) -> None:
        """Keep what came of a trial."""
        trials.end(trial, outcome, excess(outcome, self.budget, self.bench.before.exported.bytes, self.test_size))
        self.folder.note(**clock.noted())

    def _begin(
        self, trials: Trials, outcomes: Sequence[Outcome], clock: Clock
    ) -> tuple[optuna.Trial, Candidate] | None:
        """Begin a trial of what was not tried yet; None where that is all there is."""
        tried = {str(one.candidate) for one in outcomes} | {str(one) for one in trials.running()}
        for _ in range(DRAWS):
            trial, candidate = trials.begin()
            candidate = self._that_fits(candidate, clock)
            if str(candidate) not in tried:
                return trial, candidate
            trials.drop(trial)
        return None

    def _tell(self, outcomes: Sequence[Outcome], clock: Clock, running: str = "") -> None:
        """Show where the search stands."""
        best = best_of(outcomes, self.budget, self.bench.before.exported.bytes, self.test_size)
        count = {state: sum(one.state == state for one in outcomes) for state in ("done", "cut", "failed")}
        state = SearchState(
            elapsed=clock.elapsed,
            limit=clock.limit,
            **count,
            running=running,
            finished="" if running or not outcomes else _in_words(outcomes[-1]),
            best=None if best is None else self._best_so_far(best),
            metric=self.bench.task.spec.name,
        )
        publish(state)

    def _best_so_far(self, best: Outcome) -> BestSoFar | None:
        measured = best.measured
        if measured is None:
            return None
        ratio = self.bench.before.exported.bytes / measured.bytes
        return BestSoFar(
            str(best.candidate), measured.bytes, ratio, measured.latency_ms, measured.speedup, best.drop
        )

    def _that_fits(self, candidate: Candidate, clock: Clock) -> Candidate:
        """Return the candidate with no more learning than there is time for."""
        while candidate.learns and clock.expected(candidate) > clock.left:
            fewer = [one for one in EPOCHS if one < candidate.epochs]
            candidate = replace(candidate, epochs=fewer[-1])
        return candidate

    def _over(self, outcomes: Sequence[Outcome], clock: Clock, under_way: int) -> str:
        """Return why the search is over; nothing where it is not."""
        measured = [one for one in outcomes if one.state == "done"]
        if self.most_trials is not None and len(outcomes) + under_way >= self.most_trials:
            return f"its {self.most_trials} trials were made"
        if not measured and len(outcomes) >= PATIENCE:
            return f"none of {len(outcomes)} trials could be measured"
        if measured and clock.left <= clock.expected(Candidate()):
            return f"its {_minutes(clock.limit / 60)} over"
        if self.budget.max_minutes is None and self._stuck(outcomes):
            return f"the last {PATIENCE} trials found nothing better"
        return ""

    def _stuck(self, outcomes: Sequence[Outcome]) -> bool:
        turns = self._turns(outcomes)
        return bool(turns) and sum(one.number > turns[-1][1] for one in outcomes) >= PATIENCE

    def _turns(self, outcomes: Sequence[Outcome]) -> list[tuple[float, int]]:
        """Return when the best changed."""
        turns: list[tuple[float, int]] = []
        before = self.bench.before.exported.bytes
        for place in range(1, len(outcomes) + 1):
            best = best_of(outcomes[:place], self.budget, before, self.test_size)
            if best is not None and (not turns or turns[-1][1] != best.number):
                turns.append((best.started + best.seconds, best.number))
        return turns

    def _found(
        self, outcomes: list[Outcome], space: Space, clock: Clock, stopped: str, *, interrupted: bool
    ) -> Found:
        before = self.bench.before.exported.bytes
        best = best_of(outcomes, self.budget, before, self.test_size)
        if best is None:
            reasons = "; ".join(dict.fromkeys(f"{one.candidate}: {one.reason}" for one in outcomes))
            raise InputError(f"Nothing that was tried could be measured ({reasons[:2000]}).")
        inside = is_inside(best, self.budget, before, self.test_size)
        turns = self._turns(outcomes)
        return Found(outcomes, best, inside, stopped, clock.elapsed, turns, space.macs, interrupted)


def _join(search: Search, space: Space, spent: float) -> None:
    """Be a worker of a search."""
    search.join(space, spent)


def _minutes(minutes: float) -> str:
    return "minute was" if minutes == 1 else f"{minutes:g} minutes were"


def _in_words(outcome: Outcome) -> str:
    """Return a trial that ended with what came of it."""
    if outcome.state != "done" or outcome.measured is None:
        return f"trial {outcome.number}: {outcome.candidate}: {outcome.state}, {outcome.reason}"
    drop = "" if outcome.drop is None else f", drop {outcome.drop.value:+.4f}"
    size = f"{outcome.measured.bytes:,} bytes, {outcome.measured.latency_ms:.3g} ms"
    return f"trial {outcome.number}: {outcome.candidate}: {size}{drop}"

"""The trials of a search in Optuna's database: what was tried survives any kill, and the next try learns from it."""

import json
import math
import os
import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.samplers import BaseSampler, TPESampler
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from flyweight.errors import InputError
from flyweight.planning.search.candidate import Candidate
from flyweight.planning.search.outcome import Outcome, outcome_of
from flyweight.planning.search.run_folder import RunFolder
from flyweight.planning.search.space import Space, quiet_optuna

NAME, OUTCOME, EXCESS, KILLS, FIXED = "search", "outcome", "excess", "kills", "fixed_params"
#: A trial that a process died in so many times is not begun again.
MOST_KILLS = 2
#: Seconds that are waited for another process to let go of the database.
PATIENCE = 60


class Trials:
    """The trials made so far, and those under way.

    Args:
        folder: where the database lies.
        space: what can be varied.
        seed: of what is drawn.
        take_up: end the trials that a process died in, and begin them again.

    Raises:
        InputError: the database cannot be read, here and in whatever is done with the trials later.
    """

    def __init__(self, folder: RunFolder, space: Space, seed: int = 0, *, take_up: bool = True) -> None:
        quiet_optuna()
        self.space, self.path = space, folder.path
        self._storage = _storage(folder.database)
        try:
            self.study = optuna.create_study(
                storage=self._storage, study_name=NAME, directions=["minimize"] * 3, load_if_exists=True
            )
            known = self.study.get_trials(deepcopy=False)
            if folder.facts().get("seconds", 0) and not known:
                raise InputError(f"there are none, but {folder.path / 'run.json'} tells of some")
            _outcomes(known)
            # Taken up again, it must not draw what it drew in the first sitting.
            self.study.sampler = _sampler(seed + len(known))
            if take_up:
                self._take_up()
        except Exception as error:  # whatever SQLAlchemy makes of a damaged file
            self.close()
            raise _unreadable(folder.database, error) from error

    def close(self) -> None:
        """Let go of the database."""
        self._storage.remove_session()
        self._storage.engine.dispose()

    def outcomes(self) -> list[Outcome]:
        """Return what was tried, in order."""
        with self._in_words():
            return _outcomes(self.study.get_trials(deepcopy=False))

    def propose(self, candidate: Candidate) -> None:
        """Try this next, unless it waits or was tried already."""
        with self._in_words():
            self.study.enqueue_trial(self.space.params(candidate), skip_if_exists=True)

    def waiting(self) -> int:
        """Return how many candidates were proposed and are not begun."""
        with self._in_words():
            return len(self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))

    def begin(self) -> tuple[optuna.Trial, Candidate]:
        """Begin a trial: what was proposed first, or what Optuna draws."""
        with self._in_words(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trial = self.study.ask(self.space.distributions())
        return trial, self.space.candidate(trial.params)

    def end(self, trial: optuna.Trial, outcome: Outcome, excess: dict[str, float]) -> None:
        """Keep what came of a trial."""
        with self._in_words():
            trial.set_user_attr(EXCESS, [value if math.isfinite(value) else 1e6 for value in excess.values()])
            trial.set_user_attr(OUTCOME, json.dumps(outcome.plain()))
            self._tell(trial.number, outcome)

    def drop(self, trial: optuna.Trial) -> None:
        """End a trial that is of no use: it was tried before."""
        with self._in_words():
            self.study.tell(trial, state=TrialState.FAIL)

    def put_back(self, trial: optuna.Trial) -> None:
        """End a trial that the user interrupted, to be begun again in the next sitting; it is no death of a process."""
        with self._in_words():
            frozen = self._storage.get_trial(trial._trial_id)
            self._again(frozen, int(frozen.user_attrs.get(KILLS, 0)))
            self.study.tell(trial, state=TrialState.FAIL)

    def put_back_all(self) -> None:
        """End all trials under way, to be begun again in the next sitting."""
        with self._in_words():
            for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                if self._measured(trial):
                    continue
                self._again(trial, int(trial.user_attrs.get(KILLS, 0)))
                self.study.tell(trial.number, state=TrialState.FAIL)

    def running(self) -> list[Candidate]:
        """Return the candidates under way, in whatever process, whose values are all drawn."""
        names = set(self.space.distributions())
        with self._in_words():
            found = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return [self.space.candidate(_params(one)) for one in found if set(_params(one)) == names]

    def _tell(self, number: int, outcome: Outcome) -> None:
        """End a trial whose outcome is kept, for Optuna to learn from."""
        measured, drop = outcome.measured, outcome.drop
        if outcome.state == "done" and measured is not None and drop is not None:
            self.study.tell(number, [math.log(measured.bytes), math.log(measured.latency_ms), drop.value])
        else:
            self.study.tell(number, state=TrialState.FAIL)

    def _take_up(self) -> None:
        """End the trials that a process died in, and begin them again, unless they were its death twice."""
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if self._measured(trial):
                continue
            kills = int(trial.user_attrs.get(KILLS, 0)) + 1
            if kills >= MOST_KILLS:
                reason = f"the process died in it {kills} times (out of memory?)"
                outcome = Outcome(trial.number, self.space.candidate(_params(trial)), "failed", reason)
                self._storage.set_trial_user_attr(trial._trial_id, OUTCOME, json.dumps(outcome.plain()))
            else:
                self._again(trial, kills)
            self.study.tell(trial.number, state=TrialState.FAIL)

    def _measured(self, trial: FrozenTrial) -> bool:
        """End a trial whose outcome was kept, where something came between that and its end; return whether it was."""
        if OUTCOME not in trial.user_attrs:
            return False
        self._tell(trial.number, outcome_of(json.loads(trial.user_attrs[OUTCOME])))
        return True

    def _again(self, trial: FrozenTrial, kills: int) -> None:
        """Propose a trial again, if all of its values had been written; once, whenever the process dies."""
        params = _params(trial)
        waiting = self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        known = any(one.system_attrs.get(FIXED) == params and KILLS in one.user_attrs for one in waiting)
        if set(params) == set(self.space.distributions()) and not known:
            self.study.enqueue_trial(params, user_attrs={KILLS: kills})

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        try:
            yield
        except (SQLAlchemyError, StorageInternalError, sqlite3.Error) as error:
            raise InputError(
                f"The trials in {self.path} can no longer be kept ({_cause(error)}). What was tried until now is safe: "
                "free space, or mend what is wrong, and begin again; it goes on from there."
            ) from error


def kept_outcomes(path: Path) -> list[Outcome]:
    """Return every trial of the search kept in a folder, in order.

    Raises:
        InputError: there is no database, or it cannot be read.
    """
    database = RunFolder(path).database
    if not database.exists():
        raise InputError(f"{path} holds no trials: there is no {database.name} in it.")
    quiet_optuna()
    storage = _storage(database)
    try:
        names = optuna.get_all_study_names(storage)
        if NAME not in names:  # the process died before the first trial
            return []
        return _outcomes(optuna.load_study(study_name=NAME, storage=storage).get_trials(deepcopy=False))
    except Exception as error:  # whatever SQLAlchemy makes of a damaged file
        raise _unreadable(database, error) from error
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _storage(database: Path) -> RDBStorage:
    """Open a database.

    Raises:
        InputError: it cannot be read.
    """

    def connect() -> sqlite3.Connection:  # by its path: in an address, some characters of a path mean something else
        if not os.access(database.parent, os.W_OK):
            address = f"{database.resolve().as_uri()}?immutable=1"
            return sqlite3.connect(address, uri=True, check_same_thread=False)
        connection = sqlite3.connect(database, timeout=PATIENCE, check_same_thread=False)
        # A trial is twenty transactions. Written ahead, none waits for the disk; a kill loses none, and a power failure
        # the last ones at most.
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        return connection

    try:
        with closing(connect()) as connection:  # what is read later may lie behind a hole that no query meets before
            (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise InputError(found)
        return RDBStorage("sqlite:///trials.db", engine_kwargs={"creator": connect})
    except Exception as error:  # whatever SQLAlchemy makes of a damaged file
        raise _unreadable(database, error) from error


def _unreadable(database: Path, error: Exception) -> InputError:
    return InputError(
        f"The trials in {database} cannot be read ({_cause(error)}); remove the folder {database.parent} "
        "to search anew."
    )


def _cause(error: BaseException) -> str:
    """Return what is at the bottom of an error, in words."""
    while (below := getattr(error, "orig", None) or error.__cause__) is not None:
        error = below
    return str(error) or type(error).__name__


def _outcomes(trials: list[FrozenTrial]) -> list[Outcome]:
    return [outcome_of(json.loads(one.user_attrs[OUTCOME])) for one in trials if OUTCOME in one.user_attrs]


def _params(trial: FrozenTrial) -> dict[str, Any]:
    """Return a trial's values, those that it was to have where the process died before all were written."""
    return {**trial.system_attrs.get(FIXED, {}), **trial.params}


def _sampler(seed: int) -> BaseSampler:
    """Return what draws candidates: a tree of Parzen estimators over all knobs together, inside the limits first."""

    def excess(trial: FrozenTrial) -> Any:
        return trial.user_attrs.get(EXCESS, [1e6])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return TPESampler(seed=seed, multivariate=True, n_startup_trials=8, constraints_func=excess)

"""The trials of a search in Optuna's database: what was tried survives any kill, and the next try learns from it."""

import json
import math
import warnings
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import BaseSampler, TPESampler
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from flyweight.errors import InputError
from flyweight.planning.search.candidate import Candidate
from flyweight.planning.search.outcome import Outcome, outcome_of
from flyweight.planning.search.run_folder import RunFolder
from flyweight.planning.search.space import Space, quiet_optuna

NAME, OUTCOME, EXCESS, KILLS = "search", "outcome", "excess", "kills"
#: A trial that a process died in so many times is not begun again.
MOST_KILLS = 2


class Trials:
    """The trials made so far, and those under way.

    Args:
        folder: where the database lies.
        space: what can be varied.
        seed: of what is drawn.
        take_up: end the trials that a process died in, and begin them again.
    """

    def __init__(self, folder: RunFolder, space: Space, seed: int = 0, *, take_up: bool = True) -> None:
        quiet_optuna()
        self.space = space
        try:
            storage = RDBStorage(f"sqlite:///{folder.database}", engine_kwargs={"connect_args": {"timeout": 60}})
            self.study = optuna.create_study(
                storage=storage, study_name=NAME, directions=["minimize"] * 3, load_if_exists=True
            )
            # Taken up again, it must not draw what it drew in the first sitting.
            self.study.sampler = _sampler(seed + len(self.study.get_trials(deepcopy=False)))
        except Exception as error:  # whatever SQLAlchemy makes of a damaged file
            raise InputError(
                f"The trials in {folder.database} cannot be read ({type(error).__name__}); remove the folder "
                f"{folder.path} to search anew."
            ) from error
        if take_up:
            self._take_up()

    def outcomes(self) -> list[Outcome]:
        """Return what was tried, in order."""
        found = [one.user_attrs.get(OUTCOME) for one in self.study.get_trials(deepcopy=False)]
        return [outcome_of(json.loads(text)) for text in found if text is not None]

    def propose(self, candidate: Candidate) -> None:
        """Try this next."""
        self.study.enqueue_trial(self.space.params(candidate))

    def waiting(self) -> int:
        """Return how many candidates were proposed and are not begun."""
        return len(self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))

    def begin(self) -> tuple[optuna.Trial, Candidate]:
        """Begin a trial: what was proposed first, or what Optuna draws."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trial = self.study.ask(self.space.distributions())
        return trial, self.space.candidate(trial.params)

    def end(self, trial: optuna.Trial, outcome: Outcome, excess: dict[str, float]) -> None:
        """Keep what came of a trial."""
        measured, drop = outcome.measured, outcome.drop
        trial.set_user_attr(EXCESS, [value if math.isfinite(value) else 1e6 for value in excess.values()])
        trial.set_user_attr(OUTCOME, json.dumps(outcome.plain()))
        if outcome.state == "done" and measured is not None and drop is not None:
            self.study.tell(trial, [math.log(measured.bytes), math.log(measured.latency_ms), drop.value])
        else:
            self.study.tell(trial, state=TrialState.FAIL)

    def _take_up(self) -> None:
        """End the trials that a process died in, and begin them again, unless they were its death twice."""
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            kills = int(trial.user_attrs.get(KILLS, 0)) + 1
            storage = self.study._storage
            if kills >= MOST_KILLS:
                reason = f"the process died in it {kills} times (out of memory?)"
                outcome = Outcome(trial.number, self.space.candidate(trial.params), "failed", reason)
                storage.set_trial_user_attr(trial._trial_id, OUTCOME, json.dumps(outcome.plain()))
            elif self._whole(trial):
                self.study.enqueue_trial(trial.params, user_attrs={KILLS: kills})
            storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)

    def _whole(self, trial: FrozenTrial) -> bool:
        """Whether all of a trial's values had been written when the process died."""
        return set(trial.params) == set(self.space.distributions())


def kept_outcomes(path: Path) -> list[Outcome]:
    """Return every trial of the search kept in a folder, in order.

    Raises:
        InputError: there is no database, or it cannot be read.
    """
    database = RunFolder(path).database
    if not database.exists():
        raise InputError(f"{path} holds no trials: there is no {database.name} in it.")
    quiet_optuna()
    try:
        trials = optuna.load_study(study_name=NAME, storage=f"sqlite:///{database}").get_trials(deepcopy=False)
    except Exception as error:  # whatever SQLAlchemy makes of a damaged file
        raise InputError(f"The trials in {database} cannot be read ({type(error).__name__}).") from error
    return [outcome_of(json.loads(one.user_attrs[OUTCOME])) for one in trials if OUTCOME in one.user_attrs]


def _sampler(seed: int) -> BaseSampler:
    """Return what draws candidates: a tree of Parzen estimators over all knobs together, inside the limits first."""

    def excess(trial: FrozenTrial) -> Any:
        return trial.user_attrs.get(EXCESS, [1e6])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return TPESampler(seed=seed, multivariate=True, n_startup_trials=8, constraints_func=excess)

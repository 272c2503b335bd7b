"""The study of a search: Optuna decides in memory, and each change is then written into a file.

So a trial is in the file whole, with all of its parameters, or not at all, and the file says at any time how to go on.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from warnings import catch_warnings

import optuna
from optuna.exceptions import StorageInternalError
from optuna.pruners import BasePruner
from optuna.samplers import RandomSampler
from optuna.storages import InMemoryStorage, RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from experiments.config import RunFailed
from experiments.config.objective import recorded_goals
from experiments.sweeps.search.objective import candidates
from experiments.sweeps.search.samplers import Sampling
from experiments.sweeps.search.space import Space

FILE = "study.sqlite"
NAME = "search"  # the same in each search: Hyperband sorts trials into brackets by it
SAMPLED = "sampled"  # a user attribute of a trial: what samplers had noted of the study and of the trial when it began
optuna.logging.set_verbosity(optuna.logging.ERROR)
Direction = Literal["maximize", "minimize"]


class Study:
    """The trials of a search.

    Args:
        directions: ``maximize`` or ``minimize``, for each objective.
        sampling: Gives the sampler of each trial.
        pruner: Says which trials are stopped.

    Attributes:
        optuna: The same as Optuna has it, in memory.
        file: The file; None before it is opened.
        exhausted: Whether the sampler has no more points.
    """

    def __init__(self, directions: Sequence[Direction], sampling: Sampling, pruner: BasePruner) -> None:
        self._directions, self._sampling = list(directions), sampling
        self._memory = InMemoryStorage()
        self.optuna = optuna.create_study(
            storage=self._memory, pruner=pruner, study_name=NAME, directions=self._directions
        )
        self._id = self._memory.get_study_id_from_name(NAME)
        self._running = dict[int, Trial]()
        self._before = dict[int, dict[int, float]]()  # by trial, what it had reported before an interruption
        self._stopped = dict[int, int]()  # by trial, the epoch after which it is stopped
        self.file: Path | None = None
        self.exhausted = False

    def open(self, file: Path, described: Mapping[str, Any]) -> None:
        """Begin a file, or go on with one.

        Args:
            file: An SQLite database.
            described: What is searched, see `describe`.

        Raises:
            RunFailed: The file cannot be written.
        """
        with _writing(file):
            if not file.is_file():
                self._create(file, described)
            self._stored = RDBStorage(f"sqlite:///{file}")
            self._stored_id = self._stored.get_study_id_from_name(NAME)
            self.file = file
            for trial in self._stored.get_all_trials(self._stored_id):
                self._load(trial)

    def load(self, folder: Path | None) -> None:
        """Read the trials of a study in a folder, if there is one; it stays as it is."""
        if folder:
            with opened(folder / FILE) as storage:
                for trial in storage.get_all_trials(storage.get_study_id_from_name(NAME)):
                    self._load(trial)

    def _create(self, file: Path, described: Mapping[str, Any]) -> None:
        """Make the file, which is whole when it gets its name."""
        unfinished = file.with_suffix(".unfinished")
        unfinished.unlink(missing_ok=True)
        with opened(unfinished, new=True) as storage:
            study = optuna.create_study(storage=storage, study_name=NAME, directions=self._directions)
            with catch_warnings(action="ignore"):  # it is said to be experimental
                study.set_metric_names([goal.name for goal in recorded_goals(described["objective"])])
            for key, value in described.items():
                study.set_user_attr(key, value)
        unfinished.replace(file)

    def _load(self, trial: FrozenTrial) -> None:
        """Take over a trial of the file. One that was under way has reported nothing yet: it repeats its epochs."""
        sampled = trial.user_attrs.get(SAMPLED, {"study": {}, "trial": []})
        if not trial.state.is_finished():
            self._before[trial.number], trial.intermediate_values = trial.intermediate_values, {}
            trial.system_attrs = {key: trial.system_attrs[key] for key in sampled["trial"]}
        self._memory.create_new_trial(self._id, template_trial=trial)
        for key, value in sampled["study"].items():
            self._memory.set_study_system_attr(self._id, key, value)
        if not trial.state.is_finished():
            self.optuna.sampler = self._sampling(trial.number)
            self._running[trial.number] = Trial(self.optuna, _id_of(self._memory, self._id, trial.number))

    @property
    def trials(self) -> list[FrozenTrial]:
        """All trials, by their numbers."""
        return self.optuna.get_trials(deepcopy=False)

    def ask(self, space: Space, *, at_random: bool = False) -> tuple[int, list[str]]:
        """Begin a trial; return its number and its overrides."""
        number = len(self.trials)
        self.optuna.sampler = RandomSampler(seed=number) if at_random else self._sampling(number)
        asked = self._running[number] = self.optuna.ask()
        overrides = space.draw(asked)
        trial = self.optuna.get_trials()[number]
        noted = {"study": self._memory.get_study_system_attrs(self._id), "trial": list(trial.system_attrs)}
        trial.user_attrs = {**trial.user_attrs, SAMPLED: noted}
        with _writing(self.file):
            self._stored.create_new_trial(self._stored_id, template_trial=trial)
        return number, overrides

    def report(self, number: int, epoch: int, value: float) -> bool:
        """Report an epoch of a trial; return whether to stop it. An epoch that is repeated gets the same answer."""
        last = self.trials[number].last_step
        if last is not None and epoch <= last:
            return self._stopped.get(number) == epoch
        trial = self._running[number]
        trial.report(value, epoch)
        with _writing(self.file):
            self._stored.set_trial_intermediate_value(_id_of(self._stored, self._stored_id, number), epoch, value)
        if trial.should_prune():
            self._stopped[number] = epoch
        return self._stopped.get(number) == epoch

    def repeat(self, number: int) -> None:
        """Report again what a trial had reported before an interruption, as its run had ended and is not repeated."""
        for epoch, value in sorted(self._before.pop(number, {}).items()):
            self.report(number, epoch, value)

    def tell(
        self,
        number: int,
        state: TrialState,
        noted: Mapping[str, Any],
        values: Sequence[float] | None = None,
        excess: Mapping[str, float] | None = None,
    ) -> None:
        """End a trial.

        Args:
            number: Of the trial.
            state: COMPLETE, PRUNED or FAIL.
            noted: What is to be known of it: user attributes.
            values: Of the objectives, if it is COMPLETE.
            excess: By how much it exceeds each constraint.
        """
        trial = self._running.pop(number)
        self.optuna.sampler = self._sampling(number)
        for key, each in noted.items():
            trial.set_user_attr(key, each)
        for key, by in (excess or {}).items():
            trial.set_constraint(key, by)
        try:
            self.optuna.tell(number, values, state=state)
        except RuntimeError as error:  # the sampler has no more points; Optuna has recorded the trial before it raises
            if "Study.stop" not in str(error):
                raise
            self.exhausted = True
        ended, file = self.trials[number], self._stored
        with _writing(self.file):
            own = _id_of(file, self._stored_id, number)
            for key, each in noted.items():
                file.set_trial_user_attr(own, key, each)
            for key, each in ended.system_attrs.items():
                file.set_trial_system_attr(own, key, each)
            file.set_trial_state_values(own, state, ended.values)

    @property
    def best(self) -> list[FrozenTrial]:
        """The best trial of those with the most seeds; with several objectives, the whole Pareto front."""
        sign = -1 if self._directions[0] == "maximize" else 1
        if len(self._directions) > 1:
            return sorted(self.optuna.best_trials, key=lambda trial: sign * trial.values[0])
        return sorted(candidates(self.trials), key=lambda trial: sign * trial.values[0])[:1]

    def close(self) -> None:
        """Close the file, if it was opened."""
        if self.file:
            _close(self._stored)


@contextmanager
def opened(file: Path, *, new: bool = False) -> Iterator[RDBStorage]:
    """A study's file, closed at the end."""
    storage = RDBStorage(f"sqlite:///{file}", skip_compatibility_check=True, skip_table_creation=not new)
    try:
        if (found := storage.get_current_version()) != (wanted := storage.get_head_version()):
            raise ValueError(f"its version is {found}, that of this Optuna {wanted}")  # Optuna's check leaves it open
        yield storage
    finally:
        _close(storage)


def _close(storage: RDBStorage) -> None:
    storage.remove_session()
    storage.engine.dispose()


def _id_of(storage: Any, study: int, number: int) -> int:
    return int(storage.get_trial_id_from_study_id_trial_number(study, number))


@contextmanager
def _writing(file: Path | None) -> Iterator[None]:
    """Say in one line why the file cannot be written."""
    try:
        yield
    except (SQLAlchemyError, StorageInternalError, OSError) as error:
        cause = error.__cause__ or error
        why = str(getattr(cause, "orig", None) or cause).splitlines()[0]
        raise RunFailed(f"{file} cannot be written: {why}; the same command with resume=true goes on") from error

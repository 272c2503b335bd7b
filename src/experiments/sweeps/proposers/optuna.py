"""Proposes trials: each is chosen from the results of those before, and may be stopped early."""

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from hydra.core.config_loader import ConfigLoader
from optuna.trial import FrozenTrial, TrialState

from experiments.config import Refused
from experiments.config.objective import excess
from experiments.data import Outlines
from experiments.sweeps.jobs import Job, Outcome, identify
from experiments.sweeps.proposers import Proposer
from experiments.sweeps.search.files import files, import_pictures
from experiments.sweeps.search.objective import is_in_better_half, same_goals, values_of
from experiments.sweeps.search.parsing import check_corners, parse
from experiments.sweeps.search.plan import describe, ended, in_words, latest_same, progress, remarks
from experiments.sweeps.search.pruners import Off
from experiments.sweeps.search.settings import Settings
from experiments.sweeps.search.space import Space
from experiments.sweeps.search.study import FILE, Direction, Study
from experiments.sweeps.search.trial import Trial
from experiments.tracking.summary import CONSTRAINTS

CANNOT_RUN = "cannot run"  # the user attribute of a trial whose config was refused, so that it has no run
REPEATS = 10  # trials in a row that repeat earlier ones, after which the next ones are drawn at random
MOST_REPEATS = 1000  # the same, after which a search ends
# The first words of overrides that do not decide which earlier search a command resumes.
FREE = ("hydra", "objective", "resume", "trust", "tracking")


class Search(Proposer):
    """Proposes the trials of a search.

    Args:
        settings: Of the search.
        space: What to choose from.
        prepare: Composes and checks jobs.
    """

    follows_results = True
    unit = "trials"
    tolerates_failures = True

    def __init__(self, settings: Settings, space: Space, prepare: Callable[..., list[Job]]) -> None:
        jobs = check_corners(space, prepare)
        swept = {dimension.name: dimension.text for dimension in space.all()}
        super().__init__(jobs, space.fixed, swept, settings.n_trials)
        self.reuses, self.runs_each = settings.reuse, len(settings.seeds) or 1
        self._settings, self._space, self._prepare = settings, space, prepare
        self._limits = settings.constraints or {}
        self.tags = {CONSTRAINTS: json.dumps(self._limits)} if self._limits else {}
        self._prunes = not isinstance(settings.pruner, Off)
        self._goals = same_goals(self.jobs, self._limits, prunes=self._prunes, several_seeds=len(settings.seeds) > 1)
        self._study = self._new_study()
        self._seeds = [f"seed={seed}" for seed in settings.seeds] or [""]
        self._trials = dict[int, Trial]()  # under way
        self._equal = list[Trial]()  # to one that is under way, which will answer for them
        self._points = set[tuple[str, ...]]()  # that were tried
        self._in_a_row = 0  # trials that repeat earlier ones
        self._deadline, self._outlines = float("inf"), Outlines()

    def _new_study(self) -> Study:
        settings, epochs = self._settings, max(job.config.epochs for job in self.jobs)
        directions: list[Direction] = ["minimize" if goal.lower_is_better else "maximize" for goal in self._goals]
        return Study(directions, settings.sampler.build(self._space, settings.seed), settings.pruner.build(epochs))

    @property
    def identity(self) -> Sequence[str]:
        """The overrides of all trials, but for those that say how the search is carried out, or are compared later."""
        return ["search", *(text for text in self.overrides if not text.lstrip("+").startswith(FREE))]

    def goes_on_with(self, folders: Sequence[Path]) -> Path | None:
        """The latest of the earlier searches that is the same."""
        return latest_same(folders, self._described(), self._space, self._new_study, self._settings)

    def _described(self) -> dict[str, Any]:
        return describe(self._space, self._goals, self._settings, self.jobs[0].fingerprint)

    def begin(self, folder: Path) -> list[Job]:
        """Open the study. Trials of an earlier one count; those that were under way go on."""
        self._deadline = time.monotonic() + (self._settings.timeout or float("inf"))
        folder.mkdir(parents=True, exist_ok=True)
        self._study.open(folder / FILE, self._described())
        import_pictures(self._settings.n_trials)
        past = list[Job]()
        for found in self._study.trials:
            overrides = self._space.of(found.params)
            self._points.add(tuple(overrides))
            has_result = found.state in (TrialState.COMPLETE, TrialState.PRUNED) and not found.user_attrs.get("repeats")
            self._in_a_row = 0 if has_result else self._in_a_row + 1
            if CANNOT_RUN in found.user_attrs:
                continue
            trial = Trial(found.number, self._jobs_of(found.number, overrides))
            if found.state.is_finished():
                past += trial.jobs[: found.user_attrs.get("runs", len(found.user_attrs.get("values", [0])))]
            else:
                self._trials[found.number] = trial
        self._count()
        return past

    def plan(self, folder: Path | None) -> list[str]:
        """The space, and how it is searched."""
        self._study.load(folder)
        self._count()
        return in_words(self._space, self._settings, self._goals)

    @property
    def most_runs(self) -> int:
        """The largest number of runs that are left: a finite space may have fewer than `total`."""
        trials = self._settings.n_trials - self.done
        if self._space.size is not None:
            tried = {tuple(self._space.of(each.params)) for each in self._study.trials if each.state.is_finished()}
            trials = min(trials, self._space.size - len(tried))
        return max(trials, 0) * self.runs_each

    @property
    def progress(self) -> str:
        """How many trials have ended, and go on."""
        return progress(self._study.trials, self.done, self.total)

    @property
    def remarks(self) -> Sequence[str]:
        """Why there are fewer results than expected."""
        late = self._settings.timeout if self._is_late else None
        return remarks(self._study.trials, self.done, self.total or 0, late)

    @property
    def _is_late(self) -> bool:
        return time.monotonic() > self._deadline

    def _jobs_of(self, number: int, overrides: Sequence[str]) -> list[Job]:
        """The jobs of a trial, one for each seed."""
        listed = [[*overrides, seed] if seed else list(overrides) for seed in self._seeds]
        jobs = identify(self._prepare(listed, first=number * len(listed), common=self._space.fixed), self._outlines)
        tags = {"trial": str(number), **self.tags}
        jobs = [replace(job, tags=tags, reuses=self.reuses) for job in jobs]
        return [replace(job, asks=self._prunes and place == 0) for place, job in enumerate(jobs)]

    def next(self) -> Job | None:
        """The next seed of a trial under way, else a new trial."""
        for trial in self._trials.values():
            if not trial.is_busy:
                trial.is_busy = True
                return trial.next_job
        while not self._is_over():
            if new := self._ask():
                new.is_busy = True
                return new.next_job
        if not self._trials and not self._is_late:
            self.total = self.done  # there is no more to try
        return None

    def _is_over(self) -> bool:
        enough = self.done + len(self._trials) + len(self._equal) >= self._settings.n_trials
        tried = self._study.exhausted or (self._space.size is not None and len(self._points) >= self._space.size)
        return enough or tried or self._is_late or self._in_a_row >= MOST_REPEATS

    def _ask(self) -> Trial | None:
        """A new trial; None: it cannot run, or repeats one that is under way."""
        at_random = self._in_a_row >= REPEATS and not self._settings.sampler.lists_all
        number, overrides = self._study.ask(self._space, at_random=at_random)
        self._points.add(tuple(overrides))
        self._in_a_row += 1
        try:
            trial = Trial(number, self._jobs_of(number, overrides))
        except Refused as refused:
            print(f"trial {number} cannot run: {refused.reason}", file=sys.stderr)
            self._end(number, TrialState.FAIL, {"failure": refused.reason, CANNOT_RUN: True})
            return None
        if trial.jobs[0].fingerprint in {each.jobs[0].fingerprint for each in self._trials.values()}:
            self._equal.append(trial)
            return None
        self._trials[number] = trial
        return trial

    def epoch(self, job: Job, number: int, metrics: Mapping[str, float]) -> bool:
        """Report an epoch to the pruner; its answer is whether to stop."""
        value = metrics.get(self._goals[0].name)
        return job.asks and value is not None and self._study.report(int(job.tags["trial"]), number, value)

    def tell(self, job: Job, outcome: Outcome) -> None:
        """End a trial, or have its next seed run."""
        trial = self._trials[int(job.tags["trial"])]
        trial.is_busy = False
        trial.repeats = outcome.repeats if trial.repeats or not trial.values else ""
        if outcome.objective is not None and not outcome.repeats:
            self._in_a_row = 0
        if not trial.values:
            self._study.repeat(trial.number)
        if (values := values_of(outcome, self._goals)) is None:
            why = outcome.reason or "it recorded no costs"
            self._end(trial.number, TrialState.FAIL, {"failure": why, "runs": len(trial.values) + 1})
        elif outcome.pruned:
            self._end(trial.number, TrialState.PRUNED, {"pruned": outcome.pruned})
        else:
            trial.values.append(values)
            if len(trial.values) == len(trial.jobs) or not self._is_promising(trial):
                noted = {"values": trial.values, "repeats": trial.repeats}
                means = [fmean(each) for each in zip(*trial.values, strict=True)]
                self._end(trial.number, TrialState.COMPLETE, noted, means, excess(self._limits, outcome.measures))

    def _end(self, number: int, state: TrialState, noted: Mapping[str, Any], *measured: Any) -> None:
        self._study.tell(number, state, noted, *measured)
        self._count()
        if gone := self._trials.pop(number, None):
            for trial in [each for each in self._equal if each.jobs[0].fingerprint == gone.jobs[0].fingerprint]:
                self._equal.remove(trial)
                self._trials[trial.number] = trial

    def _count(self) -> None:
        self.done = ended(self._study.trials, self._settings)

    def _is_promising(self, trial: Trial) -> bool:
        """Whether a config is worth another seed."""
        if self._settings.seeds_for == "all" or len(self._goals) > 1:
            return True
        others = [values for each in self._study.trials if (values := each.user_attrs.get("values"))]
        others += [each.values for each in self._trials.values() if each is not trial]
        return is_in_better_half(trial.values, others, self._goals[0])

    def files(self) -> Mapping[str, bytes | str]:
        """The study, the best configs as presets, and pictures."""
        if not self._study.file or not self.jobs[0].config.tracking.enabled:
            return {}
        return files(self._study, self._goals, self._first_job)

    def _first_job(self, trial: FrozenTrial) -> Job:
        return self._jobs_of(trial.number, self._space.of(trial.params))[0]

    def close(self) -> None:
        """Close the study's file, if it was opened."""
        self._study.close()


def propose(
    settings: Settings, overrides: Sequence[str], loader: ConfigLoader, prepare: Callable[..., list[Job]]
) -> Search:
    """Read the space, and check its corners.

    Raises:
        Refused: They cannot run, or cannot be searched.
    """
    return Search(settings, parse(overrides, settings.params or {}, loader), prepare)

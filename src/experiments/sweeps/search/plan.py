"""A search in words: what it chooses from and how, and how far it is; and the earlier one that it goes on with."""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from optuna.distributions import distribution_to_json
from optuna.trial import FrozenTrial, TrialState
from pydantic import BaseModel

from experiments.config import Problem, Refused
from experiments.config.objective import Goal, written
from experiments.sweeps.search.objective import is_feasible
from experiments.sweeps.search.settings import Settings
from experiments.sweeps.search.space import Space
from experiments.sweeps.search.study import FILE, NAME, Study, opened


def in_words(space: Space, settings: Settings, goals: Sequence[Goal]) -> list[str]:
    """Describe a search before it begins."""
    points = "infinitely many points" if space.size is None else f"{space.size} point{'s' * (space.size != 1)}"
    which = "each" if settings.seeds_for == "all" else "the better half"
    seeds = f", {which} run with the seeds {', '.join(map(str, settings.seeds))}" if settings.seeds else ""
    texts = {dimension.name: dimension.text for dimension in space.all()}
    width = max(map(len, texts), default=0)
    wanted = " and ".join(f"the {'lowest' if goal.lower_is_better else 'highest'} {goal.name}" for goal in goals)
    lines = [f"a space of {points}{seeds}:", *(f"  {name:{width}}  {text}" for name, text in texts.items())]
    lines += [f"at most {limit:g} {name}" for name, limit in (settings.constraints or {}).items()]
    lines.append(f"sampler {settings.sampler.name}, pruner {settings.pruner.name}, for {wanted}")
    return [*lines, *["a config that has finished before is not run again, and not counted"] * settings.reuse]


def progress(trials: Sequence[FrozenTrial], done: int, total: int | None) -> str:
    """Say how far a search is that goes on.

    Args:
        trials: All of the study.
        done: How many of them count and have ended.
        total: How many are to do so.
    """
    if not trials:
        return "resume: no earlier search of this command: it begins anew"
    under_way = sum(not trial.state.is_finished() for trial in trials)
    return f"resume: {done} of {total} trials have ended, {under_way} {'goes' if under_way == 1 else 'go'} on"


def ended(trials: Sequence[FrozenTrial], settings: Settings) -> int:
    """How many trials count toward the total, and have ended."""
    failed = sum(trial.state == TrialState.FAIL for trial in trials)
    ran = sum(trial.state.is_finished() and not trial.user_attrs.get("repeats") for trial in trials) - failed
    return ran + failed * settings.count_failed


def remarks(trials: Sequence[FrozenTrial], done: int, total: int, late: float | None) -> list[str]:
    """Say why a search that has ended has fewer results than expected.

    Args:
        trials: All of the study.
        done: How many of them count and have ended.
        total: How many could have done so.
        late: The timeout in seconds, if it is over.
    """
    found = list[str]()
    if late and done < total:
        after = f"hydra.sweeper.timeout={late:g} was over after {done} of {total} trials"
        found.append(f"{after}; the same command with resume=true goes on")
    finished = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    if finished and not any(map(is_feasible, finished)):
        found.append("no trial keeps hydra.sweeper.constraints, so none is the best")
    return found


def latest_same(
    folders: Sequence[Path],
    search: Mapping[str, Any],
    space: Space,
    new_study: Callable[[], Study],
    settings: Settings,
) -> Path | None:
    """The first folder with the study of a search that is the same; None: none has any study.

    Raises:
        Refused: All of those searches were others, or had more trials.
    """
    refused = None
    for file in (folder / FILE for folder in folders if (folder / FILE).is_file()):
        try:
            if not (problems := differences(file, search)):
                trials = _checked(file, space, new_study())
                under_way = sum(not trial.state.is_finished() for trial in trials)
                count = ended(trials, settings) + under_way
                if count > settings.n_trials:
                    which = f"have ended, or go on ({under_way})" if under_way else "have ended"
                    what = f"got {settings.n_trials}, but {count} trials of this search {which}"
                    raise Refused(Problem("hydra.sweeper.n_trials", what, f"hydra.sweeper.n_trials={count}"))
                return file.parent
            refused = refused or Refused([replace(problem, remedy="resume=false") for problem in problems])
        except Refused as error:
            refused = refused or error
    if refused:
        raise refused
    return None


class _Noted(BaseModel):
    """What a search has noted of a trial."""

    values: list[list[float]] = []
    repeats: str = ""
    pruned: int = 0
    runs: int = 1


def _checked(file: Path, space: Space, study: Study) -> Sequence[FrozenTrial]:
    """The trials of a study's file, which anybody may have written.

    Raises:
        Refused: They cannot be of this search.
    """
    dimensions = {dimension.name: dimension for dimension in space.all()}
    try:
        study.load(file.parent)
        for trial in study.trials:
            _Noted.model_validate(trial.user_attrs)
            space.of(trial.params)
            for name, value in trial.params.items():
                if not dimensions[name].has(value) or trial.distributions[name] != dimensions[name].distribution:
                    raise ValueError(f"trial {trial.number} has a value of {name} that is not searched")
    except Exception as error:  # of a damaged file
        raise Refused(unreadable(file, error)) from error
    return study.trials


def describe(space: Space, goals: Sequence[Goal], settings: Settings, fingerprint: str) -> dict[str, Any]:
    """What a search is, as its file says it: a search that goes on must be the same.

    Args:
        space: What is searched.
        goals: The objectives.
        settings: Of the search.
        fingerprint: Of a trial that is at the lower ends of the space: of what all have in common.
    """
    searched = {each.name: [each.text, distribution_to_json(each.distribution)] for each in space.all()}
    told: dict[str, Any] = {"seeds": settings.seeds, "constraints": settings.constraints or {}}
    if settings.sampler.name in ("grid", "qmc"):  # its trials are places in a sequence that the seed decides
        told |= {"sampler": settings.sampler.name, "seed": settings.seed}
    texts = {f"hydra.sweeper.{key}": str(value) for key, value in told.items()}
    return {"space": searched, "objective": written(goals), **texts, "fingerprint": fingerprint}


def differences(file: Path, described: Mapping[str, Any]) -> list[Problem]:
    """How a search differs from the one of a file; empty: it can go on with it.

    Raises:
        Refused: The file cannot be read.
    """
    try:
        with closing(sqlite3.connect(file)) as plain:  # Optuna would add its tables, and leave a damaged file open
            plain.execute("PRAGMA quick_check(1)").fetchall()
            plain.execute("SELECT * FROM version_info, alembic_version, studies, trials, trial_params").fetchone()
        with opened(file) as storage:
            before = storage.get_study_user_attrs(storage.get_study_id_from_name(NAME))
        then, now = before["space"], described["space"]
        pairs = [(key, then.get(key), now.get(key)) for key in {**then, **now}]
        changed = [(key, a and a[0], b and b[0]) for key, a, b in pairs if (a and a[1]) != (b and b[1])]
        told = [key for key in {**before, **described} if key not in ("space", "fingerprint")]
        pairs = [(key, before.get(key, "another one"), described.get(key, "another one")) for key in told]
        changed += [(key, a, b) for key, a, b in pairs if a != b]
        same = before["fingerprint"] == described["fingerprint"]
    except Exception as error:  # whatever a damaged file, or one of another Optuna, makes Optuna raise
        raise Refused(unreadable(file, error)) from error
    if not changed and not same:
        what = "goes on with a search whose code, data, versions, flags or values of all trials were others"
        return [Problem("resume", what)]
    what = "was {} when the search began, is {} now"
    return [Problem(key, what.format(a or "not searched", b or "not searched")) for key, a, b in changed]


def unreadable(file: Path, error: Exception) -> Problem:
    """Say that the file of a study cannot be read."""
    what = f"{file} cannot be read: {type(error).__name__}: {error}"
    return Problem("resume", what.splitlines()[0], "resume=false")

"""What a search leaves among the artifacts of its parent run: the study, the best configs as presets, pictures."""

import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import Thread

from optuna.trial import FrozenTrial

from experiments.config.objective import Goal
from experiments.config.problems import on_one_line
from experiments.sweeps.jobs import Job
from experiments.sweeps.search.best import preset
from experiments.sweeps.search.study import Study


def import_pictures(trials: int) -> None:
    """Import what draws a search of so many trials, in the background while they are trained: it takes seconds."""
    Thread(target=_import, args=(trials,), daemon=True).start()


def _import(trials: int) -> None:
    from experiments.sweeps.search import pictures

    if trials >= pictures.ENOUGH:
        import optuna.importance  # noqa: F401 - with scikit-learn


def files(study: Study, goals: Sequence[Goal], job_of: Callable[[FrozenTrial], Job]) -> dict[str, bytes | str]:
    """All files, by their names as artifacts. What cannot be drawn is missing, and a line on stderr says why.

    Args:
        study: Whose file is open.
        goals: The objectives.
        job_of: Gives the job of a trial, with the first seed.
    """
    assert study.file
    found: dict[str, bytes | str] = {}
    with suppress(OSError):  # it was deleted: that was said when it could not be written
        found[f"search/{study.file.name}"] = study.file.read_bytes()
    count = sum(not trial.user_attrs.get("repeats") for trial in study.trials)
    for place, best in enumerate(study.best):
        values = ", ".join(f"{goal.name} {value:.6g}" for goal, value in zip(goals, best.values, strict=True))
        content = preset(job_of(best), f"Trial {best.number} of a search of {count}: {values}.")
        found |= {f"search/front/trial-{best.number}.yaml": content} if len(goals) > 1 else {}
        found |= {"search/best.yaml": content} if place == 0 else {}
    try:
        from experiments.sweeps.search.pictures import pictures

        drawn = pictures(study.optuna, [goal.name for goal in goals])
        found |= {f"search/{name}": content for name, content in drawn.items()}
    except Exception as error:  # the search is done, whatever comes of its pictures
        print(f"the search could not be drawn: {on_one_line(f'{type(error).__name__}: {error}')}", file=sys.stderr)
    return found

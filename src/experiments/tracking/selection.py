"""The recorded runs that are to be compared."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from experiments.config import CompareConfig, Config, Problem, Refused
from experiments.config.objective import recorded_objective
from experiments.config.problems import assign
from experiments.ranking.comparison import Comparison, comparable, compare
from experiments.ranking.frame import CIRCUMSTANCES, PARAMS, Row, chosen_keys, frame, parameters, row
from experiments.ranking.trials import TRIAL
from experiments.tracking.search import (
    BEGINNING,
    UUID,
    by_beginning,
    experiment_ids,
    measures,
    newest_experiment,
    reads_store,
    search,
    seconds,
    status,
)
from experiments.tracking.summary import CONSTRAINTS
from experiments.tracking.sweep_state import state

if TYPE_CHECKING:
    import pandas as pd

KEPT = "kept_runs."  # tags of a sweep that list runs of others, which had finished before
WHOLE_ID = 32  # characters


@dataclass(frozen=True)
class Selection:
    """Runs to compare.

    Attributes:
        title: What they are.
        runs: In the order in which they started.
        circumstances: Parameters that were not set by the user, and that change no result.
        state: How far the sweep is that they are of; empty: it has ended, or they are of none.
    """

    title: str
    runs: "pd.DataFrame"
    circumstances: frozenset[str]
    state: str = ""


@reads_store
def select(client: Any, config: CompareConfig) -> Selection:
    """Find the runs.

    Raises:
        Refused: There are none.
    """
    name = config.tracking.experiment
    ids = experiment_ids(client, name)
    if config.runs:
        return _selection("chosen runs", _by_ids(client, ids, config.runs))
    if name and config.sweep is None:
        found = [run for run in search(client, ids) if "sweep" not in run.data.tags]
        selection = _selection(f"experiment {name}", found)
    else:
        selection = of_sweep(client, ids, _sweep(client, ids, config))
    if selection.runs.empty and not selection.state:
        where = "tracking.experiment" if name else "sweep"
        raise Refused(Problem(where, f"{selection.title} has no runs", another_experiment(client, config)))
    return selection


def another_experiment(client: Any, config: CompareConfig) -> str:
    """The overrides that choose the experiment of the latest run, not what was chosen; empty if there is none."""
    name = newest_experiment(client)
    if name is None:
        return ""
    reset = [assign("runs", [])] * bool(config.runs) + [assign("sweep", None)] * (config.sweep is not None)
    return " ".join([*reset, assign("tracking.experiment", name)])


def of_sweep(client: Any, experiments: Sequence[str], parent: Any) -> Selection:
    """The runs beneath a parent run, and those of others that it has kept."""
    found = search(client, experiments, f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    for key, listed in parent.data.tags.items():
        if key.startswith(KEPT) and re.fullmatch(r"\w+(,\w+)*", listed):
            ids = ",".join(f"'{run_id}'" for run_id in listed.split(","))
            found += search(client, experiments, f"attributes.run_id IN ({ids})")
    constraints = {key: tag for key, tag in parent.data.tags.items() if key == CONSTRAINTS}
    for run in found:  # also those of other sweeps
        run.data.tags.pop(CONSTRAINTS, None)
        run.data.tags.update(constraints)
    selected = _selection(f"{parent.info.run_name or 'sweep'}, run {parent.info.run_id}", found)
    own = [run.data.tags.get("mlflow.parentRunId") == parent.info.run_id for run in found]
    trials = [run.data.tags.get(TRIAL, "") if is_own else "" for run, is_own in zip(found, own, strict=True)]
    return replace(selected, runs=selected.runs.assign(**{TRIAL: trials}), state=state(parent, found))


def comparable_with_newest(client: Any, experiments: Sequence[str]) -> Comparison | None:
    """The finished runs that can be compared with the newest one that held out a validation set, ranked.

    None if none did.
    """
    finished = "attributes.status = 'FINISHED' and tags.objective LIKE 'val_%'"
    newest = search(client, experiments, finished, "start_time DESC", limit=1)
    if not newest or (measured := recorded_objective(newest[0].data.tags, newest[0].data.params)) is None:
        return None
    tags = newest[0].data.tags
    same = "".join(f" and tags.`{key}` = '{tags[key]}'" for key in ("objective", "dataset.digest") if key in tags)
    selection = _selection("", search(client, experiments, f"{finished}{same}"))
    runs = comparable(selection.runs)[measured]
    return compare(runs, "", measured, selection.circumstances)


def _by_ids(client: Any, experiments: Sequence[str], wanted: Sequence[str]) -> list[Any]:
    """Runs by their ids, or by how these begin, as tables show them."""
    whole = ",".join(f"'{run_id}'" for run_id in wanted if len(run_id) >= WHOLE_ID and BEGINNING.fullmatch(run_id))
    found = search(client, experiments, f"attributes.run_id IN ({whole})") if whole else []
    whole_ids = {run.info.run_id: run for run in found}
    usable, problems = dict[str, Any](), list[Problem]()
    for run_id in dict.fromkeys(wanted):
        try:
            run = whole_ids.get(run_id) or by_beginning(client, experiments, run_id, "runs")
        except Refused as refused:
            problems += refused.problems
            continue
        if "sweep" in run.data.tags:
            what = f"{run.info.run_id} is a sweep, which has runs beneath it"
            problems.append(Problem("runs", what, f"runs=[] sweep={run.info.run_id}"))
        else:
            usable[run_id] = run
    if problems:
        raise _without_them(problems, list(usable))
    unique = {run.info.run_id: run for run in usable.values()}
    return sorted(unique.values(), key=lambda run: run.info.start_time)


def _without_them(problems: Sequence[Problem], usable: Sequence[str]) -> Refused:
    """Refuse some of the runs that were asked for; where others can be used, those are the remedy."""
    remedy = f"runs=[{','.join(usable)}]"
    return Refused([replace(problem, remedy=remedy) if usable else problem for problem in problems])


def _sweep(client: Any, experiments: Sequence[str], config: CompareConfig) -> Any:
    """The parent run of a sweep."""
    which = config.sweep or "latest"
    if which == "latest":
        if found := search(client, experiments, "tags.sweep LIKE '%'", "start_time DESC", limit=1):
            return found[0]
        what = "no sweep is recorded; start one: python -m experiments.run -m seed=0,1,2"
        raise Refused(Problem("sweep", what, another_experiment(client, config)))
    found = by_beginning(client, experiments, which, "sweep")
    if "sweep" in found.data.tags:
        return found
    parent = found.data.tags.get("mlflow.parentRunId")
    what = f"{which} is a run of the sweep {parent}" if parent else f"{which} is a single run, no sweep"
    raise Refused(Problem("sweep", what, f"sweep={parent}" if parent else f"sweep=null runs=[{which}]"))


def _selection(title: str, found: Sequence[Any]) -> Selection:
    runs = frame(map(_row, found))
    sections = {name: place for place, name in enumerate(Config.model_fields)}
    in_order = sorted(runs, key=lambda column: sections.get(column.removeprefix(PARAMS).split(".")[0], len(sections)))
    keys = {key for key in parameters(runs) if key.startswith(CIRCUMSTANCES)}
    asked_for = {key for key in chosen_keys(runs) if key.startswith("runtime.")}  # others change not even the speed
    return Selection(title, runs[in_order], frozenset(keys - asked_for))


def _row(item: Any) -> Row:
    info, data, metrics = item.info, item.data, measures(item)
    typed = data.tags.get("overrides", "").split()
    return row(
        run_id=info.run_id,
        name=info.run_name or "",
        status=status(item),
        parameters=data.params,
        objective=metrics.get("objective"),
        seconds=seconds(item),
        metrics=metrics,
        failure=data.tags.get("failure", ""),
        uuid=data.tags.get(UUID, ""),
        fingerprint=data.tags.get("fingerprint.config", ""),
        goals=data.tags.get("objectives", ""),
        chosen=[word.lstrip("+").partition("=")[0] for word in typed],
        measured=recorded_objective(data.tags, data.params),
    )

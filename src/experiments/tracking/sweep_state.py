"""How far a sweep is that is under way, or was interrupted, as the store has it."""

import re
from collections import Counter
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from experiments.config.objective import recorded_objective
from experiments.config.problems import on_one_line
from experiments.ranking.tables import decimals
from experiments.tracking import index, journal
from experiments.tracking.search import UUID, measures, status
from experiments.tracking.summary import ENDED_WELL

# Tags of a sweep, from its beginning on: how many of what there are in all, and how many are runs of others.
TOTAL, UNIT, ELSEWHERE = "sweep.total", "sweep.unit", "sweep.kept"
ENDED = (*ENDED_WELL, "FAILED")


def state(sweep: Any, found: Sequence[Any]) -> str:
    """Say how far a sweep is; empty: it has ended.

    Args:
        sweep: The parent run, as MLflow has it.
        found: Its runs, in the order in which they started.
    """
    tags, died = sweep.data.tags, _has_died(sweep.data.tags)
    if sweep.info.status not in ("RUNNING", "KILLED"):
        return ""
    interrupted = died or sweep.info.status == "KILLED"
    beneath = [run for run in found if run.data.tags.get("mlflow.parentRunId") == sweep.info.run_id]
    groups: dict[str, list[Any]] = {}
    for run in beneath:
        own = run.data.tags
        groups.setdefault(own.get("trial") or own.get("fingerprint") or run.info.run_id, []).append(run)
    counts = Counter(map(_state_of, groups.values()))
    ended = sum(counts[each] for each in ENDED) + _number(tags.get(ELSEWHERE))
    total = _number(tags.get(TOTAL))
    of = f"{min(ended, total)} of {total}" if total else f"{ended}"
    told = [f"{of} {on_one_line(tags.get(UNIT, 'runs'))} ended"]
    words = {"RUNNING": "under way when it was" if interrupted else "running", "FAILED": "failed"}
    told += [f"{counts[each]} {word}" for each, word in {**words, "PRUNED": "stopped early"}.items() if counts[each]]
    line = f"sweep {sweep.info.run_id[:8]} {'was interrupted' if interrupted else 'is under way'}: {', '.join(told)}"
    return f"{line}{_best(groups.values())}" + "; the same command with resume=true goes on" * interrupted


def _has_died(tags: dict[str, str]) -> bool:
    """Whether the journal of a sweep is here, and no process is at work on it."""
    if not re.fullmatch("[0-9a-f]{64}", identity := tags.get("sweep", "")):
        return False
    own = [each for each in index.Claim(identity).journals() if journal.opening(each).get("uuid") == tags.get(UUID)]
    return bool(own) and not journal.at_work(own[0])


def _state_of(runs: Sequence[Any]) -> str:
    """The status of a job that was tried several times, or of a trial with several seeds."""
    statuses = [status(run) for run in runs]
    return "RUNNING" if "RUNNING" in statuses else statuses[-1]


def _best(groups: Any) -> str:
    finished = [[run for run in runs if status(run) == "FINISHED"] for runs in groups if _state_of(runs) == "FINISHED"]
    objectives = {recorded_objective(run.data.tags, run.data.params) for runs in finished for run in runs}
    values = [[measures(run)["objective"] for run in runs if "objective" in measures(run)] for runs in finished]
    most = max(map(len, values), default=0)  # a trial with fewer seeds was not good enough for more, or is lucky
    means = [fmean(each) for each in values if each and len(each) == most]
    [objective, *others] = objectives or {None}
    if objective is None or others or not means:
        return ""
    best = min(means) if objective.lower_is_better else max(means)
    return f"; best {objective.metric} {best:.{decimals([best])}f}"


def _number(text: str | None) -> int:
    return int(text) if text and text.isdecimal() and len(text) < 10 else 0

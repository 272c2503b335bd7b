"""Runs that fit conditions, and configs in an order, by any parameter or metric."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from experiments.config import Problem, Refused, suggest
from experiments.config.problems import assign, closest
from experiments.ranking.comparison import Comparison, Run, Standing
from experiments.ranking.conditions import Facts, Filter, as_number, written


def facts(run: Run) -> dict[str, str | float]:
    """All that a filter can ask for; where a parameter and a metric have the same name, the metric."""
    own = {"name": run.name, "status": run.status, "run_id": run.run_id, "dataset": run.parameters.get("data.name", "")}
    if run.measured:
        own |= {"ranked_by": run.measured.metric, "measured_as": run.measured.measured_as}
    return {**run.parameters, **run.metrics, **own, **({} if run.seconds is None else {"seconds": run.seconds})}


def fitting(runs: Sequence[Run], conditions: Sequence[Filter], known: Mapping[str, Facts]) -> list[Run]:
    """The runs that all conditions hold for.

    Args:
        runs: All of them.
        conditions: What is asked for.
        known: The facts of each run, by its id.

    Raises:
        Refused: A key is unknown, or there are no such runs.
    """
    keys = dict.fromkeys(key for run in runs for key in known[run.run_id])
    problems, meant = list[Problem](), dict[str, str]()
    for key in dict.fromkeys(single.key for condition in conditions for single in condition.singles()):
        try:
            meant[key] = resolve("filter", key, keys)
        except Refused as refused:
            problems += refused.problems
            meant[key] = refused.problems[0].remedy  # the key that was probably meant; empty: none is near
    mended = [each.renamed(meant) for each in conditions if all(meant[single.key] for single in each.singles())]
    found, fit = list(runs), list[str]()
    for condition in mended:
        if left := [run for run in found if condition.holds(known[run.run_id])]:
            found = left
            fit.append(str(condition))
    remedy = written(fit)
    if problems:
        raise Refused([replace(problem, remedy=remedy) for problem in problems])
    if len(fit) < len(mended):
        asked = " and ".join(map(str, conditions))
        keys = dict.fromkeys(single.key for condition in mended for single in condition.singles())
        there = "; ".join(_values(key, [known[run.run_id].get(key) for run in runs]) for key in keys)
        raise Refused(Problem("filter", f"none of the {len(runs)} runs fits: {asked}; {there}", remedy))
    return found


def _values(key: str, values: Sequence[str | float | None]) -> str:
    """Say in a few words which values there are."""
    found = [value for value in values if value is not None]
    numbers = [number for value in found if (number := as_number(value)) is not None]
    if numbers and len(numbers) == len(found):
        low, high = min(numbers), max(numbers)
        return f"{key} is {low:g}" if low == high else f"{key} goes from {low:g} to {high:g}"
    distinct = sorted(set(map(str, found)))
    return f"{key} is {' or '.join(distinct[:5])}{' or another' if len(distinct) > 5 else ''}"


def resolve(where: str, key: str, known: Iterable[str]) -> str:
    """The key that is meant: itself, the section that it names, or the only one that ends with it.

    Raises:
        Refused: There is none, or there are several. The remedy is the key that was probably meant, if there is one.
    """
    known = list(known)
    for meant in (key, f"{key}.name"):
        if meant in known:
            return meant
    ends = sorted(candidate for candidate in known if candidate.endswith(f".{key}"))
    if len(ends) == 1:
        return ends[0]
    if ends:
        raise Refused(Problem(where, f"{key} can be {' or '.join(ends)}; write the whole key", ends[0]))
    by_end = {candidate.rpartition(".")[2]: candidate for candidate in known}
    near = closest(key, known) or by_end.get(closest(key, by_end) or "")
    hint = f"did you mean '{near}'?" if near else suggest("", known)
    raise Refused(Problem(where, f"no run has {key}; {hint}", near or ""))


class Ordered(NamedTuple):
    """A comparison with the order in which it is shown.

    Attributes:
        comparison: The comparison.
        ranked: Its configs with their ranks.
        sorted_by: The parameter or metric that they are in the order of; empty: by rank.
    """

    comparison: Comparison
    ranked: Sequence[tuple[int, Standing]]
    sorted_by: str = ""


def sort_key(sort: str, runs: Sequence[Run]) -> str:
    """The parameter or metric that runs are to be sorted by, in full; with a minus for the largest first.

    Raises:
        Refused: No run has it.
    """
    sign = "-" if sort.startswith("-") else ""
    try:
        return sign + resolve("sort", sort.removeprefix("-"), dict.fromkeys(key for run in runs for key in facts(run)))
    except Refused as refused:
        [problem] = refused.problems
        meant = f"{sign}{problem.remedy}" if problem.remedy else None
        raise Refused(replace(problem, remedy=assign("sort", meant))) from None


def ordered(comparison: Comparison, sort: str = "") -> Ordered:
    """The configs with their ranks, by rank or by a parameter or metric; those without it last.

    Args:
        comparison: The configs.
        sort: As `sort_key` gives it; empty: by rank.
    """
    key, sign = sort.removeprefix("-"), -1 if sort.startswith("-") else 1
    ranked = list(enumerate(comparison.standings, start=1))
    if not key:
        return Ordered(comparison, ranked)
    values = [(of_config(entry[1], key), entry) for entry in ranked]
    numbers = [(number, entry) for value, entry in values if (number := as_number(value)) is not None]
    texts = [(str(value), entry) for value, entry in values if as_number(value) is None]
    numbers.sort(key=lambda item: sign * item[0])
    texts.sort(key=lambda item: item[0], reverse=sign < 0)
    present, missing = [item for item in texts if item[0]], [item for item in texts if not item[0]]
    return Ordered(comparison, [entry for _, entry in [*numbers, *present, *missing]], key)


def of_config(standing: Standing, key: str) -> str | float:
    """A metric's mean over the seeds, or a parameter's value; empty if it is missing, or not the same in all runs."""
    found = [value for run in standing.runs if (value := facts(run).get(key)) is not None]
    numbers = [value for value in found if isinstance(value, float) and not math.isnan(value)]
    if numbers:
        return statistics.fmean(numbers)
    texts = {value for value in found if isinstance(value, str)}
    return texts.pop() if len(texts) == 1 else ""

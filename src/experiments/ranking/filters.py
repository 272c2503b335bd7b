"""Runs that fit conditions, and configs in an order, by any parameter or metric."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from statistics import fmean
from typing import TYPE_CHECKING

from experiments.config import Problem, Refused, suggest
from experiments.config.problems import assign, closest
from experiments.ranking.comparison import Comparison
from experiments.ranking.conditions import Condition, as_number, parse_all, written
from experiments.ranking.frame import facts

if TYPE_CHECKING:
    import pandas as pd


def filter_runs(runs: "pd.DataFrame", texts: Sequence[str]) -> "pd.DataFrame":
    """The runs that all conditions hold for, which are given as they were typed.

    Raises:
        Refused: One cannot be read, a key is unknown, or there are no such runs.
    """
    known, found, conditions = facts(runs), runs, parse_all(texts)
    keys, problems, corrections = dict[Condition, str](), list[Problem](), dict[str, str]()
    for single in dict.fromkeys(single for condition in conditions for single in condition.singles()):
        try:
            keys[single] = _column(single, known)
        except Refused as refused:
            problems += refused.problems
            # What was probably meant; empty: none is near.
            keys[single] = corrections[single.key] = refused.problems[0].remedy
    fit, failed = list[str](), False
    for text, condition in zip(texts, conditions, strict=True):
        if all(keys[single] for single in condition.singles()):
            mask = condition.mask(known.loc[found.index], keys)
            if mask.any():
                found = found[mask]
                fit.append(text)
            failed |= not mask.any()
    if problems:
        for key, meant in corrections.items():
            fit = [re.sub(rf"(?<![\w.]){re.escape(key)}(?![\w.])", meant, text) for text in fit]
        raise Refused([replace(problem, remedy=written(fit)) for problem in dict.fromkeys(problems)])
    if failed:
        there = "; ".join(_values(key, known[key].dropna().tolist()) for key in dict.fromkeys(keys.values()))
        what = f"none of the {len(runs)} runs fits: {' and '.join(texts)}; {there}"
        raise Refused(Problem("filter", what, written(fit)))
    return found


def _column(condition: Condition, known: "pd.DataFrame") -> str:
    """The column that a condition is about: ``loss=huber`` is about ``loss.name``, ``loss<1`` about the metric."""
    named = f"{condition.key}.name"
    if named in known and as_number(condition.value) is None:
        return named
    return resolve("filter", condition.key, known)


def _values(key: str, found: Sequence[str | float]) -> str:
    """Say in a few words which values there are."""
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


def sort_key(sort: str, runs: "pd.DataFrame") -> str:
    """The parameter or metric that runs are to be sorted by, in full; with a minus for the largest first.

    Raises:
        Refused: No run has it.
    """
    sign = "-" if sort.startswith("-") else ""
    try:
        return sign + resolve("sort", sort.removeprefix("-"), facts(runs))
    except Refused as refused:
        [problem] = refused.problems
        meant = f"{sign}{problem.remedy}" if problem.remedy else None
        raise Refused(replace(problem, remedy=assign("sort", meant))) from None


def sort_configs(comparison: Comparison, sort: str) -> Comparison:
    """The configs, with their ranks, in the order of a parameter or metric: numbers, texts, those without it last.

    Args:
        comparison: The configs.
        sort: As `sort_key` gives it.
    """
    key, descending = sort.removeprefix("-"), sort.startswith("-")
    values = of_configs(comparison, key)
    numbers = {rank: number for rank, value in values.items() if (number := as_number(value)) is not None}
    texts = {rank: str(value) for rank, value in values.items() if value != "" and rank not in numbers}
    ranks = [rank for part in (numbers, texts) for rank in sorted(part, key=part.__getitem__, reverse=descending)]
    missing = [rank for rank in values if rank not in numbers and rank not in texts]
    configs = comparison.configs.loc[[*ranks, *missing]]
    places = comparison.runs["rank"].map({rank: place for place, rank in enumerate(configs.index)})
    runs = comparison.runs.loc[places.sort_values(kind="stable").index]
    return replace(comparison, configs=configs, runs=runs, sorted_by=key)


def of_configs(comparison: Comparison, key: str) -> dict[int, str | float]:
    """A metric's mean over the seeds, or a parameter's value, by rank.

    Empty if it is missing, or not the same in all runs.
    """
    known = facts(comparison.runs)
    if key not in known:
        return dict.fromkeys(comparison.configs.index, "")
    groups = known[key].groupby(comparison.runs["rank"], sort=False)
    return {rank: _of_config(values.dropna().tolist()) for rank, values in groups}


def _of_config(values: Sequence[str | float]) -> str | float:
    if numbers := [value for value in values if isinstance(value, float)]:
        return fmean(numbers)
    return str(values[0]) if len(set(values)) == 1 else ""

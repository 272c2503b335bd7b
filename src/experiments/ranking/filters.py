"""Conditions on runs, such as ``val_accuracy>0.97``, and orders of configs, by any parameter or metric."""

import math
import operator
import re
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import NamedTuple

from experiments.config import Problem, Refused, suggest
from experiments.config.problems import assign, closest, quoted, shown
from experiments.ranking.comparison import Comparison, Run, Standing

OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "!=": operator.ne,
    "==": operator.eq,
    "=": operator.eq,
    ">": operator.gt,
    "<": operator.lt,
}
CONDITION = re.compile(r"\s*([^=!<>]*[^=!<>\s])\s*(>=|<=|!=|==|=|>|<)\s*(.*?)\s*", re.DOTALL)
AND = re.compile(r"\s+and\s+|\s*&&?\s*|\s*,\s*", re.IGNORECASE)  # what users write between conditions

Facts = Mapping[str, str | float]
"""What is known of a run: parameters, metrics, name, status and so on, by key."""


@dataclass(frozen=True)
class Condition:
    """A comparison of a run's value with a given one: as numbers where both are, as text else.

    Attributes:
        key: As it was typed; a parameter, a metric, or another fact.
        operator: One of ``OPERATORS``.
        value: As it was typed.
    """

    key: str
    operator: str
    value: str

    def __str__(self) -> str:
        return f"{self.key}{self.operator}{self.value}"

    def holds(self, fact: str | float | None) -> bool:
        """Whether a run that has this value, or None, fits."""
        equal = self.operator in ("=", "==")
        if fact is None or (isinstance(fact, float) and math.isnan(fact)):
            return self.operator == "!="
        number, wanted = as_number(fact), as_number(self.value)
        if number is not None and wanted is not None:
            return OPERATORS[self.operator](number, wanted)
        same = _without_blanks(str(fact)) == _without_blanks(self.value)
        return same if equal else not same if self.operator == "!=" else False


def parse(text: str, others: Sequence[str] = ()) -> Condition:
    """Read a condition, ``KEY OPERATOR VALUE``.

    Args:
        text: The condition.
        others: The conditions beside it, which a remedy keeps.

    Raises:
        Refused: It is none, or asks for more or less than something that is no number.
    """
    found = CONDITION.fullmatch(text)
    if found is None:
        what = f"got {text!r}, expected a key, one of = != > >= < <=, and a value"
        raise Refused(Problem("filter", what, written(others or ["status=FINISHED"])))
    condition = Condition(found[1], found[2], found[3])
    if condition.operator == "=" and condition.value[:1] in ("<", ">"):
        what = f"got {text!r}, expected <= or >= with the = last"
        meant = f"{condition.key}{condition.value[0]}={condition.value[1:].strip()}"
        raise Refused(Problem("filter", what, written([*others, meant])))
    if condition.operator[0] in "<>" and not condition.value:
        raise Refused(Problem("filter", f"got {text!r}, expected a number after {condition.operator}"))
    if condition.operator[0] in "<>" and as_number(condition.value) is None:
        if CONDITION.fullmatch(condition.value):
            parts = split(text)
            what = f"got {text!r}, expected one condition; several, all of which have to hold, are a list"
            raise Refused(Problem("filter", what, written([*others, *parts]) if len(parts) > 1 else ""))
        what = f"got {text!r}, but {condition.value!r} is not a number; text is compared with = and !="
        raise Refused(Problem("filter", what, written([*others, f"{condition.key}={condition.value}"])))
    return condition


def split(text: str) -> list[str]:
    """The conditions that a text joins by "and", a comma or &; the text itself where they are not conditions."""
    parts = AND.split(text)
    return parts if all(map(CONDITION.fullmatch, parts)) else [text]


def parse_all(texts: Sequence[str]) -> list[Condition]:
    """Read several conditions.

    Raises:
        Refused: With all that are none.
    """
    found, problems = [], []
    for place, text in enumerate(texts):
        try:
            found.append(parse(text, [*texts[:place], *texts[place + 1 :]]))
        except Refused as refused:
            problems += refused.problems
    if problems:
        raise Refused(problems)
    return found


def written(conditions: Sequence[str]) -> str:
    """The override that sets conditions, as it is typed into a shell."""
    texts = [shown(text) if {'"', "\\"} & set(text) else f'"{text}"' for text in conditions]
    return quoted(f"filter={texts[0]}" if len(texts) == 1 else f"filter=[{','.join(texts)}]")


def facts(run: Run) -> dict[str, str | float]:
    """All that a filter can ask for; where a parameter and a metric have the same name, the metric."""
    own = {"name": run.name, "status": run.status, "run_id": run.run_id, "dataset": run.parameters.get("data.name", "")}
    if run.measured:
        own |= {"ranked_by": run.measured.metric, "measured_as": run.measured.measured_as}
    return {**run.parameters, **run.metrics, **own, **({} if run.seconds is None else {"seconds": run.seconds})}


def fitting(runs: Sequence[Run], conditions: Sequence[Condition], known: Mapping[str, Facts]) -> list[Run]:
    """The runs that all conditions hold for.

    Args:
        runs: All of them.
        conditions: What is asked for.
        known: The facts of each run, by its id.

    Raises:
        Refused: A key is unknown, or there are no such runs.
    """
    keys = dict.fromkeys(key for run in runs for key in known[run.run_id])
    problems, meant = [], []
    for condition in conditions:
        try:
            meant.append(replace(condition, key=resolve("filter", condition.key, keys)))
        except Refused as refused:
            [problem] = refused.problems
            problems.append(problem)
            if problem.remedy:  # the key that was meant
                meant.append(replace(condition, key=problem.remedy))
    found, fit = list(runs), []
    for condition in meant:
        if left := [run for run in found if condition.holds(known[run.run_id].get(condition.key))]:
            found = left
            fit.append(str(condition))
    remedy = written(fit)
    if problems:
        raise Refused([replace(problem, remedy=remedy) for problem in problems])
    if len(fit) < len(meant):
        parts = [part for each in conditions for part in split(str(each))]
        with suppress(Refused):  # none fits those, either
            if len(parts) > len(conditions) and fitting(runs, list(map(parse, parts)), known):
                remedy = written(parts)
        asked = " and ".join(map(str, conditions))
        there = "; ".join(
            dict.fromkeys(_values(each.key, [known[run.run_id].get(each.key) for run in runs]) for each in meant)
        )
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


def as_number(value: str | float) -> float | None:
    """The number that a text is; None if it is none, or not a number in the sense of IEEE 754."""
    try:
        number = float(value)
    except ValueError:
        return None
    return None if math.isnan(number) else number


def _without_blanks(text: str) -> str:
    return "".join(text.split())

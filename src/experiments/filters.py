"""Conditions on runs, such as ``val_accuracy>0.97``, and orders of configs, by any parameter or metric."""

import math
import operator
import re
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from experiments.comparison import Comparison, Run, Standing
from experiments.config import Problem, Refused, suggest

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


def parse(text: str) -> Condition:
    """Read a condition, ``KEY OPERATOR VALUE``.

    Raises:
        Refused: It is none, or asks for more or less than something that is no number.
    """
    found = CONDITION.fullmatch(text)
    if found is None:
        what = f"got {text!r}, expected a key, one of = != > >= < <=, and a value"
        raise Refused(Problem("filter", what, """'filter="status=FINISHED"'"""))
    condition = Condition(found[1], found[2], found[3])
    if condition.operator[0] in "<>" and as_number(condition.value) is None:
        what = f"got {text!r}, but {condition.value!r} is not a number; text is compared with = and !="
        raise Refused(Problem("filter", what))
    return condition


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
        Refused: A key is unknown.
    """
    keys = dict.fromkeys(key for run in runs for key in known[run.run_id])
    meant = [(resolve("filter", condition.key, keys), condition) for condition in conditions]
    return [run for run in runs if all(condition.holds(known[run.run_id].get(key)) for key, condition in meant)]


def resolve(where: str, key: str, known: Iterable[str]) -> str:
    """The key that is meant: itself, the section that it names, or the only one that ends with it.

    Raises:
        Refused: There is none, or there are several.
    """
    known = list(known)
    for meant in (key, f"{key}.name"):
        if meant in known:
            return meant
    ends = [candidate for candidate in known if candidate.endswith(f".{key}")]
    if len(ends) == 1:
        return ends[0]
    if ends:
        raise Refused(Problem(where, f"{key} can be {' or '.join(sorted(ends))}; write the whole key"))
    raise Refused(Problem(where, f"no run has {key}; {suggest(key, known)}"))


def all_ordered(
    comparisons: Sequence[Comparison], sort: str | None
) -> list[tuple[Comparison, list[tuple[int, Standing]]]]:
    """Several comparisons, each with its configs in order, see `ordered`; by rank where none of its runs has the key.

    Raises:
        Refused: No run has it.
    """
    found: list[tuple[Comparison, list[tuple[int, Standing]]]] = []
    refusals: list[Refused] = []
    for comparison in comparisons:
        try:
            found.append((comparison, ordered(comparison, sort)))
        except Refused as refused:
            refusals.append(refused)
            found.append((comparison, ordered(comparison, None)))
    if len(refusals) == len(comparisons):
        raise refusals[0]
    return found


def ordered(comparison: Comparison, sort: str | None) -> list[tuple[int, Standing]]:
    """The configs with their ranks, by rank or by a parameter or metric; those without it last.

    Args:
        comparison: The configs.
        sort: A key, with a minus for the largest first; None: by rank.

    Raises:
        Refused: No run has that.
    """
    ranked = list(enumerate(comparison.standings, start=1))
    if sort is None:
        return ranked
    known = dict.fromkeys(key for _, standing in ranked for run in standing.runs for key in facts(run))
    key, sign = resolve("sort", sort.removeprefix("-"), known), -1 if sort.startswith("-") else 1
    values = [(_of_config(entry[1], key), entry) for entry in ranked]
    numbers = [(number, entry) for value, entry in values if (number := as_number(value)) is not None]
    texts = [(str(value), entry) for value, entry in values if as_number(value) is None]
    numbers.sort(key=lambda item: sign * item[0])
    texts.sort(key=lambda item: item[0], reverse=sign < 0)
    present, missing = [item for item in texts if item[0]], [item for item in texts if not item[0]]
    return [entry for _, entry in [*numbers, *present, *missing]]


def _of_config(standing: Standing, key: str) -> str | float:
    """A metric's mean over the seeds, or a parameter's value; empty if it is missing."""
    found = [value for run in standing.runs if (value := facts(run).get(key)) is not None]
    numbers = [value for value in found if isinstance(value, float) and not math.isnan(value)]
    if numbers:
        return statistics.fmean(numbers)
    return str(found[0]) if found and not isinstance(found[0], float) else ""


def as_number(value: str | float) -> float | None:
    """The number that a text is; None if it is none, or not a number in the sense of IEEE 754."""
    try:
        number = float(value)
    except ValueError:
        return None
    return None if math.isnan(number) else number


def _without_blanks(text: str) -> str:
    return "".join(text.split())

"""Compared runs as a table for the terminal."""

import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, NamedTuple

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from experiments.config.problems import visible
from experiments.ranking.comparison import Comparison, curve_of
from experiments.ranking.filters import of_configs
from experiments.ranking.frame import PARAMS, facts, parameters, records, unfinished_status
from experiments.ranking.front import GOALS
from experiments.ranking.sparklines import sparklines
from experiments.system import terminal

if TYPE_CHECKING:
    import pandas as pd

ID_WIDTH = 8
MARKS = {True: "=", False: "", None: "?"}
# Steps to narrow a table that is wider than the terminal: the width at which settings are broken into lines, and
# the columns that are left out.
GIVEN_UP: Sequence[tuple[int | None, Sequence[str]]] = (
    (None, ()),
    (24, ()),
    *((width, ("curve",)) for width in (24, 16, 12, 10)),
    (10, ("curve", "run")),
    (10, ("curve", "run", "seconds")),
)


class Column(NamedTuple):
    """A column of a table, with a text for each row."""

    header: str
    cells: Sequence[str]
    is_setting: bool = False
    is_asked_for: bool = False


def show(console: Console, comparison: Comparison) -> None:
    """Print a ranking. In a pipe, each config has one line, however long."""
    if not (console.is_terminal or "COLUMNS" in os.environ):
        console = terminal.Console(file=console.file, width=1000)
    curves = {} if console.options.ascii_only else sparklines(comparison)
    everything = columns(comparison, curves)
    if console.options.ascii_only:
        everything = [column._replace(header=column.header.replace("±", "+-")) for column in everything]
    for width, left_out in GIVEN_UP:
        kept = [column for column in everything if column.is_asked_for or column.header not in left_out]
        table = _table(kept, width)
        if Measurement.get(console, console.options.update_width(10_000), table).maximum <= console.width:
            break
    console.print(table)


def show_failures(console: Console, runs: "pd.DataFrame") -> None:
    """Print the runs that failed, with their reasons and logs."""
    for run in runs[runs["status"] == "FAILED"].itertuples():
        reason = f": {run.failure}" if run.failure else ""
        log = f"\n    log: {run.log}" if run.log else ""
        terminal.say(console, *f"{run.status} {run.name or run.run_id}{reason}{log}".splitlines(), style="red")


def notes(comparison: Comparison) -> list[str]:
    """What a reader has to know of the ranking: what it is worth, and what its marks mean."""
    found = []
    if comparison.ranked_by.startswith("test_"):
        asked = "validation_size=" in comparison.measured_as  # there was a choice
        why = "as objective= says" if asked else "as no run held out a validation set"
        by_validation = "a metric that starts with val_" if asked else "data.validation_size=0.1"
        ranked = f"ranked by {comparison.ranked_by}, {why}: the best scores lower on new images"
        found.append(f"{ranked}; {by_validation} ranks by validation")
    if comparison.has_several_seeds:
        found += meanings(comparison)
    elif len(comparison.configs) > 1:
        remedy = "a sweep over seed=0,1,2,3,4 is tested for that"
        if comparison.trials:
            remedy = "hydra.sweeper.seeds=[0,1,2] runs the better configs with several"
        found.append(f"one seed each: differences may be noise; {remedy}")
    if comparison.trials and len(comparison.configs) > 1:
        trials = len(comparison.trials)
        found.append(f"the best of {trials} trials was selected by {comparison.ranked_by}: on new data it does worse")
    if comparison.goals:
        names = " and ".join(goal.name for goal in comparison.goals)
        found.append(f"* on the Pareto front of {names}: no other config is better in one, and as good in the rest")
    if comparison.repeats:
        found.append(f"runs with the same config and seed as a later one, which are left out: {comparison.repeats}")
    return found


def meanings(comparison: Comparison, equal: str = "=") -> list[str]:
    """What the marks of a ranking mean, where some configs have several seeds.

    Args:
        comparison: What is shown.
        equal: The mark of configs that do not differ significantly from the best.
    """
    verdicts = comparison.configs["indistinguishable_from_best"].sort_index().tolist()  # by rank
    tested = [verdict for verdict in verdicts if verdict is not None]
    found = method = [comparison.method] if comparison.method else []
    if len(tested) > 1:
        found = [": ".join([f"{equal} not significantly different from the best", *method])]
        if all(tested):
            found.append("no config differs significantly from the best")
    if None in verdicts:
        found.append("? one seed only, not tested")
    if len(tested) > 1 and verdicts[0] is None:
        reference = f"rank {verdicts.index(True) + 1}, the best with several seeds"
        found.append(f"the best by its mean has one seed only; the others were tested against {reference}")
    return found


def columns(comparison: Comparison, curves: Mapping[int, str]) -> list[Column]:
    """All that a table can show: settings, result, spread over the seeds, what it is sorted by, curve, seconds, run.

    Args:
        comparison: What is shown.
        curves: As `sparklines` gives them.
    """
    configs, lost = comparison.configs, comparison.unfinished
    several = comparison.has_several_seeds
    settings = comparison.settings if several else comparison.parameters
    asked = comparison.sorted_by if comparison.sorted_by not in (comparison.ranked_by, "objective") else ""
    headers = short_names(list(dict.fromkeys([*settings, asked] if asked else settings)))
    digits = decimals(comparison.runs["objective"].tolist())
    found = [Column("", list(map(str, configs.index)))]
    for key in settings:
        cells = [*configs[PARAMS + key], *parameters(lost, [key])[key]]
        found.append(Column(headers[key], list(map(terminal.short_numbers, cells)), is_setting=True))
    seeds = [seed if several else "" for seed in parameters(lost, ["seed"])["seed"]]
    statuses = [unfinished_status(run, curve_of(comparison.ranked_by), digits) for run in records(lost)]
    results = [f"{mean:.{digits}f}" for mean in configs["mean"]]
    results += [f"{status}, seed {seed}" if seed else status for status, seed in zip(statuses, seeds, strict=True)]
    found.append(Column(comparison.ranked_by, results))
    if several:
        halves = (configs["high"] - configs["low"]) / 2
        found.append(Column("± 95 %", ["" if math.isnan(half) else f"{half:.{digits}f}" for half in halves]))
        found.append(Column("n", list(map(str, configs["n"]))))
        if len(configs) > 1:
            found.append(Column("=", [MARKS[verdict] for verdict in configs["indistinguishable_from_best"]]))
    found += [Column(name, cells) for name, cells in goal_cells(comparison)]
    if comparison.goals:
        found.append(Column("front", ["*" if on_front else "" for on_front in configs["on_front"]]))
    if asked and asked != "seconds" and asked not in settings:
        values = _values(comparison, asked)
        digits = decimals([value for value in values if isinstance(value, float)])
        if any(cells := [f"{value:.{digits}f}" if isinstance(value, float) else value for value in values]):
            found.append(Column(headers[asked], cells, is_asked_for=True))
    if curves:
        found.append(Column("curve", [curves[rank] for rank in configs.index]))
    seconds = [f"{value:.1f}" if isinstance(value, float) else "" for value in _values(comparison, "seconds")]
    found.append(Column("seconds", seconds, is_asked_for=asked == "seconds"))
    if not several:
        found.append(Column("run", [run_id[:ID_WIDTH] for run_id in [*comparison.runs["run_id"], *lost["run_id"]]]))
    return found


def goal_cells(comparison: Comparison) -> Iterator[tuple[str, list[str]]]:
    """The objectives after the first one, if there are several, with their values by config, as text."""
    for goal in comparison.goals[1:]:
        values = comparison.configs[GOALS + goal.name].tolist()
        digits = 0 if all(value.is_integer() for value in values) else decimals(values)
        yield goal.name, [f"{value:,.{digits}f}" for value in values]


def _values(comparison: Comparison, key: str) -> list[str | float]:
    """A parameter or metric of each config, and of each run without a result; empty where it is missing."""
    lost = facts(comparison.unfinished)
    values = lost[key].astype(object).fillna("") if key in lost else [""] * len(lost)
    return [*of_configs(comparison, key).values(), *values]


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """The shortest ends of dotted keys that tell them apart; ``optimizer`` for ``optimizer.name``."""

    def ends(key: str) -> list[str]:
        parts = key.removesuffix(".name").split(".")
        return [".".join(parts[start:]) for start in range(len(parts) - 1, -1, -1)] + [key]

    found = {}
    for key in keys:
        others = [end for other in keys if other != key for end in ends(other)]
        found[key] = next((end for end in ends(key) if end not in others), key)
    return found


def show_groups(console: Console, groups: Sequence[Comparison]) -> None:
    """Print rankings with their notes and failures; several, each below a line that says how its runs were measured."""
    for comparison in groups:
        if len(groups) > 1:
            terminal.say(console, f"measured as {comparison.measured_as}:")
        show(console, comparison)
        terminal.say(console, *notes(comparison))
        show_failures(console, comparison.unfinished)


def _table(shown: Sequence[Column], width: int | None) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in shown:
        if column.is_setting:
            table.add_column(_broken(column.header, width), overflow="fold", max_width=width)
        else:
            left = column.header in ("run", "curve", "=", "front")
            table.add_column(_broken(column.header, width), justify="left" if left else "right", no_wrap=True)
    for row in zip_longest(*(column.cells for column in shown), fillvalue=""):
        cells = zip(row, shown, strict=True)
        table.add_row(*(_broken(text, width if column.is_setting else None) for text, column in cells))
    return table


def _broken(text: str, width: int | None) -> Text:
    """Break a text into lines of a width, between words: after ``_``, ``.``, a comma and the like."""
    lines = [""]
    for word in re.findall(r"[^_.,:;/=\s-]*[_.,:;/=\s-]?", visible(text)):
        if width and lines[-1] and len(lines[-1]) + len(word.rstrip()) > width:
            lines.append("")
        lines[-1] += word
    return Text("\n".join(lines), no_wrap=width is None)


def decimals(values: Sequence[float]) -> int:
    """How many decimals show four digits of the largest value; at least four."""
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    return 4 if largest >= 0.1 or largest == 0 else min(3 - math.floor(math.log10(largest)), 12)

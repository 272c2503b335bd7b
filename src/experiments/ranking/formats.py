"""Compared runs for programs and documents: CSV, JSON, Markdown."""

import json
import math
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

from experiments.ranking.comparison import Comparison, standings
from experiments.ranking.frame import METRICS, parameters, records, section
from experiments.ranking.sparklines import sparklines
from experiments.ranking.tables import columns, notes

SHARED = ("title", "ranked_by", "lower_is_better", "measured_as", "parameters")  # by all runs


def as_csv(groups: Sequence[Comparison]) -> str:
    """One line a run: what differs, objective, seconds, metrics, id, name, status; its group first, if several."""
    import pandas as pd

    runs = pd.concat([part for each in groups for part in (each.runs, each.unfinished)])
    metrics = section(runs, METRICS)
    parts = [
        runs[["measured_as"] if len(groups) > 1 else []],
        parameters(runs, dict.fromkeys(key for each in groups for key in each.parameters)),
        runs[["objective", "seconds"]],
        metrics[sorted(set(metrics) - {"objective"})],
        runs[["run_id", "name", "status"]],
    ]
    return str(pd.concat(parts, axis=1).to_csv(index=False, lineterminator="\n"))


def as_json(groups: Sequence[Comparison]) -> str:
    """All of it, as an object; several groups: a list of them. What is not a finite number is null."""
    found = [
        {
            **{key: getattr(each, key) for key in SHARED},
            "standings": standings(each),
            "unfinished": records(each.unfinished),
            "method": each.method,
            "repeats": each.repeats,
        }
        for each in groups
    ]
    return json.dumps(_finite(found if len(found) > 1 else found[0]), indent=2) + "\n"


def as_markdown(groups: Sequence[Comparison]) -> str:
    """The terminal's table, and the notes."""
    parts = []
    for comparison in groups:
        shown = columns(comparison, sparklines(comparison))
        lines = [[column.header for column in shown], ["---" if column.is_setting else "---:" for column in shown]]
        lines += [list(row) for row in zip_longest(*(column.cells for column in shown), fillvalue="")]
        rows = ["| " + " | ".join(_cell(text) for text in line) + " |" for line in lines]
        title = f"### measured as {comparison.measured_as}\n\n" if len(groups) > 1 else ""
        parts.append(title + "\n".join(rows) + "".join(f"\n\n{note}" for note in notes(comparison)) + "\n")
    return "\n".join(parts)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())

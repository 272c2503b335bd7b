"""The report of a comparison: one HTML page that needs nothing else, neither a network nor JavaScript."""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from statistics import median
from typing import TYPE_CHECKING

from experiments.ranking.comparison import Comparison, standings
from experiments.ranking.frame import PARAMS, Row, parameters, records, section
from experiments.ranking.report import charts
from experiments.ranking.report.charts import MISSING
from experiments.ranking.report.effect import effects
from experiments.ranking.report.history import history
from experiments.ranking.report.scales import scale_of
from experiments.ranking.tables import goal_cells, meanings
from experiments.ranking.trials import TRIAL
from experiments.system.terminal import short_numbers

if TYPE_CHECKING:
    from jinja2 import Template

SHADES = 8  # colours by rank, in the page's style
SIDE_BY_SIDE = 6  # configs whose parameters are shown in full
CLASSES = 20  # that a confusion matrix has room for
MIXUPS = 15  # pairs of classes that are listed where there are more classes


def page(comparison: Comparison, confusion: Mapping[str, Sequence[Sequence[int]]]) -> str:
    """Write a comparison down as one HTML page.

    Args:
        comparison: The runs, ranked. Its texts may be anything; they are escaped.
        confusion: The confusion matrices of some of the best runs, by run id; rows are the truth.
    """
    runs, configs = comparison.runs, standings(comparison)
    for config in configs:
        config["settings"] = {key: short_numbers(value) for key, value in config["settings"].items() if value}
    ranking, whiskers = charts.whiskers(comparison, 8, 232)
    strip = scale_of(runs["objective"], 134, 368)
    axes, lines = charts.parallel(comparison, 90, 150, 240)
    return _template().render(
        comparison=comparison,
        standings=configs,
        runs=len(runs),
        seeds=parameters(runs, ["seed"])["seed"].nunique(),
        meanings=meanings(comparison, "≈ best"),
        labels=[_label(config) for config in configs],
        repeated=comparison.has_several_seeds,
        decimals=_decimals(comparison),
        shades=[round((SHADES - 1) * place / max(len(configs) - 1, 1)) for place in range(len(configs))],
        ranking_axis=ranking,
        whiskers=whiskers,
        panels=[charts.panel(comparison, metric, 390, 200) for metric in charts.curve_metrics(comparison)],
        axes=axes,
        lines=lines,
        strip_axis=strip,
        effects=effects(comparison, strip),
        matrices=list(_matrices(comparison, confusion)),
        parameters=list(_parameters(comparison)),
        unfinished=_unfinished(comparison),
        history=history(comparison, 560, 220),
        trials=_trials(comparison),
        goals=list(goal_cells(comparison)),
        on_front=comparison.configs["on_front"].tolist() if comparison.goals else [],
    )


@cache
def _template() -> "Template":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader(__name__, "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = _number
    return environment.get_template("page.html.jinja")


def _trials(comparison: Comparison) -> list[str]:
    """The numbers of the trials of each config of a search."""
    if not comparison.trials:
        return []
    by_rank = comparison.runs[TRIAL].groupby(comparison.runs["rank"])
    return [", ".join(number or MISSING for number in numbers.unique()) for _, numbers in by_rank]


def _unfinished(comparison: Comparison) -> list[Row]:
    """The runs without a result; of a search, each with its ``trial``."""
    runs = records(comparison.unfinished)
    numbers = comparison.unfinished[TRIAL] if comparison.trials else [""] * len(runs)
    return [run | {TRIAL: number} for run, number in zip(runs, numbers, strict=True)]


def _label(config: Row) -> str:
    if config["settings"]:
        return " ".join(f"{key}={value}" for key, value in config["settings"].items())
    return str(config["runs"][0]["name"]) if config["n"] == 1 else "one config"


def _decimals(comparison: Comparison) -> int:
    """As many as show two digits of the median half-width of the intervals; without any, three of the range.

    Every significant difference from the best is to be seen, too: shared seeds make intervals wider, not the test's.
    """
    configs = comparison.configs
    widths = [width for width in ((configs["high"] - configs["low"]) / 2).tolist() if width > 0]
    scale = scale_of(comparison.runs["objective"], 0, 1)
    digits, spread = (1, median(widths)) if widths else (2, scale.high - scale.low)
    is_worse = [verdict is False for verdict in configs["indistinguishable_from_best"]]
    differences = (configs["mean"][is_worse] - configs["mean"].sort_index().head(1).sum()).abs()
    needed = [digits - math.log10(spread), *(1 - math.log10(gap) for gap in differences if gap > 0)]
    return min(max(math.ceil(max(needed)), 0), 8)


def _number(value: float | None, decimals: int) -> str:
    if value is None or not math.isfinite(value):
        return MISSING
    return f"{value:.{decimals}f}" if abs(value) < 1e6 else f"{value:.4g}"


def _matrices(comparison: Comparison, confusion: Mapping[str, Sequence[Sequence[int]]]) -> Iterator[Row]:
    """The confusion matrices of runs; of one that has too many classes, only the pairs that are mixed up most."""
    seeds = parameters(comparison.runs, ["seed"])["seed"]
    for rank, seed, run_id in zip(comparison.runs["rank"], seeds, comparison.runs["run_id"], strict=True):
        if counts := confusion.get(run_id):
            right, total = sum(row[place] for place, row in enumerate(counts)), sum(map(sum, counts))
            wrong = [(i, j, n) for i, row in enumerate(counts) for j, n in enumerate(row) if i != j and n]
            yield {
                "config": rank - 1,
                "seed": seed,
                "right": right / (total or 1),
                "cells": charts.heat(counts) if len(counts) <= CLASSES else [],
                "mixups": sorted(wrong, key=lambda mixup: -mixup[2])[:MIXUPS],
            }


def _parameters(comparison: Comparison) -> Iterator[Row]:
    """The parameters of the best configs: their values, joined where seeds differ; and whether these are the same."""
    best = comparison.runs[comparison.runs["rank"] <= SIDE_BY_SIDE]
    found = section(best, PARAMS).fillna(MISSING)
    for key, column in found.loc[:, ~found.columns.str.startswith("tracking.")].items():
        by_config = [", ".join(values.unique()) for _, values in column.groupby(best["rank"])]
        yield {"name": key, "by_config": by_config, "same": len(set(by_config)) == 1}

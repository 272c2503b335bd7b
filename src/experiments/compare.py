"""Recorded runs side by side: ``python -m experiments.compare sweep=latest``."""

import os
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from omegaconf import DictConfig
from rich.console import Console

from experiments import tables
from experiments.cli import check_command, command
from experiments.comparison import Comparison, Run, best_runs, compare, curve_of
from experiments.config import CompareConfig, Problem, Refused, RunFailed
from experiments.config.problems import assign
from experiments.filters import Facts, facts, fitting, ordered, parse


def compare_runs(composed: DictConfig) -> None:
    """Print the ranking of recorded runs; write a report of them."""
    config = check_command(composed, CompareConfig)
    _check_choice(config)
    conditions = [parse(text) for text in config.filter]
    _check_report(config.report)
    from experiments.tracking import selection as recorded

    named = dict.fromkeys(config.runs, "runs")
    if config.sweep not in (None, "latest"):
        named[str(config.sweep)] = "sweep"
    client = recorded.open_records(config.tracking, named)
    selection = recorded.select(client, config)
    known = {run.run_id: {**facts(run), **selection.origins[run.run_id]._asdict()} for run in selection.runs}
    runs = fitting(selection.runs, conditions, known)
    if not runs:
        raise Refused(Problem("filter", f"none of the {len(selection.runs)} runs fits: {' and '.join(config.filter)}"))
    ranked_by = _common(runs, known, config.filter)
    everything = config.format == "json" or config.report
    runs = recorded.with_curves(client, runs, None if everything else [curve_of(ranked_by)])
    comparison = compare(runs, selection.title, ranked_by, selection.circumstances)
    _print(comparison, ordered(comparison, config.sort), config.format)
    if config.report:
        confusion = recorded.confusion_matrices(client, best_runs(comparison))
        write_report(Path(config.report), comparison, confusion)
        print(f"report: {config.report}", file=sys.stdout if config.format == "text" else sys.stderr)


def _check_choice(config: CompareConfig) -> None:
    if config.runs and (config.sweep is not None or config.tracking.experiment):
        other = "a sweep" if config.sweep is not None else "an experiment"
        raise Refused(Problem("runs", f"got {other} and runs, expected one of them", "runs=[]"))


def _check_report(path: str | None) -> None:
    if path is None:
        return
    folder = Path(path).absolute().parent
    if not folder.is_dir():
        raise Refused(Problem("report", f"there is no folder {folder}", assign("report", Path(path).name)))
    if Path(path).is_dir() or not os.access(folder, os.W_OK):
        raise Refused(Problem("report", f"got {path}, expected a file that can be written", "report=report.html"))


def _common(runs: Sequence[Run], known: Mapping[str, Facts], filters: Sequence[str]) -> str:
    """The metric that all runs are ranked by.

    Raises:
        Refused: They are ranked by several, or were measured on several data sets.
    """
    for key, what in (
        ("ranked_by", "ranked by different metrics"),
        ("dataset", "of different data sets"),
        ("digest", "of different versions of the data"),
    ):
        counts = Counter(str(known[run.run_id][key]) for run in runs if known[run.run_id][key])
        if len(counts) > 1:
            told = ", ".join(f"{value} ({count})" for value, count in counts.most_common())
            remedy = [*filters, f"{key}={counts.most_common(1)[0][0]}"]
            message = f"the {len(runs)} runs are {what}, which cannot be ranked together: {told}"
            raise Refused(Problem("filter", message, assign("filter", remedy[0] if len(remedy) == 1 else remedy)))
    ranked_by = max(str(known[run.run_id]["ranked_by"]) for run in runs)
    if not ranked_by:
        raise Refused(Problem("filter", f"none of the {len(runs)} runs says what it is ranked by: no runs of ours"))
    return ranked_by


def _print(comparison: Comparison, ranked: tables.Ranked, form: str) -> None:
    if form != "text":
        write = {"csv": tables.as_csv, "json": tables.as_json, "markdown": tables.as_markdown}[form]
        sys.stdout.write(write(comparison, ranked))
        return
    console = Console()
    runs = sum(len(standing.runs) for standing in comparison.standings) + len(comparison.unfinished)
    tables.say(console, [f"{comparison.title} ({runs} run{'s' if runs > 1 else ''})"])
    tables.show(console, comparison, ranked)
    tables.say(console, tables.notes(comparison))
    tables.show_failures(console, comparison.unfinished)


def write_report(path: Path, comparison: Comparison, confusion: Mapping[str, Any]) -> None:
    """Write the HTML page; whoever reads it meanwhile sees the old one, or the whole new one."""
    from experiments.report import page

    text = page(comparison, confusion)
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.absolute().parent, delete=False) as file:
        written = Path(file.name)
        try:
            file.write(text)
            file.flush()
            written.chmod(0o644)  # a temporary file is its owner's only
            written.replace(path)
        except OSError as error:
            written.unlink()
            raise RunFailed(f"{path} could not be written: {error.strerror}") from error


def main() -> NoReturn:
    """Start the command. Hydra takes ``experiment=NAME`` for a file of that folder, so it gets the key's other name."""
    sys.argv[1:] = [f"tracking.{word}" if word.startswith("experiment=") else word for word in sys.argv[1:]]
    command("compare")(compare_runs)()


if __name__ == "__main__":
    main()

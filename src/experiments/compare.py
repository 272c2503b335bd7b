"""Recorded runs side by side: ``python -m experiments.compare sweep=latest``."""

import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.cli.command import command
from experiments.config import CompareConfig, Problem, Refused, RunFailed
from experiments.config.commands import CHOICES_OF_A_RUN
from experiments.config.problems import NAME_LENGTH, assign
from experiments.ranking import formats, tables
from experiments.ranking.comparison import Comparison, best_runs, comparable, compare, curve_of
from experiments.ranking.conditions import parse_all
from experiments.ranking.filters import filter_runs, sort_configs, sort_key
from experiments.system.terminal import Console, say

if TYPE_CHECKING:
    from experiments.tracking.selection import Selection


def compare_runs(config: CompareConfig) -> None:
    """Print the ranking of recorded runs, one for each group that can be compared; write a report of them."""
    _check_report(config.report)
    client, selection = select(config)
    from experiments.tracking import curves

    runs, groups = selection.runs, comparable(selection.runs)
    if selection.state:
        say(Console(file=None if config.format == "text" else sys.stderr), selection.state)
    if runs.empty:  # none has begun
        return
    sort = sort_key(config.sort, runs) if config.sort else ""  # now: the curves take longer to read
    everything = config.format == "json" or config.report
    comparisons = []
    for objective, members in groups.items():
        with_curves = curves.with_curves(client, members, None if everything else [curve_of(objective.metric)])
        comparisons.append(compare(with_curves, selection.title, objective, selection.circumstances))
    if unknown := len(runs) - sum(map(len, groups.values())):
        print(f"{unknown} of {len(runs)} runs have no recorded objective and are left out", file=sys.stderr)
    _print([sort_configs(each, sort) for each in comparisons] if sort else comparisons, config.format)
    if config.report:
        shown = comparisons[0]
        confusion = curves.confusion_matrices(client, best_runs(shown)["run_id"][:3])
        write_report(Path(config.report), shown, confusion)
        which = f", of the runs measured as {shown.measured_as}" if len(comparisons) > 1 else ""
        print(f"report: {config.report}{which}", file=sys.stdout if config.format == "text" else sys.stderr)


def select(config: CompareConfig) -> "tuple[Any, Selection]":
    """Find the runs that a config asks for; return MLflow's client of their store, and them.

    Raises:
        Refused: There are none.
    """
    _check_choice(config)
    parse_all(config.filter)  # what cannot be read is refused before the store is opened
    from experiments.tracking import leftovers, store
    from experiments.tracking import selection as recorded

    client = leftovers.connect(store.existing(config.tracking, "sweep"))
    selection = recorded.select(client, config)
    runs = filter_runs(selection.runs, config.filter)
    if not (comparable(runs) or (runs.empty and selection.state)):
        what = f"none of the {len(runs)} runs says what it is ranked by: no runs of ours"
        raise Refused(Problem("runs", what, recorded.another_experiment(client, config)))
    return client, replace(selection, runs=runs)


def _check_choice(config: CompareConfig) -> None:
    if config.runs and (config.sweep is not None or config.tracking.experiment):
        other = "a sweep" if config.sweep is not None else "an experiment"
        raise Refused(Problem("runs", f"got {other} and runs, expected one of them", "runs=[]"))
    if words := [run for run in config.runs if run in CHOICES_OF_A_RUN]:
        what = "expected ids of runs, or how they begin: runs=[ID,ID]; without runs, the latest sweep is ranked"
        raise Refused(Problem("runs", f"got {words[0]}, {what}", "runs=[]"))


def _check_report(path: str | None) -> None:
    if path is None:
        return
    if not path.lower().endswith((".html", ".htm")):
        what = f"got {path}, but a report is an HTML page"
        raise Refused(Problem("report", what, assign("report", str(Path(path).with_suffix(".html")))))
    folder = Path(path).absolute().parent
    if not folder.is_dir():
        raise Refused(Problem("report", f"there is no folder {folder}", assign("report", Path(path).name)))
    too_long = len(os.fsencode(Path(path).name)) > NAME_LENGTH
    if too_long or os.path.isdir(path) or not os.access(folder, os.W_OK):
        raise Refused(Problem("report", f"got {path}, expected a file that can be written", "report=report.html"))


def _print(groups: Sequence[Comparison], form: str) -> None:
    if form != "text":
        write = {"csv": formats.as_csv, "json": formats.as_json, "markdown": formats.as_markdown}[form]
        sys.stdout.write(write(groups))
        return
    console = Console()
    runs = sum(len(each.runs) + len(each.unfinished) for each in groups)
    say(console, f"{groups[0].title} ({runs} run{'s' if runs > 1 else ''})")
    tables.show_groups(console, groups)


def write_report(path: Path, comparison: Comparison, confusion: Mapping[str, Any]) -> None:
    """Write the HTML page; whoever reads it meanwhile sees the old one, or the whole new one."""
    from experiments.ranking.report import page

    text = page(comparison, confusion)
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.absolute().parent, delete=False) as file:
        written = Path(file.name)
        try:
            file.write(text)
            file.flush()
            os.umask(umask := os.umask(0))  # there is no other way to ask for it
            written.chmod(0o666 & ~umask)  # a temporary file is its owner's only
            written.replace(path)
        except OSError as error:
            written.unlink()
            raise RunFailed(f"{path} could not be written: {error.strerror}") from error


main = command("compare", CompareConfig)(compare_runs)

if __name__ == "__main__":
    main()

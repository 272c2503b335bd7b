"""The results of a sweep as files of its parent run: the ranked table, a report and a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.tracking import curves, selection
from experiments.tracking.search import search

if TYPE_CHECKING:
    from experiments.ranking.trials import Trial

Row = Mapping[str, Any]
IDS_A_TAG = 200
METRICS_A_REQUEST = 1000  # the most that MLflow takes
STATUSES = {"finished": "FINISHED", "pruned": "PRUNED", "infeasible": "INFEASIBLE", "failed": "FAILED"}


def write(client: Any, experiments: Sequence[str], run_id: str, rows: Sequence[Row], time: int, folder: Path) -> None:
    """Write the files, and record what the parent run says of its runs.

    Args:
        client: MLflow's.
        experiments: MLflow's ids of the experiments of the runs.
        run_id: Of the parent run.
        rows: One a run, group by group of those that can be compared, the largest first, and in it the best first;
            with at least run_id, name, objective and measured_as.
        time: In milliseconds since 1970.
        folder: For the files.
    """
    if not rows:
        return
    import pandas as pd

    pd.DataFrame(list(rows), dtype=object).to_csv(folder / "results.csv", index=False)
    _record(client, run_id, rows, time)
    _name_kept(client, experiments, run_id, rows)
    if any(row["run_id"] for row in rows):  # a sweep may be interrupted before its first run is recorded
        _compare(client, experiments, run_id, rows, time, folder)


def _record(client: Any, run_id: str, rows: Sequence[Row], time: int) -> None:
    from mlflow.entities import Metric, RunTag

    best = rows[0]
    finished = [row for row in rows if row["status"] == "FINISHED"]
    metrics = {"runs": len(rows), "finished_runs": len(finished)}
    tags = {"mlflow.note.content": _markdown(rows)}
    if finished and len({row["measured_as"] for row in rows}) == 1:  # else there is no best of all
        metrics["best_objective"] = best["objective"]
        tags["best_run"] = best["run_id"]
    client.log_batch(
        run_id,
        [Metric(key, value, time, 0) for key, value in metrics.items()],
        tags=[RunTag(key, value) for key, value in tags.items()],
    )


def _name_kept(client: Any, experiments: Sequence[str], run_id: str, rows: Sequence[Row]) -> None:
    """Say in tags which runs of other sweeps, or single ones, count as runs of this one."""
    beneath = {run.info.run_id for run in search(client, experiments, f"tags.`mlflow.parentRunId` = '{run_id}'")}
    kept = [row["run_id"] for row in rows if row["run_id"] and row["run_id"] not in beneath]
    for start in range(0, len(kept), IDS_A_TAG):
        client.set_tag(run_id, f"{selection.KEPT}{start // IDS_A_TAG + 1}", ",".join(kept[start : start + IDS_A_TAG]))


def _record_trials(client: Any, run_id: str, trials: "Sequence[Trial]", time: int) -> None:
    """Record how many trials of a search have ended how, their epochs, and the best value after each, as a curve."""
    from mlflow.entities import Metric

    if not trials:
        return
    statuses = [trial.status for trial in trials if trial.number is not None]
    counts = {f"{name}_trials": statuses.count(status) for name, status in STATUSES.items()}
    metrics = [Metric(key, value, time, 0) for key, value in {**counts, "epochs": trials[-1].spent}.items()]
    numbered = [trial for trial in trials if trial.number is not None and trial.best is not None]
    metrics += [Metric("best_so_far", trial.best, time, trial.number) for trial in numbered]
    for start in range(0, len(metrics), METRICS_A_REQUEST):
        client.log_batch(run_id, metrics[start : start + METRICS_A_REQUEST])


def _compare(
    client: Any, experiments: Sequence[str], run_id: str, rows: Sequence[Row], time: int, folder: Path
) -> None:
    """Write the report and draw the picture, of the largest group of runs that can be compared."""
    from experiments.ranking import picture, report
    from experiments.ranking.comparison import best_runs, comparable, compare, curve_of
    from experiments.task import pictures

    selected = selection.of_sweep(client, experiments, client.get_run(run_id))
    if not (groups := comparable(selected.runs)):
        return
    objective, members = next(iter(groups.items()))
    runs = curves.with_curves(client, members)
    comparison = compare(runs, selected.title, objective, selected.circumstances)
    _record_trials(client, run_id, comparison.trials, time)
    confusion = curves.confusion_matrices(client, best_runs(comparison)["run_id"][:3])
    (folder / "report.html").write_text(report.page(comparison, confusion))
    ranked_by, curves_of = objective.metric, dict(zip(runs["run_id"], runs["curves"], strict=True))
    metric = curve_of(ranked_by)
    shown = [row for row in rows if row["status"] == "FINISHED" and row["run_id"] in curves_of][: picture.COMPARED]
    if shown:
        drawn_curves = [curves_of[row["run_id"]].get(metric, ()) for row in shown]
        names, objectives = [row["name"] for row in shown], [row["objective"] for row in shown]
        (folder / "figures").mkdir()
        drawn = picture.compare_runs(names, objectives, drawn_curves, ranked_by, metric)
        drawn.savefig(folder / "figures" / "runs.png", **pictures.SAVED)


def _markdown(rows: Sequence[Mapping[str, Any]], limit: int = 50) -> str:
    """The table as MLflow shows it in a run's description."""
    hidden = {"run_id", "name", "log", "failure"}
    if len({row["measured_as"] for row in rows}) == 1:
        hidden.add("measured_as")
    columns = [key for key in rows[0] if key not in hidden]
    lines = [columns, ["---"] * len(columns)]
    lines += [[_cell(row[key]) for key in columns] for row in rows[:limit]]
    more = f"\n\n… and {len(rows) - limit} more: results.csv" if len(rows) > limit else ""
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines) + more


def _cell(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else "" if value is None else str(value)

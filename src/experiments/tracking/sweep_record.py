"""The parent run of a sweep in MLflow. Runs in a recording process of its own, which outlives a killed launcher."""

import csv
import importlib
import io
import signal
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import psutil

from experiments.config.schema import Tracking
from experiments.tracking import lock, selection
from experiments.tracking.client import end_run, experiment, import_mlflow, open_existing_store, open_store
from experiments.tracking.process import process_name
from experiments.tracking.provenance import origin
from experiments.tracking.record import run_name
from experiments.tracking.search import measures, seconds
from experiments.tracking.store import FOLDER

USED_AT_THE_END = ("experiments.figures", "experiments.report", "scipy.special")


@dataclass(frozen=True)
class Sweep:
    """What was asked for.

    Attributes:
        experiments: The MLflow experiments of the runs; the parent is in the first.
        overrides: Of the command.
        identity: What commands that are the same have in common.
        swept: The values that are swept, by key.
    """

    tracking: Tracking
    experiments: Sequence[str]
    overrides: Sequence[str]
    identity: str
    swept: Mapping[str, str]


@dataclass(frozen=True)
class Child:
    """A run beneath the parent. `threads` is how many it had, as text; empty if that is not recorded."""

    run_id: str
    status: str
    objective: float | None
    seconds: float
    tags: Mapping[str, str] = field(repr=False)
    threads: str = ""


@dataclass(frozen=True)
class Opened:
    """The parent run of an earlier command, if there is one, and what was recorded beneath it."""

    run_id: str
    children: Sequence[Child] = ()
    under_way: bool = False


class SweepRecord:
    """An MLflow run that the runs of a sweep are nested beneath."""

    def __init__(self, uri: str, own_process: bool) -> None:
        import_mlflow()
        self._uri = uri
        self._client: Any = None
        self._run_id = ""
        self._begun = False
        self._ids: list[str] = []
        self._lock: IO[str] | None = None

    def open(self, sweep: Sweep, resume: bool) -> Opened:
        """Find the latest parent run of the same command if the sweep is to be resumed. Nothing is recorded yet."""
        self._sweep = sweep
        self._client = open_existing_store(self._uri)
        if resume and self._client:
            self._ids = [experiment(self._client, name, self._uri) for name in sweep.experiments]
            same = f"tags.sweep = '{sweep.identity}'"
            for found in self._client.search_runs(self._ids[:1], same, max_results=1):
                return self._reopen(found.info.run_id)
        return Opened("")

    def begin(self) -> str:
        """Create the parent run, or go on with the one that was found; return its id."""
        self.attach(self._sweep.experiments)
        self._begun = True
        if self._run_id:
            self._client.update_run(self._run_id, status="RUNNING")
            return self._run_id
        from mlflow.entities import Param

        sweep = self._sweep
        tags = origin(sweep.tracking, sweep.overrides, "python -m experiments.run -m")
        tags["sweep"] = sweep.identity
        name = sweep.tracking.run_name or f"sweep {run_name(sweep.overrides)}"
        run = self._client.create_run(self._ids[0], tags=tags, run_name=name)
        self._run_id = run.info.run_id
        self._take_lock()
        # MLflow takes no + in a name, and no @.
        swept = {key.lstrip("+").replace("@", ":"): value[:6000] for key, value in sweep.swept.items()}
        self._client.log_batch(self._run_id, params=[Param(key, value) for key, value in swept.items()])
        return self._run_id

    def attach(self, experiments: Sequence[str]) -> None:
        """Look after runs that have no parent: those of another package's sweeper."""
        self._client = open_store(self._uri)
        self._ids = [experiment(self._client, name, self._uri) for name in experiments]

    def _reopen(self, run_id: str) -> Opened:
        self._run_id = run_id
        if not self._take_lock():
            self._run_id = ""  # it is another's
            return Opened(run_id, under_way=True)
        return Opened(run_id, self._settled())

    def _take_lock(self) -> bool:
        """Keep other launchers from resuming the sweep for as long as this process lives."""
        self._lock = lock.take(FOLDER / "locks" / self._run_id, lock.PATIENCE)
        return self._lock is not None

    def _children(self, condition: str = "", limit: int = 50_000) -> list[Child]:
        beneath = f"tags.`mlflow.parentRunId` = '{self._run_id}'" if self._run_id else ""
        wanted = " and ".join(filter(None, (beneath, condition)))
        runs = self._client.search_runs(self._ids, wanted, max_results=limit, order_by=["start_time DESC"])
        return [
            Child(
                run.info.run_id,
                run.info.status,
                measures(run).get("objective"),
                seconds(run) or 0.0,
                run.data.tags,
                run.data.params.get("runtime.threads", ""),
            )
            for run in runs
        ]

    def _settled(self) -> list[Child]:
        """The children, once none is running: their launcher is gone, and they end by themselves, or cannot."""
        children = self._children()
        patience = time.monotonic() + lock.PATIENCE
        for child in children:
            if child.status == "RUNNING" and child.tags.get("host") == socket.gethostname():
                while (process := _process_of(child)) and time.monotonic() < patience:
                    time.sleep(0.1)
                if process:
                    process.send_signal(signal.SIGKILL)
        if not any(child.status == "RUNNING" for child in children):
            return children
        for child in (children := self._children()):
            if child.status == "RUNNING":
                end_run(self._client, child.run_id, "KILLED")
        return self._children()

    def settle(self, pid: int, status: str, reason: str, name: str, tags: Mapping[str, str]) -> Child:
        """End the run of a worker process that has ended, if it did not do so itself; record it if that never happened.

        Args:
            pid: The worker's process.
            status: FAILED or KILLED, unless the run had finished before its worker died.
            reason: Of the failure.
            name: For the run, if the worker died before it was recorded.
            tags: The same; the config's fingerprint tells it from an earlier process of the same number.
        """
        here = f"tags.process LIKE '{pid} %' and tags.host = '{socket.gethostname()}'"
        # The process is gone, so what still runs under its number is its own.
        running = self._children(f"{here} and attributes.status = 'RUNNING'", limit=1)
        ended = self._children(f"{here} and tags.`fingerprint.config` = '{tags['fingerprint.config']}'", limit=1)
        if ended and not running:
            return ended[0]
        if running:
            run_id = running[0].run_id
        else:
            own = {"host": socket.gethostname(), "process": f"{pid} -"}
            parent = {"mlflow.parentRunId": self._run_id} if self._run_id else {}
            run_id = self._client.create_run(self._ids[0], run_name=name, tags={**tags, **own, **parent}).info.run_id
        end_run(self._client, run_id, status, reason)
        return self._children(f"attributes.run_id = '{run_id}'", limit=1)[0]

    def import_ahead(self) -> None:
        """Import what `end` needs, while runs are under way. It only saves time: what fails, fails there again."""
        for name in USED_AT_THE_END:
            with suppress(Exception):
                importlib.import_module(name)

    def children(self, settle: bool) -> list[Child]:
        """All runs beneath the parent, the latest first; to settle them, wait until none is running, or end it."""
        return self._settled() if settle else self._children()

    def end(self, status: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Log the ranked table, a report and a picture that compare the runs, and end the parent run.

        Args:
            status: FINISHED, FAILED or KILLED.
            rows: One a run, group by group of those that can be compared, the largest first, and in it the best first;
                with at least run_id, name, objective and measured_as.
        """
        try:
            if rows:
                self._log_table(rows)
            if any(row["run_id"] for row in rows):  # a sweep may be interrupted before its first run is recorded
                self._log_comparison(rows)
        finally:
            end_run(self._client, self._run_id, status)
            if self._lock:
                if status == "FINISHED":  # it will not go on
                    Path(self._lock.name).unlink(missing_ok=True)
                self._lock.close()

    def _log_table(self, rows: Sequence[Mapping[str, Any]]) -> None:
        from mlflow.entities import Metric, RunTag

        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
        self._client.log_text(self._run_id, text.getvalue(), "results.csv")
        best, now = rows[0], int(time.time() * 1000)
        finished = [row for row in rows if row["status"] == "FINISHED"]
        metrics = {"runs": len(rows), "finished_runs": len(finished)}
        tags = {"mlflow.note.content": _markdown(rows)}
        groups = {row["measured_as"] for row in rows}
        if finished and len(groups) == 1:  # else there is no best of all
            metrics["best_objective"] = best["objective"]
            tags["best_run"] = best["run_id"]
        self._client.log_batch(
            self._run_id,
            [Metric(key, value, now, 0) for key, value in metrics.items()],
            tags=[RunTag(key, value) for key, value in tags.items()],
        )

    def _log_comparison(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Log the report and the picture, of the largest group of runs that can be compared."""
        from experiments import figures, report
        from experiments.comparison import best_runs, comparable, compare, curve_of

        selected = selection.of_sweep(self._client, self._ids, self._client.get_run(self._run_id))
        if not (groups := comparable(selected.runs)):
            return
        objective, members = next(iter(groups.items()))
        runs = selection.with_curves(self._client, members)
        comparison = compare(runs, selected.title, objective, selected.circumstances)
        confusion = selection.confusion_matrices(self._client, best_runs(comparison))
        self._client.log_text(self._run_id, report.page(comparison, confusion), "report.html")
        ranked_by, by_id = objective.metric, {run.run_id: run for run in runs}
        metric = curve_of(ranked_by)
        shown = [row for row in rows if row["status"] == "FINISHED" and row["run_id"] in by_id][: figures.COMPARED]
        if shown:
            curves = [by_id[row["run_id"]].curves.get(metric, ()) for row in shown]
            names, objectives = [row["name"] for row in shown], [row["objective"] for row in shown]
            picture = figures.compare_runs(names, objectives, curves, ranked_by, metric)
            self._client.log_figure(self._run_id, picture, "figures/runs.png", save_kwargs=figures.SAVED)

    def abandon(self) -> None:
        """End the sweep of a launcher that is gone; its workers notice, and end their runs first."""
        if self._begun and self._run_id:
            self._settled()
            end_run(self._client, self._run_id, "KILLED")
        if self._lock:
            self._lock.close()


def _process_of(child: Child) -> psutil.Process | None:
    """The process that a child's record says it runs in, unless that one is gone."""
    recorded = child.tags.get("process", "")
    try:
        pid = int(recorded.partition(" ")[0])
        return psutil.Process(pid) if process_name(pid) == recorded else None
    except (ValueError, psutil.Error):
        return None


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

"""What a person sees of a sweep while it runs: a live picture on a terminal, a line per finished run in a pipe."""

import math
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from textwrap import fill

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from experiments.config.objective import Objective, broken
from experiments.ranking.tables import decimals
from experiments.sweeps.jobs import Job, Outcome
from experiments.sweeps.proposers import Proposer
from experiments.system.terminal import say
from experiments.tracking.summary import CONSTRAINTS


class SweepView:
    """Done, running, failed; time left; the runs under way with their epoch and metrics; the best so far."""

    def __init__(self, console: Console, objectives: Sequence[Objective], proposer: Proposer, workers: int) -> None:
        self._console, self._workers, self._objectives = console, workers, objectives
        self._proposer, self._total, self._before = proposer, proposer.total, proposer.done
        self._running: dict[int, tuple[Job, float, Text]] = {}
        self._best: dict[Objective, tuple[float, str]] = {}
        self._failed = self._pruned = 0
        self._began = time.monotonic()
        self._live = Live(get_renderable=self._picture, console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> "SweepView":
        how = f"{self._workers} at a time" if self._workers > 1 else "one at a time"
        ranked_by = " and ".join(dict.fromkeys(objective.metric for objective in self._objectives))
        number = None if self._total is None else self._total - self._before
        units = self._proposer.unit.removesuffix("s") if number == 1 else self._proposer.unit
        self._say(f"{'' if number is None else f'{number} '}{units}, {how}, ranked by {ranked_by}")
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def kept(self, job: Job, outcome: Outcome) -> None:
        """Say that a run of an earlier sweep answers for a job."""
        if outcome.repeats and outcome.objective is not None:
            self._note_best(job, outcome)
            self._say(f"{self._place()}  known    {self._result(job, outcome.objective)}: {outcome.repeats}")

    def started(self, job: Job) -> None:
        self._running[job.number] = (job, time.monotonic(), Text("starting"))

    def epoch(self, job: Job, epoch: int, epochs: int, metrics: Mapping[str, float]) -> None:
        job, started, _ = self._running[job.number]
        ranked_by = job.objective.metric
        name = next(name for name in (ranked_by, ranked_by.removeprefix("test_"), "loss") if name in metrics)
        what = "measuring" if epoch == epochs else f"epoch {epoch}/{epochs}"
        news = Text(f"{what}  {name} {_number(metrics[name])}")
        self._running[job.number] = (job, started, news)

    def finished(self, job: Job, outcome: Outcome, seconds: float) -> None:
        del self._running[job.number]
        assert outcome.objective is not None
        if outcome.pruned:
            self._pruned += 1
            what = f"stopped after epoch {outcome.pruned}  {job.name}"
        else:
            self._note_best(job, outcome)
            what = self._result(job, outcome.objective)
        self._say(f"{self._place()}  {seconds:5.1f} s  {what}")

    def _note_best(self, job: Job, outcome: Outcome) -> None:
        (best, _), objective = self._best.get(job.objective, (math.nan, "")), outcome.objective
        if objective is None or broken(job.tags.get(CONSTRAINTS, ""), outcome.measures):
            return
        is_better = objective < best if job.objective.lower_is_better else objective > best
        if math.isfinite(objective) and (is_better or math.isnan(best)):
            self._best[job.objective] = objective, job.name

    def _result(self, job: Job, objective: float) -> str:
        return f"{job.objective.metric} {_number(objective)}  {job.name}"

    def failed(self, job: Job, reason: str, log: Path, again: bool) -> None:
        del self._running[job.number]
        self._failed += not again
        what = "failed, and is tried again" if again else "FAILED"
        self._say(f"{self._place()}  {what}  {job.name}: {reason}\n    log: {log}", style="red")

    def gave_up(self, limit: int) -> None:
        left = None if self._total is None else self._total - self._proposer.done - len(self._running)
        if left != 0:
            number = "more" if left is None else left
            what = f"{number} {self._proposer.unit} are not started: hydra.launcher.max_failures={limit}"
            self._say(what, style="red")

    def _place(self) -> str:
        if self._total is None:
            return f"[{self._proposer.done}]"
        return f"[{self._proposer.done:{len(str(self._total))}}/{self._total}]"

    def _say(self, text: str, style: str = "") -> None:
        say(self._console, *(self._wrapped(line) for line in text.splitlines()), style=style)

    def _wrapped(self, text: str) -> str:
        """On a terminal, a text whose lines behind the first one are indented."""
        if not self._console.is_terminal:
            return text
        return fill(text, self._console.width, subsequent_indent="    ", break_on_hyphens=False, break_long_words=False)

    def _picture(self) -> Group:
        now = time.monotonic()
        of = "" if self._total is None else f" of {self._total}"
        done = self._proposer.done
        counts = [f"{done - self._failed}{of} done", f"{len(self._running)} running"]
        if self._pruned:
            counts.append(f"{self._pruned} stopped early")
        if self._failed:
            counts.append(f"[red]{self._failed} failed[/red]")
        if self._total is not None and (ended := done - self._before):
            left = (now - self._began) / ended * (self._total - done)
            counts.append(f"about {timedelta(seconds=round(left))} left")
        bar = Table.grid(padding=(0, 2))
        bar.add_row(ProgressBar(self._total, done, pulse=self._total is None, width=30), ", ".join(counts))
        runs = Table.grid(padding=(0, 2))
        for job, started, news in self._running.values():
            runs.add_row(f"{now - started:5.0f} s", Text(job.name, style="cyan"), news)
        best = [
            self._wrapped(f"best so far: {objective.metric} {_number(value)}  {escape(name)}")
            for objective, (value, name) in self._best.items()
        ]
        return Group(runs, bar, *best)


def _number(value: float) -> str:
    return f"{value:.{decimals([value])}f}"

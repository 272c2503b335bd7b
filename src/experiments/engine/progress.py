"""What a person sees while a model trains: a live bar on a terminal, a line per epoch in a pipe."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import keras
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from experiments.system.terminal import Console, say
from experiments.task import Report


class ShowProgress(keras.callbacks.Callback):  # type: ignore[misc]
    """Prints each finished epoch; on a terminal, a bar below shows the steps of the epoch under way."""

    def __init__(self, console: Console | None = None) -> None:
        super().__init__()
        self.console = console = console or Console()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal or console.is_dumb_terminal,  # which shows empty lines of it
        )

    def __enter__(self) -> "ShowProgress":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()  # however training ended

    def on_train_begin(self, logs: Any = None) -> None:
        self._bar.start()
        self._task = self._bar.add_task("", total=self.params["epochs"] * self.params["steps"])

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._started, self._before = time.perf_counter(), epoch * self.params["steps"]
        self._bar.update(self._task, description=f"epoch {epoch + 1}/{self.params['epochs']}")

    def on_train_end(self, logs: Any = None) -> None:
        self._bar.stop()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        done = min(batch + 1, self.params["steps"])
        self._bar.update(self._task, completed=self._before + done)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        seconds = time.perf_counter() - self._started
        measured = "  ".join(f"{name} {float(value):.4g}" for name, value in (logs or {}).items())
        width = len(str(self.params["epochs"]))
        say(self.console, f"epoch {epoch + 1:{width}}/{self.params['epochs']}  {seconds:5.1f} s  {measured}")


def show_result(console: Console, report: Report, recorded: Sequence[str], run_id: str) -> None:
    """Say how it went and what to do next.

    Args:
        console: Where.
        report: The measures.
        recorded: Lines that say where the run is recorded.
        run_id: MLflow's id of it; empty: not known.
    """
    measured = "  ".join(f"{name} {value:.4f}" for name, value in report.measures.items())
    say(console, measured, style="bold")
    for line in recorded:
        say(console, line, whole=True)
    if run_id:
        say(console, f"look at it:  python -m experiments.predict run={run_id}", whole=True)

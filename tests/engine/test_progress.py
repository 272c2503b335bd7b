import io
import re

import numpy as np
from rich.console import Console

from experiments.engine.progress import ShowProgress, show_result
from experiments.task.classification import ClassReport
from tests.composed import train  # noqa: F401  (starts Keras)


def follow(console: Console) -> str:
    with ShowProgress(console) as watcher:
        watcher.set_params({"epochs": 10, "steps": 3})
        watcher.on_train_begin()
        for epoch in range(2):
            watcher.on_epoch_begin(epoch)
            for batch in (1, 2, 5):  # with steps_per_execution Keras counts past the end
                watcher.on_train_batch_end(batch)
            watcher.on_epoch_end(epoch, {"loss": np.float32(0.25), "accuracy": 0.912345})
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_pipe_gets_a_line_an_epoch() -> None:
    lines = follow(Console(file=io.StringIO(), width=20)).splitlines()
    assert len(lines) == 2
    assert re.fullmatch(r"epoch  1/10 +\d+\.\d s  loss 0.25  accuracy 0.9123", lines[0])


def test_a_terminal_gets_a_bar_too() -> None:
    shown = follow(Console(file=io.StringIO(), force_terminal=True, width=100))
    assert "epoch  2/10" in shown
    assert "6/30" in shown


def test_the_result_says_what_to_do_next() -> None:
    report = ClassReport({"test_loss": 0.1, "test_accuracy": 0.98765}, {})
    for run_id, lines in (("", 1), ("abc", 3)):
        console = Console(file=io.StringIO(), width=20)
        show_result(console, report, [f"recorded as run {run_id}"] if run_id else [], run_id)
        shown = console.file.getvalue()
        assert shown.startswith("test_loss 0.1000  test_accuracy 0.9877\n")
        assert len(shown.splitlines()) == lines
        assert ("python -m experiments.predict run=abc" in shown) == bool(run_id)

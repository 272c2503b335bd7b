"""Measures of a finished model, whatever its task."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.config import Config, RunFailed
from experiments.task.protocol import Measure, Report, Task, of

WORST = 15  # number of worst inputs that a report shows in detail
CAUSES = (
    "The usual causes are a learning rate that is too high (try a tenth of optimizer.learning_rate), gradients that "
    "explode (try optimizer.clipnorm=1), or inputs that are not scaled (data.scale)"
)


def evaluate(measure: Measure, dataset: Any, activation: str) -> Report:
    """Measure a model on the test set, and on the validation set if there is one.

    Args:
        measure: Gives the metrics of a model on a split, and its outputs (n, outputs).
        dataset: The data set that the model was trained on.
        activation: What the outputs come from, see `last_activation`.

    Raises:
        RunFailed: A measure is NaN or infinite.
    """
    test, task = dataset.test, of(dataset.task)
    measured, outputs = measure(test)
    measures = {f"test_{name}": value for name, value in measured.items()}
    if dataset.validation:
        measures |= {f"final_val_{name}": value for name, value in measure(dataset.validation)[0].items()}
    refuse_what_is_not_finite(measures)
    return task.report(measures, keep(task, test, outputs, activation))


def keep(task: Task, test: Any, outputs: NDArray[np.float32], activation: str) -> dict[str, NDArray[Any]]:
    """What a report is made of: all that a task says of each input, and more of the worst of them.

    Args:
        task: The task.
        test: The test set: its inputs ``x``, targets ``y`` and, if it is a part of one, their ``numbers``.
        outputs: What the model gives for it (n, `Task.outputs`).
        activation: What the outputs come from.
    """
    judged = task.judge(test.y, outputs, activation)
    worst = judged.worst[:WORST]
    of_worst = {"x": test.x, "index": np.arange(len(test.y)) if test.numbers is None else test.numbers}
    of_worst |= judged.each | judged.worst_each
    return {**judged.kept, **judged.each, **{f"worst.{name}": values[worst] for name, values in of_worst.items()}}


def refuse_what_is_not_finite(measures: Mapping[str, float]) -> None:
    """Fail the run whose finished model cannot be measured.

    A metric that is not the loss counts, too: such a value can neither be ranked nor reproduced.

    Raises:
        RunFailed: A measure is NaN or infinite.
    """
    wrong = {name: value for name, value in measures.items() if not np.isfinite(value)}
    if not wrong:
        return
    listed = ", ".join(f"{name} is {value}" for name, value in wrong.items())
    if any(name.endswith("loss") for name in wrong):
        raise RunFailed(f"the finished model cannot be measured: {listed}. {CAUSES}")
    names = " and ".join(dict.fromkeys(re.sub("^(test|final_val)_", "", name) for name in wrong))
    raise RunFailed(
        f"the finished model cannot be measured: {listed}, though its loss is finite. The metric has no value for "
        f"these outputs: leave {names} out of metrics, or have it return a finite number"
    )


def objective(config: Config, history: Mapping[str, Sequence[float]], report: Report) -> float:
    """The value that runs are ranked by, of the finished model; a training metric is that of the last epoch.

    Raises:
        RunFailed: It is NaN or infinite.
    """
    name = config.objective_metric
    if name.startswith("val_"):
        return report.measures[f"final_{name}"]
    if name in report.measures:
        return report.measures[name]
    refuse_what_is_not_finite({name: (value := float(history[name][-1]))})
    return value


def last_activation(model: Any) -> str:
    """The name of what a model's outputs come from: an activation, or a layer such as Softmax."""
    last = model.layers[-1]
    activation = getattr(last, "activation", None)
    return str(getattr(activation, "__name__", "") or type(activation or last).__name__).lower()

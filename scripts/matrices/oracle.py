"""What a recorded run has to be, by plain Keras, scikit-learn and SQLite: no code of the project is used."""

import json
import math
import sqlite3
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import numpy as np
from numpy.typing import NDArray

from matrices.choices import Row

# Relative differences that are accepted: sums are added up in another order; half precision rounds each value.
CLOSE = {"float32": 2e-4, "mixed_float16": 2e-2, "mixed_bfloat16": 1e-1}
# The share of guesses that may differ: half precision gives many outputs the same value.
TIES = {"float32": 0.0, "mixed_float16": 0.02, "mixed_bfloat16": 0.1}
# Of an area under a curve: an output may lie on one of its thresholds, and half precision has few values beside them.
AREA = {"float32": 1e-3, "mixed_float16": 1e-3, "mixed_bfloat16": 5e-3}
BATCH = 1000  # images per step of the project's own evaluation, which dice and tversky depend on

Metrics = dict[str, dict[int, float]]


class Recorded:
    """The only run in a SQLite store.

    Attributes:
        metrics: By name and step.
        tags: All of them.
        artifacts: Their folder.
        model: The folder of the logged model.
    """

    def __init__(self, store: Path) -> None:
        with closing(sqlite3.connect(store)) as connection:
            [[self.id, self.status, address]] = connection.execute("SELECT run_uuid, status, artifact_uri FROM runs")
            self.tags = dict(connection.execute("SELECT key, value FROM tags").fetchall())
            self.metrics: Metrics = {}
            for key, step, value, is_nan in connection.execute("SELECT key, step, value, is_nan FROM metrics"):
                self.metrics.setdefault(key, {})[step] = math.nan if is_nan else value
            models = connection.execute("SELECT artifact_location FROM logged_models").fetchall()
        self.artifacts = _folder(address)
        self.model = _folder(models[0][0]) if models else None

    @property
    def last(self) -> dict[str, float]:
        """The last value of each metric."""
        return {name: by_step[max(by_step)] for name, by_step in self.metrics.items()}


def recorded_metrics(store: Path) -> set[str]:
    """The metrics that are recorded by now; none if the store is not there yet."""
    if not store.exists():
        return set()
    with closing(sqlite3.connect(store)) as connection, suppress(sqlite3.OperationalError):
        return {key for (key,) in connection.execute("SELECT DISTINCT key FROM metrics")}
    return set()


def _folder(address: str) -> Path:
    return Path(unquote(urlparse(address).path))


def problems(row: Row, store: Path, data: Path) -> Iterator[str]:
    """Find what is wrong with a run that finished.

    Args:
        row: Its choices.
        store: The SQLite file.
        data: The arrays that it was trained on.
    """
    run = Recorded(store)
    if run.status != "FINISHED" or run.model is None:
        yield f"it is {run.status}, and its model is in {run.model}"
        return
    yield from _report_and_record(run)
    with np.load(data) as arrays:
        x, y = arrays["x_test"].astype(np.float32) / np.float32(16), arrays["y_test"].astype(np.int64)
    x = x[..., np.newaxis]
    outputs, evaluated = _with_keras(row, run.model, x, y)
    report = json.loads((run.artifacts / "report.json").read_text())
    moved = np.abs(np.array(report["confusion_matrix"]) - _confusion(outputs, y)).sum() / 2
    if moved > TIES[row.precision.name] * len(y):
        yield f"the confusion matrix has {moved:g} guesses that are not those of the logged model"
    measured = {**evaluated, **_with_scikit_learn(row, outputs, y)}
    for name, value in measured.items():
        recorded = run.last.get(f"test_{name}")
        close = (AREA if name == "auc" else CLOSE)[row.precision.name]
        if recorded is None or not math.isclose(recorded, value, rel_tol=close, abs_tol=close):
            yield f"test_{name} is {value} by another way, recorded is {recorded}"


def _report_and_record(run: Recorded) -> Iterator[str]:
    measures = json.loads((run.artifacts / "report.json").read_text())["measures"]
    for name, value in measures.items():
        if run.last.get(name) != value:
            yield f"report.json has {name} {value}, the record {run.last.get(name)}"
    for name, by_step in run.metrics.items():
        if not all(map(math.isfinite, by_step.values())):
            yield f"{name} is not finite: {by_step}"
    epochs = set(run.metrics["loss"])
    for name in ("accuracy", *(["val_loss", "val_accuracy"] if "val_loss" in run.metrics else [])):
        if set(run.metrics.get(name, {})) != epochs:
            yield f"{name} has the epochs {sorted(run.metrics.get(name, {}))}, loss {sorted(epochs)}"
    if epochs != set(range(len(epochs))):
        yield f"the epochs are {sorted(epochs)}"


def _with_keras(row: Row, model: Path, x: NDArray[Any], y: NDArray[Any]) -> tuple[NDArray[Any], dict[str, float]]:
    """The outputs of the logged model, and its measures, by Keras alone."""
    import keras

    file = model / "data" / "model.keras"
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # the optimizer's state, too, must be restored
        loaded = keras.saving.load_model(file)
    labels: Any = np.eye(10, dtype=np.float32)[y] if row.loss.keras["labels"] == "one_hot" else y.astype(np.int32)
    if not loaded.compiled:
        name = "".join(part.capitalize() for part in row.loss.keras["name"].split("_"))
        loss = getattr(keras.losses, {"KlDivergence": "KLDivergence"}.get(name, name), None) or getattr(
            keras.losses, name.replace("Crossentropy", "CrossEntropy")
        )
        loaded.compile(loss=loss(**row.loss.keras["arguments"]), metrics=["accuracy"])
    evaluated = loaded.evaluate(x, labels, batch_size=BATCH, verbose=0, return_dict=True)
    outputs = loaded.predict(x, batch_size=BATCH, verbose=0).astype(np.float64)
    return outputs, {name: float(value) for name, value in evaluated.items()}


def _confusion(outputs: NDArray[Any], y: NDArray[Any]) -> NDArray[Any]:
    from sklearn.metrics import confusion_matrix

    found: NDArray[Any] = confusion_matrix(y, outputs.argmax(axis=1), labels=range(10))
    return found


def _with_scikit_learn(row: Row, outputs: NDArray[Any], y: NDArray[Any]) -> Mapping[str, float]:
    """The metrics of a row, by scikit-learn; where Keras computes something else, by NumPy."""
    from sklearn import metrics

    one_hot, probable = np.eye(10)[y], _probabilities(row, outputs)
    guess = outputs.argmax(axis=1)
    clipped = np.clip(probable / probable.sum(axis=1, keepdims=True), 1e-7, 1 - 1e-7)
    entropy = -np.log(clipped[np.arange(len(y)), y]).mean()
    known: dict[str, Callable[[], Any]] = {
        "accuracy": lambda: metrics.accuracy_score(y, guess),
        "auc": lambda: _area(one_hot.ravel() > 0, probable.ravel()),
        "precision": lambda: metrics.precision_score(one_hot.ravel(), probable.ravel() > 0.5, zero_division=0),
        "recall": lambda: metrics.recall_score(one_hot.ravel(), probable.ravel() > 0.5),
        "f1_score": lambda: metrics.f1_score(y, guess, average="macro", labels=range(10), zero_division=0),
        "top_k_categorical_accuracy": lambda: _top(outputs, y),
        "sparse_top_k_categorical_accuracy": lambda: _top(outputs, y),
        "mean_squared_error": lambda: np.square(one_hot - outputs).mean(),
        "MeanAbsoluteError": lambda: np.abs(one_hot - outputs).mean(),
        "categorical_crossentropy": lambda: entropy,
        "SparseCategoricalCrossentropy": lambda: entropy,
    }
    return {name: float(known[name]()) for name in row.metrics.keras}


def _area(truth: NDArray[Any], probable: NDArray[Any]) -> float:
    """The area under the ROC curve through 200 thresholds, as Keras has it: outputs between two of them are equal."""
    from sklearn import metrics

    thresholds = np.linspace(0, 1, 200)
    thresholds[[0, -1]] = -1e-7, 1 + 1e-7
    caught, wrong = ([(probable[rows] > threshold).mean() for threshold in thresholds] for rows in (truth, ~truth))
    return float(metrics.auc(wrong, caught))


def _top(outputs: NDArray[Any], y: NDArray[Any], k: int = 3) -> float:
    """How often fewer than k outputs are larger than that of the truth."""
    larger = (outputs > outputs[np.arange(len(y)), y][:, np.newaxis]).sum(axis=1)
    return float((larger < k).mean())


def _probabilities(row: Row, outputs: NDArray[Any]) -> NDArray[Any]:
    if not row.loss.keras["arguments"].get("from_logits"):
        return outputs
    if row.loss.keras["name"].startswith("binary"):
        return np.asarray(1 / (1 + np.exp(-outputs)))
    powers = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def differences(one: Path, other: Path) -> Iterator[str]:
    """What differs between two runs that have to be equal to the last bit."""
    first, second = Recorded(one), Recorded(other)
    if first.tags.get("weights.digest") != second.tags.get("weights.digest"):
        yield "the weights differ"
    timed = {"fit_seconds", "seconds_per_epoch", "samples_per_second"}
    for name in sorted((first.metrics.keys() | second.metrics.keys()) - timed):
        if first.metrics.get(name) != second.metrics.get(name):
            yield f"{name} is {first.metrics.get(name)} and {second.metrics.get(name)}"

from typing import Any

import numpy as np
import pytest

from experiments.config import RunFailed
from experiments.data import Dataset, Split
from experiments.task import of
from experiments.task.classification import predictions
from experiments.task.measuring import evaluate, keep, objective
from tests.composed import config

OUTPUTS = np.array([[0.9, 0.1, 0], [0.2, 0.7, 0.1], [0.6, 0.3, 0.1], [0.1, 0.1, 0.8]], np.float32)
SPLIT = Split(np.arange(16, dtype=np.float32).reshape(4, 2, 2, 1), np.array([0, 2, 1, 1]))


def report(validation: Split | None = None) -> Any:
    def measure(split: Split) -> tuple[dict[str, float], np.ndarray]:
        return {"loss": float(len(split)), "accuracy": 0.25}, OUTPUTS

    return evaluate(measure, Dataset("made up", "", "", 3, SPLIT, validation, SPLIT), "softmax")


def test_the_report_counts_by_truth_and_guess() -> None:
    matrix = report().confusion_matrix
    assert matrix.tolist() == [[1, 0, 0], [1, 0, 1], [0, 1, 0]]


def test_mistakes_come_surest_first() -> None:
    kept = keep(of("classification"), SPLIT, OUTPUTS, "softmax")
    assert kept["worst.index"].tolist() == [3, 1, 2]
    assert (kept["worst.truth"].tolist(), kept["worst.guess"].tolist()) == ([1, 2, 1], [2, 1, 0])
    assert kept["worst.probability"] == pytest.approx([0.8, 0.7, 0.6])
    assert kept["mistakes"] == 3
    np.testing.assert_array_equal(kept["worst.x"], SPLIT.x[[3, 1, 2]])
    numbered = keep(of("classification"), Split(SPLIT.x, SPLIT.y, np.array([7, 8, 9, 10])), OUTPUTS, "softmax")
    assert numbered["worst.index"].tolist() == [10, 8, 9]


def test_measures_are_named_by_what_they_measure() -> None:
    assert report().measures == {"test_loss": 4.0, "test_accuracy": 0.25}
    assert report(SPLIT).measures["final_val_loss"] == 4.0


def test_the_objective_is_of_the_finished_model() -> None:
    history = {"loss": [3.0, 2.0], "val_loss": [9.0, 8.0], "accuracy": [0.1, 0.9]}
    assert objective(config(), history, report()) == 0.25
    assert objective(config("data.validation_size=0.2", "objective=val_loss"), history, report(SPLIT)) == 4.0
    assert objective(config("objective=loss"), history, report()) == 2.0
    assert objective(config("objective=test_loss"), history, report()) == 4.0


@pytest.mark.parametrize(
    ("activation", "outputs", "expected"),
    [
        ("softmax", [[0.2, 0.8]], [[0.2, 0.8]]),
        ("sigmoid", [[0.5, 1.0], [0.0, 0.0]], [[1 / 3, 2 / 3], [0.5, 0.5]]),
        ("sigmoid", [[0.5004, 0.5004]], [[0.5, 0.5]]),
        ("linear", [[0.0, np.log(3.0)]], [[0.25, 0.75]]),
        ("linear", [[0.0, np.log(3.0)], [-1.0, 1e3]], [[0.25, 0.75], [0.0, 1.0]]),
        ("linear", [[0.5, 0.5]], [[0.5, 0.5]]),
        ("tanh", [[-1.0, -1.0]], [[0.5, 0.5]]),
    ],
)
def test_outputs_become_probabilities(activation: str, outputs: list[list[float]], expected: list[list[float]]) -> None:
    """Of each image by itself, whatever stands beside it."""
    found = predictions(np.array(outputs, np.float64), activation)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found.dtype == np.float32


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("metric", "words"), [("loss", "test_loss is .*learning rate"), ("mine", "leave mine out of")])
def test_a_measure_that_is_not_finite_fails_the_run(metric: str, value: float, words: str) -> None:
    split = Split(np.zeros((4, 2), np.float32), np.arange(4) % 2)
    measured = {"loss": 1.0, "mine": 1.0, metric: value}
    with pytest.raises(RunFailed, match=words):
        evaluate(
            lambda split: (measured, np.eye(2, dtype=np.float32)[split.y]),
            Dataset("", "", "", 2, split, None, split),
            "softmax",
        )

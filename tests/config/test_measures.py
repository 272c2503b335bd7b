"""The tables of metrics and losses against the installed Keras."""

import inspect

import keras
import pytest

from experiments.config import measures


def classes(module: object, base: type) -> set[str]:
    found = {name for name, value in vars(module).items() if inspect.isclass(value) and issubclass(value, base)}
    assert len(found) > 20
    return found - {base.__name__}


def test_every_metric_of_keras_is_listed() -> None:
    assert classes(keras.metrics, keras.metrics.Metric) == measures.METRICS.keys() | measures.NO_MEASURES


def test_every_loss_of_keras_is_listed() -> None:
    assert classes(keras.losses, keras.losses.Loss) == measures.LOSSES.keys() | measures.NO_CLASSIFICATION


@pytest.mark.parametrize("name", sorted(measures.METRICS))
def test_directions_are_those_that_keras_gives(name: str) -> None:
    arguments = {
        "IoU": {"num_classes": 3, "target_class_ids": [0]},
        "OneHotIoU": {"num_classes": 3, "target_class_ids": [0]},
        "MeanIoU": {"num_classes": 3},
        "OneHotMeanIoU": {"num_classes": 3},
        "PrecisionAtRecall": {"recall": 0.5},
        "RecallAtPrecision": {"precision": 0.5},
        "SensitivityAtSpecificity": {"specificity": 0.5},
        "SpecificityAtSensitivity": {"sensitivity": 0.5},
    }.get(name, {})
    direction = getattr(getattr(keras.metrics, name)(**arguments), "_direction", None)
    assert {"up": "max", "down": "min", None: measures.METRICS[name].mode}[direction] == measures.METRICS[name].mode


@pytest.mark.parametrize("name", ["mean_squared_error", "MeanSquaredError", "meansquarederror"])
def test_a_name_is_spelled_either_way(name: str) -> None:
    assert measures.metric(name) == measures.METRICS["MeanSquaredError"]
    assert measures.loss(name) == measures.LOSSES["MeanSquaredError"]
    assert measures.metric(f"mine.{name}") is None

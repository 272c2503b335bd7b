"""Configs and runs for tests of the modules below the commands: digits, small networks, one process."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from experiments.cli.checks import CONF
from experiments.config import Config
from experiments.data import Dataset, Split, load
from experiments.engine import backend
from experiments.engine.checkpoints import Checkpoints
from experiments.task.measuring import evaluate, last_activation
from tests import composing

backend.start("auto", "float32", 0)

import keras  # noqa: E402

from experiments.engine import callbacks, models, training  # noqa: E402

MNIST = Path(os.environ.get("EXPERIMENTS_DATA_DIR", ""), "mnist.npz")


def config(*overrides: str) -> Config:
    """The checked config of a small run on digits."""
    small = ("data=digits", "tracking=off", "data.limit=100", "epochs=2", "runtime.checkpoint_every=1")
    return composing.config(*small, *overrides)


loaded = cache(load)


def names(group: str) -> list[str]:
    found = sorted(file.stem for file in (CONF / group).glob("*.yaml"))
    assert found
    return found


@cache
def digits(limit: int | None = 100, validation_size: float = 0) -> Dataset:
    setting = [f"data.limit={limit or 'null'}", f"data.validation_size={validation_size}"]
    return loaded(config(*setting).data, 0)


@cache
def images(height: int = 24, channels: int = 1, classes: int = 3) -> Dataset:
    """Random images that are large enough for convolutions."""
    x = np.random.default_rng(0).random((60, height, height, channels), dtype=np.float32)
    y = np.arange(60) % classes
    return Dataset("random", "", "", classes, Split(x[:40], y[:40]), None, Split(x[40:], y[40:]))


@dataclass
class Run:
    config: Config
    dataset: Dataset
    model: keras.Sequential
    history: dict[str, list[float]]
    report: Any

    @property
    def weights(self) -> list[Any]:
        return self.model.get_weights()


def build(checked: Config, dataset: Dataset, **options: Any) -> keras.Sequential:
    backend.start("auto", checked.precision, checked.seed)
    return models.build(checked, dataset, **{"xla": False, "steps_per_execution": 1, **options})


def train(
    *overrides: str,
    dataset: Dataset | None = None,
    folder: Path = Path(),
    eager: bool = False,
    checkpoints: Checkpoints | None = None,
    watchers: Sequence[keras.callbacks.Callback] = (),
) -> Run:
    """Do what ``run.py`` does between data and record. `eager` saves the tracing, which takes longer than the steps."""
    checked = config(*overrides)
    dataset = dataset or loaded(checked.data, checked.seed, task=checked.task.name)
    choices = training.choose(checked, dataset, 1)
    finished = checkpoints.state.epochs if checkpoints and checkpoints.state else 0
    configured = callbacks.build(checked, folder, finished)
    model = build(checked, dataset, xla=choices.xla, steps_per_execution=1 if eager else choices.steps_per_execution)
    model.run_eagerly = eager
    history = training.fit(model, dataset, checked, choices, configured, watchers=watchers, checkpoints=checkpoints)
    measure = training.measurer(model, checked, dataset.outputs, choices.evaluation_batch_size)
    return Run(checked, dataset, model, dict(history.metrics), evaluate(measure, dataset, last_activation(model)))

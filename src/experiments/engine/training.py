"""Trains a model: the choices that make it fast, and the order of the batches."""

import errno
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from experiments.config import Config, Problem, Refused, RunFailed
from experiments.config import choices as auto
from experiments.config.choices import Choices
from experiments.data import Dataset, Split
from experiments.engine.checkpoints import Checkpoints, State
from experiments.engine.models import encode_targets
from experiments.engine.run_callbacks import EvaluateAverages, KeepCheckpoints, RecordLearningRate, StopOnNaN
from experiments.engine.vocabulary import reason


@dataclass(frozen=True)
class History:
    """What training measured: each metric's values by epoch, its seconds, and how many inputs an epoch has."""

    metrics: Mapping[str, list[float]]
    seconds: float
    inputs: int

    @property
    def epochs(self) -> int:
        """Number of epochs."""
        return len(self.metrics["loss"])

    @property
    def timings(self) -> dict[str, float]:
        """Seconds in all, by epoch, and what is trained on in one."""
        per_second = {"samples_per_second": self.inputs * self.epochs / self.seconds}
        return {"fit_seconds": self.seconds, "seconds_per_epoch": self.seconds / self.epochs} | per_second


def choose(config: Config, dataset: Dataset, threads: int) -> Choices:
    """Settle what the config leaves to us, on the devices that there are."""
    gpus = bool(tf.config.list_physical_devices("GPU"))
    if gpus and config.runtime.xla is True:
        raise Refused(
            Problem("runtime.xla", "TensorFlow has no XLA with deterministic GPU operations", "runtime.xla=auto")
        )
    return auto.choose(config, len(dataset.train), threads, gpus)


def fit(
    model: keras.Sequential,
    dataset: Dataset,
    config: Config,
    choices: Choices,
    callbacks: Sequence[keras.callbacks.Callback],
    *,
    watchers: Sequence[keras.callbacks.Callback] = (),
    checkpoints: Checkpoints | None = None,
) -> History:
    """Train the compiled model on the training set, from where its checkpoint stands if it has one.

    Args:
        model: As `models.build` made it.
        dataset: The data.
        config: The config.
        choices: See `choose`.
        callbacks: Those of the config. Their state is kept.
        watchers: More of them, without a state that matters.
        checkpoints: Where the run is saved; None: nowhere.

    Raises:
        RunFailed: The loss or a weight is not a finite number, memory ran out, or a callback could not write its file.
    """
    batches, validation = Batches(dataset, config), dataset.validation
    before = checkpoints.state if checkpoints else None
    started = time.perf_counter()
    try:
        with _memory_runs_out_while(f"training. Try a smaller batch_size than {config.batch_size}, or a smaller model"):
            fitted = model.fit(
                batches.dataset,
                epochs=config.epochs,
                initial_epoch=_first_epoch(before, config),
                shuffle=False,  # `Batches` did
                verbose=0,
                callbacks=[batches.follow_epochs(), *_all(config, callbacks, choices.threads, checkpoints), *watchers],
                validation_data=validation and (validation.x, encode_targets(validation.y, config, dataset.outputs)),
                validation_batch_size=choices.evaluation_batch_size,
            )
    except OSError as error:
        raise RunFailed(f"a callback could not write its file: {reason(error)}") from error
    seconds = time.perf_counter() - started + (before.seconds if before else 0)
    return History(_continued(before, fitted.history), seconds, len(dataset.train))


def _all(
    config: Config, callbacks: Sequence[keras.callbacks.Callback], threads: int, checkpoints: Checkpoints | None
) -> Iterator[keras.callbacks.Callback]:
    """Those of the config among those that every run has, in the order in which they have to be called."""
    yield StopOnNaN()
    callbacks = [*([EvaluateAverages()] if config.optimizer.use_ema else []), *callbacks]
    yield from callbacks
    if config.optimizer.schedule.name != "constant":
        yield RecordLearningRate()
    if checkpoints:
        yield KeepCheckpoints(checkpoints, callbacks, threads, config.runtime.checkpoint_every)


@contextmanager
def _memory_runs_out_while(doing: str) -> Iterator[None]:
    try:
        yield
    except (tf.errors.ResourceExhaustedError, MemoryError) as error:
        if os.strerror(errno.ENOSPC) in str(error):
            raise RunFailed(
                f"no space left in {tempfile.gettempdir()} for what XLA compiles. Set TMPDIR to a folder on a disk "
                "that has some, or runtime.xla=false"
            ) from error
        raise RunFailed(f"memory ran out while {doing}") from error


def _first_epoch(before: State | None, config: Config) -> int:
    if before is None:
        return 0
    return config.epochs if before.stopped else before.epochs


def _continued(before: State | None, metrics: Mapping[str, list[float]]) -> dict[str, list[float]]:
    """The history of a run that went on from a checkpoint."""
    earlier = before.history if before else {}
    return {name: [*earlier.get(name, ()), *metrics.get(name, ())] for name in {**earlier, **metrics}}


def measurer(
    model: keras.Sequential, config: Config, outputs: int, batch_size: int
) -> Callable[[Split], tuple[dict[str, float], NDArray[np.float32]]]:
    """Make a function that gives a model's loss and metrics on a split, and its outputs (n, outputs).

    One pass: Keras's `evaluate` does not hand out the outputs that it computes.
    """

    def measure(split: Split) -> tuple[dict[str, float], NDArray[np.float32]]:
        labels = encode_targets(split.y, config, outputs)
        given, loss = [], 0.0
        model.reset_metrics()
        for start in range(0, len(split), batch_size):
            x, y = (array[start : start + batch_size] for array in (split.x, labels))
            with _memory_runs_out_while(f"measuring. Try a smaller runtime.evaluation_batch_size than {batch_size}"):
                given.append(model(x, training=False))
                loss += len(x) * float(model.compute_loss(x, y, given[-1], training=False))
                measured = model.compute_metrics(x, y, given[-1])
        measured["loss"] = loss / len(split)  # Keras's own entry is a mean over training steps
        return (
            {name: float(np.mean(value)) for name, value in measured.items()},
            np.concatenate([np.asarray(part, np.float32) for part in given]),
        )

    return measure


class Batches:
    """The training set in shuffled batches. The order of an epoch follows from the seed and the epoch's number alone.

    Attributes:
        dataset: Yields one epoch of (images, labels), the epoch that `follow_epochs` saw begin.
    """

    def __init__(self, dataset: Dataset, config: Config) -> None:
        train, size = dataset.train, config.batch_size
        with tf.device("CPU"):
            x = tf.constant(train.x)
            y = tf.constant(encode_targets(train.y, config, dataset.outputs))
            self._epoch = tf.Variable(0, dtype=tf.int64)

        steps = math.ceil(len(train) / size)
        # There is nothing to convert for AutoGraph, and looking for it takes half a second.
        as_it_is: Callable[[Any], Any] = tf.autograph.experimental.do_not_convert

        @as_it_is
        def epoch(_: Any) -> Any:
            seed = tf.stack([tf.constant(config.seed, tf.int64), self._epoch])
            order = tf.random.experimental.stateless_shuffle(tf.range(len(train)), seed=seed)

            @as_it_is
            def batch(step: Any) -> Any:
                indices = order[step * size : (step + 1) * size]
                return tf.gather(x, indices), tf.gather(y, indices)

            return tf.data.Dataset.range(steps).map(batch)

        options = tf.data.Options()
        # Gathering a batch is little work: more threads would take cores from training, and to look for a better
        # graph takes a second.
        options.autotune.enabled = False
        options.threading.private_threadpool_size = 1
        options.experimental_optimization.apply_default_optimizations = False
        self.dataset = (
            tf.data.Dataset.range(1)
            .flat_map(epoch)
            .prefetch(2)
            .with_options(options)
            .apply(tf.data.experimental.assert_cardinality(steps))
        )

    def follow_epochs(self) -> keras.callbacks.Callback:
        """A callback that sets the epoch's number, which the order of the batches depends on."""
        return keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs=None: self._epoch.assign(epoch))

"""The Keras callbacks that every run has: they save, watch and complete what an epoch measured."""

import random
import sys
import time
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np

from experiments.config import RunFailed
from experiments.engine.checkpoints import Checkpoints, KerasFunction, State, equal, remembered
from experiments.engine.listener import Listener
from experiments.task.measuring import CAUSES

SHARE = 0.03  # of the time of training, that checkpoints may take
SLOW_DISK = 1e8  # bytes a second, until the first checkpoint has shown how long one takes


class EvaluateAverages(keras.callbacks.Callback):  # type: ignore[misc]
    """Validates the averages of an optimizer that averages its weights (``use_ema``): it ends with them.

    The averages are in the model from the validation of an epoch until the next epoch begins, so that the callbacks of
    the config, which come later, watch, save and restore the weights that were measured. Keras's own `SwapEMAWeights`
    ends with other weights if training stops early, and swaps by sums, which changes the last bits.
    """

    def __init__(self) -> None:
        super().__init__()
        self._trained: list[Any] | None = None

    def on_test_begin(self, logs: Any = None) -> None:
        self._average()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._average()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if self._trained is not None:
            for weight, value in zip(self.model.trainable_weights, self._trained, strict=True):
                weight.assign(value)
            self._trained = None

    def _average(self) -> None:
        if self._trained is None:
            self._trained = [weight.numpy().copy() for weight in self.model.trainable_weights]
            self.model.optimizer.finalize_variable_values(self.model.trainable_weights)


class RecordLearningRate(keras.callbacks.Callback):  # type: ignore[misc]
    """Adds the learning rate that a schedule has reached at the end of an epoch to what the epoch measured."""

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if logs is not None:
            logs.setdefault("learning_rate", float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)))


class Pruning(keras.callbacks.Callback):  # type: ignore[misc]
    """Says how each epoch went, and stops training where the answer is that.

    Args:
        listener: Hears of the epochs, those before a checkpoint first.
        epochs: Number of epochs that the config asks for.
        checkpoints: Of the run.

    Attributes:
        after: The epoch after which training was stopped; 0: it was not.
    """

    def __init__(self, listener: Listener, epochs: int, checkpoints: Checkpoints) -> None:
        super().__init__()
        self.after, self._listener, self._epochs = 0, listener, epochs
        if before := checkpoints.state:
            for number, metrics in enumerate(before.by_epoch, start=1):
                self._hear(number, metrics, before.stopped or number < before.epochs)
            checkpoints.state = replace(before, stopped=before.stopped or self.after > 0)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        self._hear(epoch + 1, logs or {}, self.model.stop_training)
        if self.after:
            self.model.stop_training = True

    def _hear(self, number: int, metrics: Mapping[str, float], ends: bool) -> None:
        stop = self._listener.epoch(number, self._epochs, {name: float(value) for name, value in metrics.items()})
        if stop and not ends and number < self._epochs:
            self.after = number


class KeepCheckpoints(keras.callbacks.Callback):  # type: ignore[misc]
    """Saves a run after each epoch, and has an interrupted one go on from there, to the last bit.

    It comes after the callbacks of the config, which set themselves back when training begins, and before those that
    record and show an epoch: what others have seen of a run, it does not lose.

    What a callback remembers is what has changed since training began. All else follows from the config, and is as the
    callback itself set it up: it must not be restored.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        callbacks: Sequence[keras.callbacks.Callback],
        threads: int,
        every: int | str = 1,
    ) -> None:
        super().__init__()
        self._checkpoints, self._callbacks, self._threads, self._every = checkpoints, callbacks, threads, every
        self._spent = 0.0  # seconds on checkpoints so far
        self._cost: float | None = None  # of the last one, in seconds
        self._history: dict[str, list[float]] = {}
        self._earlier = 0.0

    def on_train_begin(self, logs: Any = None) -> None:
        self._started = time.perf_counter()
        variables = self._variables()
        self._begun = [deepcopy(_attributes(callback)) for callback in self._callbacks]
        if state := self._checkpoints.state:
            self._history, self._earlier = {key: list(values) for key, values in state.history.items()}, state.seconds
            for variable, value in zip(variables, state.variables, strict=True):
                variable.assign(value)
            for callback, attributes in zip(self._callbacks, state.callbacks, strict=True):
                for name, value in attributes.items():
                    setattr(
                        callback, name, getattr(keras.ops, value.name) if isinstance(value, KerasFunction) else value
                    )
            python, numpy = state.random
            random.setstate(python)
            np.random.set_state(numpy)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        for name, value in (logs or {}).items():
            self._history.setdefault(name, []).append(float(value))
        began = time.perf_counter()
        if not self._is_due(epoch + 1, began - self._started - self._spent):
            return
        state = State(
            epochs=epoch + 1,
            stopped=bool(self.model.stop_training),
            seconds=self._earlier + time.perf_counter() - self._started,
            threads=self._threads,
            history=self._history,
            variables=[np.asarray(variable) for variable in self._variables()],
            callbacks=[_changed(*pair) for pair in zip(self._callbacks, self._begun, strict=True)],
            random=(random.getstate(), np.random.get_state()),
        )
        try:
            self._checkpoints.save(state)
        except OSError as error:  # a missing checkpoint must not end the run
            print(f"no checkpoint of epoch {epoch + 1}: {error.strerror or error}", file=sys.stderr)
        self._cost = time.perf_counter() - began
        self._spent += self._cost

    def _is_due(self, epochs: int, trained: float) -> bool:
        """Whether to save after so many epochs and so many seconds of training."""
        if isinstance(self._every, int):
            return epochs % self._every == 0
        if self._cost is None:
            self._cost = sum(variable.numpy().nbytes for variable in self._variables()) / SLOW_DISK
        return self._spent + self._cost <= SHARE * trained

    def _variables(self) -> list[Any]:
        optimizer = self.model.optimizer
        if not optimizer.built:
            optimizer.build(self.model.trainable_variables)
        wrapped = getattr(optimizer, "inner_optimizer", None)  # Nadam's product is not among its variables then
        more = [value for value in vars(wrapped).values() if isinstance(value, keras.Variable)] if wrapped else []
        found = {id(variable): variable for variable in (*self.model.variables, *optimizer.variables, *more)}
        return list(found.values())


def _attributes(callback: keras.callbacks.Callback) -> dict[str, Any]:
    """The attributes of a callback that can be written down, functions of ``keras.ops`` as their names."""
    names = {name: getattr(value, "__name__", "") for name, value in vars(callback).items() if callable(value)}
    functions = {
        name: KerasFunction(function)
        for name, function in names.items()
        if getattr(keras.ops, function, None) is vars(callback)[name]
    }
    return remembered(SimpleNamespace(**{**vars(callback), **functions}))


def _changed(callback: keras.callbacks.Callback, begun: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes of a callback that have changed since training began."""
    now = _attributes(callback)
    return {name: value for name, value in now.items() if name not in begun or not equal(value, begun[name])}


class StopOnNaN(keras.callbacks.Callback):  # type: ignore[misc]
    """Ends the run at the end of the epoch in which the loss or a weight stopped being a finite number."""

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        loss = (logs or {}).get("loss", 0.0)
        if not np.isfinite(loss):
            raise RunFailed(f"the loss became {loss} in epoch {epoch + 1}. {CAUSES}")
        for weight in self.model.weights:
            if not np.isfinite(weight.numpy()).all():
                raise RunFailed(f"weights of {weight.path} became NaN or infinite in epoch {epoch + 1}. {CAUSES}")

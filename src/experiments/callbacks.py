"""Keras callbacks: those that a config names, and those that every run has."""

import random
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from experiments.checkpoints import Checkpoints, State, remembered
from experiments.config import Config, Problem, Refused, RunFailed
from experiments.vocabulary import create

# Arguments of Keras callbacks that name files.
FILE_ARGUMENTS = ("filepath", "filename", "log_dir", "backup_dir", "directory")


def build(config: Config, output_folder: Path, finished: int = 0) -> list[keras.callbacks.Callback]:
    """Build the callbacks that the config names. Their files stay in the run's output folder.

    Args:
        config: The config.
        output_folder: Of the run.
        finished: Epochs that the run had finished when it was interrupted.

    Raises:
        Refused: Keras does not know a callback or its arguments, or a file would be somewhere else.
    """
    built, folder = [], output_folder.resolve()
    for key, section in config.callbacks.items():
        arguments = section.arguments()
        for name in FILE_ARGUMENTS:
            if isinstance(given := arguments.get(name), str):
                arguments[name] = str(folder / given)
                if not (folder / given).resolve().is_relative_to(folder):
                    what = f"got {given}, which is not in the run's output folder {folder}"
                    raise Refused(
                        Problem(f"callbacks.{key}.{name}", what, f"callbacks.{key}.{name}={Path(given).name}")
                    )
        built.append(create("callback", section.name, arguments, f"callbacks.{key}", config.trust))
        if finished and isinstance(built[-1], keras.callbacks.CSVLogger):
            _go_on_with(built[-1], finished)
    return built


def _go_on_with(logger: keras.callbacks.CSVLogger, finished: int) -> None:
    """Have a log of epochs keep the lines of those that finished, not of one that has to be repeated."""
    logger.append, file = True, Path(logger.filename)
    if file.is_file():
        lines = file.read_text().splitlines(keepends=True)
        file.write_text("".join(lines[: 1 + finished]))


class KeepCheckpoints(keras.callbacks.Callback):  # type: ignore[misc]
    """Saves a run after each epoch, and has an interrupted one go on from there, to the last bit.

    It comes after the callbacks of the config, which set themselves back when training begins, and before those that
    record and show an epoch: what others have seen of a run, it does not lose.
    """

    def __init__(self, checkpoints: Checkpoints, callbacks: Sequence[keras.callbacks.Callback], threads: int) -> None:
        super().__init__()
        self._checkpoints, self._callbacks, self._threads = checkpoints, callbacks, threads
        self._history: dict[str, list[float]] = {}
        self._earlier = 0.0

    def on_train_begin(self, logs: Any = None) -> None:
        self._started = time.perf_counter()
        if state := self._checkpoints.state:
            self._history, self._earlier = {key: list(values) for key, values in state.history.items()}, state.seconds
            for variable, value in zip(self._variables(), state.variables, strict=True):
                variable.assign(value)
            for callback, attributes in zip(self._callbacks, state.callbacks, strict=True):
                vars(callback).update(attributes)
            python, numpy = state.random
            random.setstate(python)
            np.random.set_state(numpy)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        for name, value in (logs or {}).items():
            self._history.setdefault(name, []).append(float(value))
        state = State(
            epochs=epoch + 1,
            stopped=bool(self.model.stop_training),
            seconds=self._earlier + time.perf_counter() - self._started,
            threads=self._threads,
            history=self._history,
            variables=[np.asarray(variable) for variable in self._variables()],
            callbacks=[remembered(callback, "params", "append_header") for callback in self._callbacks],
            random=(random.getstate(), np.random.get_state()),
        )
        try:
            self._checkpoints.save(state)
        except OSError as error:  # a net that is missing is no reason to fall
            print(f"no checkpoint of epoch {epoch + 1}: {error.strerror or error}", file=sys.stderr)

    def _variables(self) -> list[Any]:
        optimizer = self.model.optimizer
        if not optimizer.built:
            optimizer.build(self.model.trainable_variables)
        return [*self.model.variables, *optimizer.variables]


class StopOnNaN(keras.callbacks.Callback):  # type: ignore[misc]
    """Ends the run at the end of the epoch in which the loss stopped being a number."""

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        loss = (logs or {}).get("loss", 0.0)
        if not np.isfinite(loss):
            raise RunFailed(
                f"the loss became {loss} in epoch {epoch + 1}. The usual causes are a learning rate that is too high "
                "(try a tenth of optimizer.learning_rate), gradients that explode (try optimizer.clipnorm=1), "
                "or inputs that are not scaled (data.scale)"
            )

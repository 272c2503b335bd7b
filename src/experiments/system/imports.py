"""Slow imports, made faster and quiet: Keras without its optional imports, all without garbage collection."""

import gc
import os
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from experiments.config import Problem, Refused

# Keras imports these only to accept their objects. They take a third of its import time and are not used here.
OPTIONAL_IMPORTS = ("matplotlib", "pandas", "sklearn")
# Variables of the environment by which Keras ends training early: a config says how long it takes.
LIMITS = ("KERAS_MAX_EPOCHS", "KERAS_MAX_STEPS_PER_EPOCH")


def import_keras() -> None:
    """Import Keras on TensorFlow, whatever ``~/.keras/keras.json`` says, and hide their start-up notes.

    Raises:
        Refused: Keras cannot read its ``keras.json``.
    """
    if "keras" in sys.modules:
        return
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for name in LIMITS:
        os.environ.pop(name, None)
    if not os.environ.get("KERAS_HOME"):
        os.environ.pop("KERAS_HOME", None)  # Keras would take the current folder for an empty one
    with imports(), quiet_stderr(), readable_settings(), _hidden(*OPTIONAL_IMPORTS):
        import keras  # noqa: F401
        import tensorflow as tf

        tf.get_logger().setLevel("ERROR")


@contextmanager
def imports() -> Iterator[None]:
    """Import without garbage collection, and leave what was imported out of later collections.

    It saves a fifth of the time of the imports.
    """
    _name_home()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()


def _name_home() -> None:
    """Name a home folder for a user who has none, as in containers: MLflow and Keras look for it when imported."""
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = "/nonexistent"  # no folder that others can write: programs take settings from it


@contextmanager
def readable_settings() -> Iterator[None]:
    """Name Keras's ``keras.json`` where Keras cannot be imported because of it."""
    try:
        yield
    except Exception as error:
        if not Path(traceback.extract_tb(error.__traceback__)[-1].filename).match("keras/src/backend/config.py"):
            raise
        file = Path(os.environ.get("KERAS_HOME") or "~/.keras", "keras.json")
        raise Refused(Problem(str(file), f"Keras cannot read it: {error}; correct it or remove it")) from error


@contextmanager
def _hidden(*modules: str) -> Iterator[None]:
    """Make imports of modules that are not loaded yet fail, as if they were not installed."""
    hidden = [name for name in modules if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Hold back what C++ code writes to stderr; show it if the block fails."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as buffer:
        os.dup2(buffer.fileno(), 2)
        try:
            yield
        except BaseException:
            buffer.seek(0)
            os.write(kept, buffer.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)

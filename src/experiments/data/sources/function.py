"""A function of the user's own: ``data=custom data.function=mypackage.load trust=[mypackage]``."""

import importlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments.config import Problem, Refused
from experiments.config.keras_names import untrusted
from experiments.config.schema import Data
from experiments.data.checks import ARRAYS, RawArrays

NAMES = ("custom",)


def locate(config: Data) -> Path | None:
    """There is no file; the function is called when the data is read."""
    return None


def read(config: Data, file: Path | None, trust: Sequence[str]) -> tuple[RawArrays, str]:
    """Call the function, without arguments. It returns ``(x_train, y_train), (x_test, y_test)``.

    Raises:
        Refused: Its package is not trusted, there is no such function, or it returns something else.
        Exception: Whatever the function raises.
    """
    name = config.function or ""
    if problem := untrusted(name, "data.function", trust):
        raise Refused(problem)
    module, _, attribute = name.rpartition(".")
    try:
        function = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise Refused(Problem("data.function", f"cannot import {name}: {error}")) from error
    if not callable(function):
        raise Refused(Problem("data.function", f"{name} is no function"))
    returned = function()
    try:
        (x_train, y_train), (x_test, y_test) = returned
        found = dict(zip(ARRAYS, map(np.asarray, (x_train, y_train, x_test, y_test)), strict=True))
    except (TypeError, ValueError) as error:
        what = f"{name} returned {type(returned).__name__}, expected ((x_train, y_train), (x_test, y_test))"
        raise Refused(Problem("data.function", what)) from error
    return found, name

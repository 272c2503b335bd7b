"""A function of the user's own: ``data=custom data.function=mypackage.load trust=[mypackage]``."""

import importlib
import inspect
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

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
        Refused: Its package is not trusted, there is no such function, or it raises or returns something else.
    """
    name = config.function or ""
    returned = _called(_function(name, trust), name)
    try:
        (x_train, y_train), (x_test, y_test) = returned
        arrays = dict(zip(ARRAYS, (x_train, y_train, x_test, y_test), strict=True))
        found = {key: np.asarray(array) for key, array in arrays.items()}
    except (TypeError, ValueError) as error:
        what = f"{name} returned {type(returned).__name__}, expected ((x_train, y_train), (x_test, y_test))"
        raise Refused(Problem("data.function", what)) from error
    if masked := [key for key, array in arrays.items() if isinstance(array, np.ma.MaskedArray)]:
        what = f"{name} returned masked arrays ({', '.join(masked)}); fill them, or leave their rows out"
        raise Refused(Problem("data.function", what))
    return found, name


def _function(name: str, trust: Sequence[str]) -> Callable[[], Any]:
    module, _, attribute = name.rpartition(".")
    if problem := untrusted(name, "data.function", trust):
        raise Refused(problem)
    try:
        function = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise Refused(Problem("data.function", f"cannot import {name}: {error}")) from error
    if not callable(function):
        raise Refused(Problem("data.function", f"{name} is no function"))
    with suppress(ValueError):  # it does not say which arguments it takes
        signature = inspect.signature(function)
        try:
            signature.bind()
        except TypeError as error:
            what = f"{name}{signature} takes arguments, expected a function that is called without any"
            raise Refused(Problem("data.function", what)) from error
    return function  # type: ignore[no-any-return]


def _called(function: Callable[[], Any], name: str) -> Any:
    try:
        return function()
    except SystemExit as left:
        raise Refused(Problem("data.function", f"{name} ended with sys.exit({left.code!r})")) from left
    except Refused:
        raise
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        what = f"{name} raised {type(error).__name__}: {error} ({frame.filename}, line {frame.lineno})"
        raise Refused(Problem("data.function", what)) from error

"""The Keras callbacks that a config names."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from experiments.config import Config, Problem, Refused
from experiments.config.callback_checks import FILE_ARGUMENTS
from experiments.config.measures import mode_of
from experiments.config.problems import assign
from experiments.engine.vocabulary import create, find


def build(config: Config, output_folder: Path, finished: int = 0) -> list[keras.callbacks.Callback]:
    """Build the callbacks that the config names. Their files stay in the run's output folder.

    Args:
        config: The config.
        output_folder: Of the run.
        finished: Epochs that the run had finished when it was interrupted.

    Raises:
        Refused: Keras does not know a callback or its arguments, an argument has another type than Keras's default, or
            a file would be somewhere else.
    """
    built, files, problems = [], list[Path](), list[Problem]()
    for key, section in config.callbacks.items():
        where = f"callbacks.{key}"
        cls, arguments = find("callback", section.name, where, config.trust), section.arguments()
        if issubclass(cls, keras.callbacks.SwapEMAWeights):
            continue  # `EvaluateAverages` takes its place
        defaults = _defaults(cls)
        if cls.__module__.startswith("keras."):
            problems += _wrong_types(arguments, defaults, where)
            if "mode" in defaults and arguments.get("mode", "auto") == "auto":  # Keras does not know all directions
                arguments["mode"] = mode_of(arguments.get("monitor", defaults["monitor"]), config.metrics) or "auto"
        for name in FILE_ARGUMENTS & defaults.keys():
            if isinstance(given := arguments.get(name, defaults[name]), str):
                file, wrong = _inside(output_folder.resolve(), given, f"{where}.{name}")
                files.append(file)
                problems += wrong
                arguments[name] = str(file)
        if not problems:
            built.append(create("callback", section.name, arguments, where, config.trust))
    if problems:
        raise Refused(problems)
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
    for callback in built:
        if finished and isinstance(callback, keras.callbacks.CSVLogger):
            _keep_finished(callback, finished)
    return built


def _defaults(cls: type) -> dict[str, Any]:
    """Arguments of a constructor and of those of its base classes, with their defaults."""
    found: dict[str, Any] = {}
    for base in (base for base in reversed(cls.__mro__) if "__init__" in vars(base)):
        parameters = inspect.signature(vars(base)["__init__"]).parameters.values()
        found |= {p.name: p.default for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    return found


def _wrong_types(arguments: Mapping[str, Any], defaults: Mapping[str, Any], where: str) -> list[Problem]:
    """Arguments of one of Keras's callbacks that have another type than its default. Keras checks few of them."""
    problems = []
    for name, given in arguments.items():
        default, number = defaults.get(name), isinstance(given, int | float) and not isinstance(given, bool)
        if isinstance(default, bool):
            fits, expected = isinstance(given, bool), "true or false"
        elif isinstance(default, int | float):
            fits, expected = number and bool(np.isfinite(given)), "a finite number"
        else:  # what else a text may be, such as the whole number of `save_freq`, the constructor checks
            fits, expected = not isinstance(default, str) or isinstance(given, str) or number, "text"
        if not fits:
            problems.append(
                Problem(f"{where}.{name}", f"got {given!r}, expected {expected}", assign(f"{where}.{name}", default))
            )
    return problems


def _inside(folder: Path, given: str, where: str) -> tuple[Path, list[Problem]]:
    """Return a callback's file in the run's output folder, and why it cannot be there."""
    file = folder / given
    what = ""
    try:
        inside = file.resolve().is_relative_to(folder)
        file.exists()
    except (OSError, ValueError) as error:  # too long, or a character that no name may have
        what = f"got {given!r}, which cannot be the name of a file: {getattr(error, 'strerror', error)}"
    else:
        what = "" if inside else f"got {given}, which is not in the run's output folder {folder}"
    return file, [Problem(where, what, assign(where, Path(given).name))] if what else []


def _keep_finished(logger: keras.callbacks.CSVLogger, finished: int) -> None:
    """Truncate the CSV log of an interrupted run to its finished epochs; one that did not finish comes again."""
    logger.append, file = True, Path(logger.filename)
    if file.is_file():
        lines = file.read_bytes().splitlines(keepends=True)
        # With `append`, there may be lines of another run before the first epoch of this one.
        first = f"0{logger.sep}".encode()
        start = max((number for number, line in enumerate(lines) if line.startswith(first)), default=1)
        file.write_bytes(b"".join(lines[: start + finished]))

"""Names to Keras objects: a closed vocabulary, plus packages that the command line trusts."""

import importlib
import inspect
import re
import warnings
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import keras

from experiments.config import Problem, Refused, keras_names, suggest

# A kind's classes are those of a module with a base class; `object` is what an argument may be.
KINDS: dict[str, list[tuple[ModuleType, type]]] = {
    "layer": [(keras.layers, keras.layers.Layer)],
    "optimizer": [(keras.optimizers, keras.optimizers.Optimizer)],
    "schedule": [(keras.optimizers.schedules, keras.optimizers.schedules.LearningRateSchedule)],
    "loss": [(keras.losses, keras.losses.Loss)],
    "metric": [(keras.metrics, keras.metrics.Metric)],
    "callback": [(keras.callbacks, keras.callbacks.Callback)],
    "regularizer": [(keras.regularizers, keras.regularizers.Regularizer)],
    "object": [
        (keras.layers, keras.layers.Layer),
        (keras.regularizers, keras.regularizers.Regularizer),
        (keras.initializers, keras.initializers.Initializer),
        (keras.constraints, keras.constraints.Constraint),
    ],
}


def classes(kind: str) -> dict[str, type]:
    """Keras's classes of a kind, by name."""
    return {
        name: value
        for module, base in KINDS[kind]
        for name, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, base) and value is not base and name not in keras_names.NEVER
    }


def find(kind: str, name: str, where: str, trust: Sequence[str]) -> type:
    """Return the class that a config names: ``Adam``, ``adam``, or ``mypackage.Adam`` if mypackage is trusted.

    Raises:
        Refused: Keras has no such class, or its package is not trusted.
    """
    if "." in name:
        return _trusted(kind, name, where, trust)
    if (found := keras_names.find(kind, name)) is None:
        raise Refused(keras_names.unknown(kind, name, where))
    return classes(kind)[found]


def create(kind: str, name: str, arguments: Mapping[str, Any], where: str, trust: Sequence[str]) -> Any:
    """Build a Keras object.

    Args:
        kind: A key of `KINDS`.
        name: Of its class, see `find`.
        arguments: For its constructor; objects in them are written ``{L2: {l2: 0.01}}``.
        where: The config key, for messages.
        trust: Packages beside Keras whose classes may be named.

    Raises:
        Refused: The class or one of its arguments does not exist, or Keras does not take a value.
    """
    cls = find(kind, name, where, trust)
    built = {key: _nested(value, f"{where}.{key}", trust) for key, value in arguments.items()}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # "unknown, fallback to auto": not what was asked for
            return cls(**built)
    except Exception as error:
        if "." in name and not isinstance(error, TypeError | ValueError):
            raise  # the user's own code: its traceback says more
        known = _arguments(cls)
        problems = [
            Problem(f"{where}.{key}", f"{cls.__name__} has no such argument; {suggest(key, known)}")
            for key in built
            if key not in known
        ]
        raise Refused(problems or Problem(where, f"{cls.__name__}: {reason(error)}")) from error


def create_named(kind: str, spec: str | Mapping[str, Any], where: str, trust: Sequence[str]) -> Any:
    """Build an object that is written as ``Flatten`` or ``{Dense: {units: 10}}``."""
    name, arguments = (spec, None) if isinstance(spec, str) else next(iter(spec.items()))
    return create(kind, name, arguments or {}, where, trust)


def reason(error: Exception) -> str:
    """What Keras complains of, as one paragraph: without the code and the dumps that it adds below."""
    paragraphs = re.sub(r"\x1b\[\d+m", "", str(error)).strip().split("\n\n")
    main = paragraphs[1] if paragraphs[0].startswith("Exception encountered") and paragraphs[1:] else paragraphs[0]
    return " ".join(main.split()) or type(error).__name__


def _nested(value: Any, where: str, trust: Sequence[str]) -> Any:
    if isinstance(value, list):
        return [_nested(item, f"{where}[{index}]", trust) for index, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    name, arguments = next(iter(value.items()), ("", None))
    if len(value) == 1 and isinstance(name, str) and isinstance(arguments, dict | None):
        return create("object", name, arguments or {}, where, trust)
    raise Refused(Problem(where, f"got {value}, expected a Keras object as {{Name: {{argument: value}}}}"))


def _trusted(kind: str, name: str, where: str, trust: Sequence[str]) -> type:
    module_name, _, class_name = name.rpartition(".")
    if problem := keras_names.untrusted(name, where, trust):
        raise Refused(problem)
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise Refused(Problem(where, f"cannot import {name}: {error}")) from error
    bases = tuple(base for _, base in KINDS[kind])
    if not (inspect.isclass(found) and issubclass(found, bases)):
        expected = " or ".join(f"{base.__module__.partition('.')[0]}'s {base.__name__}" for base in bases)
        raise Refused(Problem(where, f"{name} is not a subclass of {expected}"))
    return found


def _arguments(cls: type) -> set[str]:
    """Arguments of a constructor, with those that it hands on to its base classes."""
    known: set[str] = set()
    for base in (base for base in cls.__mro__ if "__init__" in vars(base)):
        parameters = inspect.signature(vars(base)["__init__"]).parameters.values()
        known |= {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return known - {"self"}

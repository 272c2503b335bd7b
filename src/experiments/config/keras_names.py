"""The names of Keras's objects, read from the files of the installed Keras, which is not imported."""

import ast
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from experiments.config.problems import Problem, assign, closest, suggest

# The modules that hold the classes of a kind; `object` is what an argument of another class may be.
MODULES = {
    "layer": ("layers",),
    "optimizer": ("optimizers",),
    "schedule": ("optimizers/schedules",),
    "loss": ("losses",),
    "metric": ("metrics",),
    "callback": ("callbacks",),
    "regularizer": ("regularizers",),
    "object": ("layers", "regularizers", "initializers", "constraints"),
}
# Base classes, and what is written like a class but is none of a kind.
ABSTRACT = frozenset(
    {"Layer", "Optimizer", "LearningRateSchedule", "Loss", "Metric", "Callback", "Regularizer", "Initializer"}
    | {"Constraint", "Input", "InputSpec", "OptimizerMap"}
)
# These send what they see elsewhere, and the others run code that a config would bring with it.
SENDING = frozenset({"RemoteMonitor"})
NEVER = SENDING | {"Lambda", "TFSMLayer", "JaxLayer", "FlaxLayer", "TorchModuleWrapper", "LambdaCallback"}
# What arguments of layers take as text, by the end of the argument's name; and names that only that text may have.
TEXT_ARGUMENTS = {
    "activation": "activations",
    "initializer": "initializers",
    "regularizer": "regularizers",
    "constraint": "constraints",
}
ALIASES = {"initializers": {"normal", "one", "uniform", "zero"}, "regularizers": {"l1l2"}}
HELPERS = {"deserialize", "get", "serialize"}


def classes(kind: str) -> set[str]:
    """Names of the Keras classes of a kind that a config may name."""
    exported = {name: original for module in MODULES[kind] for name, original in _exported(module).items()}
    return {name for name, original in exported.items() if original[:1].isupper()} - ABSTRACT - NEVER


def find(kind: str, name: str) -> str | None:
    """Return the Keras name of the class that a config names: ``Adam`` for ``adam``; None if there is none."""
    return _by_plain_name(kind).get(_plain(name))


def unknown(kind: str, name: str, where: str) -> Problem:
    """Say that Keras has no such class."""
    if _plain(name) in map(_plain, NEVER):
        does = (
            "sends what it sees elsewhere"
            if _plain(name) in map(_plain, SENDING)
            else "runs code that a config brings along"
        )
        return Problem(where, f"{name} {does}, so no config may name it")
    hint = suggest(name, classes(kind))
    hint += "" if hint.startswith("did") else f"; a class of your own is written mypackage.{name}"
    return Problem(where, f"Keras has no {kind} {name!r}; {hint}")


def is_within(name: str, packages: Sequence[str]) -> bool:
    """Whether a dotted name is that of a package or module, or of something in it."""
    return f"{name}.".startswith(tuple(f"{package}." for package in packages))


def untrusted(name: str, where: str, trust: Sequence[str]) -> Problem | None:
    """Say that the package of a dotted name is not trusted; None if it is."""
    module, _, class_name = name.rpartition(".")
    if not module:
        return Problem(where, f"got {name}, expected it with its package: mypackage.{name}")
    if is_within(module, trust):
        return None
    package = name.partition(".")[0]
    if package in ("keras", "tf", "tensorflow"):
        return Problem(where, f"got {name}; Keras's own classes are named without the package: {class_name}")
    what = f"{name} is not one of Keras's own; if you trust the code of {package}, say so"
    return Problem(where, what, assign("trust", [*trust, package]))


def texts(argument: str) -> set[str] | None:
    """Names that a layer's argument takes as text, such as activations; None if the argument takes other text."""
    module = TEXT_ARGUMENTS.get(argument.rpartition("_")[2])
    return None if module is None else set(_exported(module)) - HELPERS | ALIASES.get(module, set())


def unknown_text(argument: str, text: str, where: str) -> Problem | None:
    """Say that Keras has no such activation, initializer, regularizer or constraint; None if it has."""
    known = texts(argument)
    if known is None or text in known:
        return None
    what = argument.rpartition("_")[2]
    in_style = {name for name in known if name.islower()} or known
    return Problem(where, f"Keras has no {what} {text!r}; {suggest(text, in_style)}")


def meant(kind: str, name: str) -> str | None:
    """The class that was probably meant."""
    return closest(name, classes(kind))


@cache
def _exported(module: str) -> dict[str, str]:
    """What a module of Keras exports: the names, and what they are called where they are defined."""
    spec = find_spec("keras")
    assert spec is not None
    assert spec.submodule_search_locations
    source = Path(spec.submodule_search_locations[0], module, "__init__.py").read_text(encoding="utf-8")
    imports = (node for node in ast.parse(source).body if isinstance(node, ast.ImportFrom))
    return {alias.asname or alias.name: alias.name for node in imports for alias in node.names}


@cache
def _by_plain_name(kind: str) -> dict[str, str]:
    return {_plain(name): name for name in sorted(classes(kind))}


def _plain(name: str) -> str:
    return name.lower().replace("_", "")

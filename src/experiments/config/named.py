"""Every Keras object that a config names, looked up before Keras is imported."""

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from experiments.config import keras_names
from experiments.config.explain import at
from experiments.config.measures import CHOSEN_BY_KERAS, without_repeats
from experiments.config.problems import Problem, assign, closest, dotted, key_of, suggest

Path = tuple[str | int, ...]
# Longer remedies are left out: the message names what was meant.
LONGEST_REMEDY = 120


def unknown_names(plain: Mapping[str, Any]) -> list[Problem]:
    """List the names of a resolved config that Keras does not have, and packages that are not trusted.

    Args:
        plain: The config; values of wrong types are left to the schema.
    """
    names = _Names(plain)
    found = [*names.problems()]
    names.remedies.clear()  # those of lists lack what was found later
    return found and [*names.problems()]


class _Names:
    def __init__(self, plain: Mapping[str, Any]) -> None:
        self._plain = plain
        trust = plain.get("trust")
        self._trust = [name for name in trust if isinstance(name, str)] if isinstance(trust, list) else []
        self._meant: dict[Path, tuple[str, str]] = {}
        self.remedies: dict[Path, str] = {}

    def problems(self) -> Iterator[Problem]:
        function = at(self._plain, ("data", "function"))
        if isinstance(function, str) and (problem := keras_names.untrusted(function, "data.function", self._trust)):
            yield problem
        yield from self._section("optimizer", ("optimizer",))
        if at(self._plain, ("optimizer", "schedule", "name")) != "constant":
            yield from self._section("schedule", ("optimizer", "schedule"))
        yield from self._section("loss", ("loss",))
        yield from self._text("activation", ("loss", "output_activation"))
        for key in _mapping(self._plain.get("callbacks")):
            yield from self._section("callback", ("callbacks", key))
        for index, _ in enumerate(_list(self._plain.get("metrics"))):
            yield from self._metric(("metrics", index))
        yield from self._model()

    def _model(self) -> Iterator[Problem]:
        model = _mapping(self._plain.get("model"))
        if model.get("name") == "mlp":
            yield from self._text("activation", ("model", "activation"))
            yield from self._text("activation", ("model", "output_activation"))
            if model.get("regularizer") is not None:
                yield from self._object("regularizer", ("model", "regularizer"), "model.regularizer")
        elif model.get("name") == "sequential":
            for index, _ in enumerate(_list(model.get("layers"))):
                yield from self._object("layer", ("model", "layers", index), f"model.layers[{index}]")

    def _section(self, kind: str, path: Path) -> Iterator[Problem]:
        """A part of the config whose keys are the arguments of the class that its key `name` says."""
        section = _mapping(at(self._plain, path))
        if isinstance(section.get("name"), str):
            yield from self._name(kind, section["name"], (*path, "name"), dotted((*path, "name")))
        for key in section.keys() - {"name", "schedule"}:
            yield from self._argument(str(key), (*path, key), dotted((*path, key)))

    def _metric(self, path: Path) -> Iterator[Problem]:
        spec = at(self._plain, path)
        if not isinstance(spec, str) or "." in spec:
            yield from self._object("metric", path, dotted(path))
        elif spec.lower() not in CHOSEN_BY_KERAS and keras_names.find("metric", spec) is None:
            hint = suggest(spec, known := {*keras_names.classes("metric"), "accuracy", "crossentropy"})
            what = f"Keras has no metric {spec!r}; {hint}"
            yield Problem(dotted(path), what, self._remedy(path, spec, closest(spec, known)))

    def _object(self, kind: str, path: Path, where: str) -> Iterator[Problem]:
        """An object that is written as ``Flatten`` or ``{Dense: {units: 10}}``."""
        spec = at(self._plain, path)
        name, arguments = (spec, None) if isinstance(spec, str) else next(iter(_mapping(spec).items()), (None, None))
        if not isinstance(name, str):
            return
        yield from self._name(kind, name, path, where)
        for key, value in _mapping(arguments).items():
            inner = (*path, name, key)
            if isinstance(value, str) and "." not in name and kind in ("layer", "object"):
                yield from self._text(str(key), inner, f"{where}.{key}")
            else:
                yield from self._argument(str(key), inner, f"{where}.{key}")

    def _argument(self, key: str, path: Path, where: str) -> Iterator[Problem]:
        """An argument of an object: it, or what a list in it holds, may be an object, too."""
        value = at(self._plain, path)
        if isinstance(value, dict) and len(value) == 1 and isinstance(next(iter(value.values())), dict | None):
            yield from self._object("object", path, where)
        elif isinstance(value, list):
            for index, _ in enumerate(value):
                yield from self._argument(key, (*path, index), f"{where}[{index}]")

    def _name(self, kind: str, name: str, path: Path, where: str) -> Iterator[Problem]:
        if "." in name:
            if problem := keras_names.untrusted(name, where, self._trust):
                yield problem
        elif keras_names.find(kind, name) is None:
            problem = keras_names.unknown(kind, name, where)
            yield Problem(where, problem.what, self._remedy(path, name, keras_names.meant(kind, name)))

    def _text(self, argument: str, path: Path, where: str = "") -> Iterator[Problem]:
        text = at(self._plain, path)
        where = where or dotted(path)
        follows = path[0] == "model" and text == at(self._plain, ("loss", "output_activation"))
        if not isinstance(text, str) or follows or not (problem := keras_names.unknown_text(argument, text, where)):
            return
        yield Problem(where, problem.what, self._remedy(path, text, closest(text, keras_names.texts(argument) or ())))

    def _remedy(self, path: Path, name: str, meant: str | None) -> str:
        """The override with another name in the place of one; nothing if it would be long."""
        if meant is None:
            return ""
        self._meant[path] = name, meant
        key = key_of(path)
        if key not in self.remedies:
            override = assign(dotted(key), self._mended(key))
            self.remedies[key] = override if len(override) <= LONGEST_REMEDY else ""
        return self.remedies[key]

    def _mended(self, key: Path) -> Any:
        """The value of a key, with all names in it as they were meant."""
        changed = {"value": copy.deepcopy(at(self._plain, key))}
        for path in sorted(self._meant, key=len, reverse=True):  # names of arguments before that of their object
            if path[: len(key)] == key:
                *above, last = ("value", *path[len(key) :])
                parent, (name, meant) = at(changed, tuple(above)), self._meant[path]
                parent[last] = meant if isinstance(parent[last], str) else {meant: parent[last][name]}
        return without_repeats(changed["value"]) if key == ("metrics",) else changed["value"]  # it may be there already


def _mapping(value: Any) -> Mapping[Any, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []

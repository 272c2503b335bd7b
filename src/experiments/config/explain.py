"""What pydantic found wrong with a config, in our words and with a remedy."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from copy import deepcopy
from dataclasses import replace
from itertools import zip_longest
from typing import Any, cast

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from experiments.config.measures import without_repeats
from experiments.config.named import UNKNOWN
from experiments.config.problems import Problem, assign, closest, cut, dotted, key_of, shown, suggest

Path = tuple[str | int, ...]
# What pydantic wants, in our words, by the type of its error.
EXPECTED = {
    "greater_than_equal": "{number} of at least {ge:g}",
    "greater_than": "{number} above {gt:g}",
    "less_than_equal": "{number} of at most {le:.10g}",
    "less_than": "{number} below {lt:g}",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "too_short": "at least one entry",
}


def explain(
    error: ValidationError, plain: dict[str, Any], defaults: Mapping[str, Any], schema: type[BaseModel]
) -> list[Problem]:
    """Turn pydantic's errors into one problem per key; the members of a union are joined by "or"."""
    by_path: dict[Path, list[ErrorDetails]] = {}
    for details in error.errors():
        by_path.setdefault(_path(details, plain), []).append(details)
    mend = _Mending(plain, defaults, schema)
    found: dict[Path, Problem] = {}
    for path in sorted(by_path, key=len, reverse=True):  # what is within an object before its name
        named = next((details["ctx"] for details in by_path[path] if details["type"] == UNKNOWN), None)
        if named:
            found[path] = _unknown_name(path, named, mend)
        elif not any(path == inner[: len(path)] for inner in found):
            found[path] = _problem(path, by_path[path], mend)
        # else the error is about another member of a union: text expected, got a mapping with a wrong entry
    return [replace(found[path], remedy=mend.remedy(path) or found[path].remedy) for path in by_path if path in found]


class _Mending:
    """The values that are wrong, with those that were probably meant in their places.

    Args:
        plain: The config.
        defaults: Without the user's values.
        schema: What it has to fit.
    """

    def __init__(self, plain: dict[str, Any], defaults: Mapping[str, Any], schema: type[BaseModel]) -> None:
        self.plain, self.defaults, self._schema = plain, defaults, schema
        self._changed, self._paths = deepcopy(plain), set[Path]()

    def set(self, path: Path, value: Any) -> None:
        """Replace a value."""
        with suppress(LookupError, TypeError):  # what it is in was replaced
            at(self._changed, path[:-1])[path[-1]] = value
            self._paths.add(path)

    def rename(self, path: Path, mend: Callable[[Any], Any]) -> None:
        """Replace a value by what `mend` makes of it."""
        self.set(path, mend(at(self._changed, path)))

    def remedy(self, path: Path) -> str:
        """The override that mends a value; in a list, all others are mended, too. Empty: none is known."""
        key = key_of(path)
        value = at(self._changed, key)
        if path not in self._paths:
            return ""
        return assign(dotted(key), without_repeats(value) if key == ("metrics",) else value)

    def correct(self, path: Path, meant: Iterable[Any]) -> None:
        """Replace a value by the first that the schema takes: one that was meant, else its default."""
        for candidate in (*_near(at(self.plain, path)), *meant, self._default(path)):
            changed = deepcopy(self.plain)
            parent = at(changed, path[:-1])
            if candidate is None or isinstance(candidate, dict) or not isinstance(parent, dict | list):
                continue
            parent[path[-1]] = candidate  # type: ignore[index]
            try:
                self._schema.model_validate(changed)
            except ValidationError as error:
                if any(_path(details, changed)[: len(path)] == path for details in error.errors()):
                    continue
            self.set(path, candidate)
            break

    def _default(self, path: Path) -> Any:
        """The default of a key; of an entry of a list, the default's entry at its place, or its last one."""
        key = key_of(path)
        value = at(self.defaults, key)
        if key != path and isinstance(value, list):
            index, *below = path[len(key) :]
            return at(value, (min(cast(int, index), len(value) - 1), *below)) if value else None
        return value


def _unknown_name(path: Path, context: dict[str, Any], mend: _Mending) -> Problem:
    """A name that Keras does not have."""
    problem = cast(Problem, context["problem"])
    if context["mend"]:
        mend.rename(path, context["mend"])
    return replace(problem, where=dotted(path[: len(path) - context["inner"]]) + problem.where)


def _path(details: ErrorDetails, plain: Any) -> Path:
    """Keep the parts of pydantic's location that are keys of the config (it adds the names of union members)."""
    location, path = details["loc"], list[str | int]()
    for part, following in zip_longest(location, location[1:]):
        if isinstance(plain, dict) and plain.get("name") == part and following in plain:
            continue  # the member of a union that has this name, though a key may be called the same
        if (isinstance(plain, dict) and part in plain) or (isinstance(plain, list) and isinstance(part, int)):
            path.append(part)
            plain = cast(Any, plain)[part]
        elif details["type"] == "missing" and location[-1] == part:
            path.append(part)
            break
    if details["type"].startswith("union_tag"):  # pydantic names the union: the model; we, the key that decides
        path.append("name")
    return tuple(path)


def _problem(path: Path, group: list[ErrorDetails], mend: _Mending) -> Problem:
    where, given, default = dotted(path), at(mend.plain, path), remedy(path, mend.defaults)
    kinds = {details["type"]: details for details in group}
    if "extra_forbidden" in kinds:
        return _unknown(path, mend)
    if kinds.keys() & {"missing", "union_tag_not_found"}:
        take_over = "; add it, or begin your file with 'defaults: [NAME]' to take over the keys of another"
        whole = "" if default or len(path) == 1 else take_over
        return Problem(where, f"is missing{whole}", default and f"+{default}")
    if kinds.keys() == {"model_type"} and isinstance(given, str) and len(path) > 1:
        what = "is a group of files, which is chosen with a slash"
        return Problem(where, what, assign("/".join(map(str, path)), given))
    mend.correct(path, [closest(str(given), choices) for details in group if (choices := _choices(details))])
    if "value_error" in kinds:
        return Problem(where, kinds["value_error"]["msg"].removeprefix("Value error, "))
    expected = " or ".join(dict.fromkeys(_expected(details, given) for details in group))
    return Problem(where, f"got {cut(shown(given), 200)}, expected {expected}")


def _unknown(path: Path, mend: _Mending) -> Problem:
    where, given, name = dotted(path), at(mend.plain, path), str(path[-1])
    if path == ("experiment",) and isinstance(given, dict):
        what = "the preset sets keys of the top level, so its file has to start with the line '# @package _global_'"
        return Problem(where, what)
    siblings = at(mend.defaults, path[:-1]) or at(mend.plain, path[:-1])
    known = [str(key) for key in siblings if str(key) not in (name, "hydra")]
    kept = f" {assign(dotted((*path[:-1], meant)), given)}" if (meant := closest(name, known)) else ""
    return Problem(where, f"no such key; {suggest(name, known)}", f"~{where}{kept}")


def _near(given: Any) -> Iterator[Any]:
    """What the user may have meant: the same in another form, the likeliest first."""
    words = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
    if isinstance(given, str):
        if given.lower() in words:
            yield words[given.lower()]
        for kind in (int, float):
            with suppress(ValueError):
                yield kind(given)
    elif isinstance(given, float) and given.is_integer():
        yield int(given)
    if isinstance(given, int | float) and not isinstance(given, bool):
        yield str(given)
    if isinstance(given, list) and len(given) == 1:
        yield given[0]
    if given is not None and not isinstance(given, list):
        yield [given]


def _choices(details: ErrorDetails) -> list[str]:
    """The words that are allowed, if it is about words."""
    if details["type"] not in ("literal_error", "union_tag_invalid"):
        return []
    context = details["ctx"]
    return re.findall(r"'([^']+)'", context.get("expected") or context["expected_tags"])


def _expected(details: ErrorDetails, given: Any) -> str:
    kind, context = details["type"], details.get("ctx", {})
    if choices := _choices(details):
        meant = closest(str(given), choices)
        return " or ".join(choices) + (f"; did you mean '{meant}'?" if meant else "")
    whole = not any(isinstance(bound, float) for bound in context.values())
    number = "a whole number" if isinstance(given, int) and whole else "a number"
    return EXPECTED[kind].format(number=number, **context) if kind in EXPECTED else details["msg"]


def remedy(path: Path, defaults: Mapping[str, Any]) -> str:
    """The default of a key as an override; that of an entry of a list is the default of the whole list."""
    key = key_of(path)
    value = at(defaults, key)
    return "" if value is None or isinstance(value, dict) else assign(dotted(key), value)


def at(tree: Any, path: Path) -> Any:
    """What stands at a path; None if nothing does."""
    for part in path:
        try:
            tree = tree[part]
        except (KeyError, IndexError, TypeError):
            return None
    return tree

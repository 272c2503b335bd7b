"""What pydantic found wrong with a config, in our words and with a remedy."""

import re
from collections.abc import Mapping
from typing import Any, cast

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from experiments.config.problems import Problem, assign, closest, dotted, shown, suggest

# What pydantic wants, in our words, by the type of its error.
EXPECTED = {
    "greater_than_equal": "{number} of at least {ge:g}",
    "greater_than": "{number} above {gt:g}",
    "less_than_equal": "{number} of at most {le:g}",
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
    "too_short": "at least one entry",
}


def explain(error: ValidationError, plain: dict[str, Any], defaults: Mapping[str, Any]) -> list[Problem]:
    """Turn pydantic's errors into one problem per key; the members of a union are joined by "or"."""
    by_path: dict[tuple[str | int, ...], list[ErrorDetails]] = {}
    for details in error.errors():
        path = _path(details["loc"], plain)
        if details["type"].startswith("union_tag"):  # pydantic names the union: the model; we, the key that decides
            path = (*path, "name")
        by_path.setdefault(path, []).append(details)
    return [_problem(path, group, plain, defaults) for path, group in by_path.items()]


def _path(location: tuple[str | int, ...], plain: Any) -> tuple[str | int, ...]:
    """Keep the parts of pydantic's location that are keys of the config (it adds the names of union members)."""
    path: list[str | int] = []
    for part in location:
        if (isinstance(plain, dict) and part in plain) or (isinstance(plain, list) and isinstance(part, int)):
            path.append(part)
            plain = cast(Any, plain)[part]
        elif isinstance(plain, dict) and location[-1] == part:
            path.append(part)
            break
    return tuple(path)


def _problem(
    path: tuple[str | int, ...], group: list[ErrorDetails], plain: dict[str, Any], defaults: Mapping[str, Any]
) -> Problem:
    where, given, default = dotted(path), at(plain, path), remedy(path, plain, defaults)
    kinds = {details["type"]: details for details in group}
    if "extra_forbidden" in kinds:
        siblings = at(defaults, path[:-1]) or at(plain, path[:-1])
        hint = suggest(str(path[-1]), [str(key) for key in siblings if key not in (path[-1], "hydra")])
        return Problem(where, f"no such key; {hint}", f"~{where}")
    if kinds.keys() & {"missing", "union_tag_not_found"}:
        return Problem(where, "is missing", default and f"+{default}")
    if kinds.keys() == {"model_type"} and isinstance(given, str) and len(path) > 1:
        what = "is a group of files, which is chosen with a slash"
        return Problem(where, what, assign("/".join(map(str, path)), given))
    if "value_error" in kinds:
        return Problem(where, kinds["value_error"]["msg"].removeprefix("Value error, "), default)
    expected = " or ".join(dict.fromkeys(_expected(details, given) for details in group))
    return Problem(where, f"got {shown(given)}, expected {expected}", default)


def _expected(details: ErrorDetails, given: Any) -> str:
    kind, context = details["type"], details.get("ctx", {})
    if kind in ("literal_error", "union_tag_invalid"):
        choices = re.findall(r"'([^']+)'", context.get("expected") or context["expected_tags"])
        meant = closest(str(given), choices)
        return " or ".join(choices) + (f"; did you mean '{meant}'?" if meant else "")
    number = "a whole number" if isinstance(given, int) else "a number"
    return EXPECTED[kind].format(number=number, **context) if kind in EXPECTED else details["msg"]


def remedy(path: tuple[str | int, ...], plain: dict[str, Any], defaults: Mapping[str, Any]) -> str:
    """The key's default as an override; in a list, the rest of the user's entries stay."""
    depth = next((i for i, part in enumerate(path) if isinstance(part, int)), len(path))
    value, given = at(defaults, path[:depth]), at(plain, path[:depth])
    if depth < len(path) and value and isinstance(value, list) and isinstance(given, list):
        value = [value[min(i, len(value) - 1)] if i == path[depth] else item for i, item in enumerate(given)]
    return "" if value is None or isinstance(value, dict) else assign(dotted(path[:depth]), value)


def at(tree: Any, path: tuple[str | int, ...]) -> Any:
    """What stands at a path; None if nothing does."""
    for part in path:
        try:
            tree = tree[part]
        except (KeyError, IndexError, TypeError):
            return None
    return tree

"""What pydantic found wrong with a config, in our words and with a remedy."""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from copy import deepcopy
from dataclasses import replace
from typing import Any, cast

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from experiments.config.measures import without_repeats
from experiments.config.named import UNKNOWN
from experiments.config.problems import Problem, assign, closest, cut, dotted, key_of, shown, suggest

Path = tuple[str | int, ...]
MENDED = "mended"  # in place of a remedy that is written when all entries of a list are mended
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
    "too_short": "at least one entry",
}


def explain(
    error: ValidationError, plain: dict[str, Any], defaults: Mapping[str, Any], schema: type[BaseModel]
) -> list[Problem]:
    """Turn pydantic's errors into one problem per key; the members of a union are joined by "or"."""
    by_path: dict[Path, list[ErrorDetails]] = {}
    for details in error.errors():
        by_path.setdefault(_path(details, plain), []).append(details)
    for path, group in list(
        by_path.items()
    ):  # of a union's other member, such as text for a mapping whose entry is wrong
        if group[0]["type"] != UNKNOWN and any(path == inner[: len(path)] for inner in by_path if inner != path):
            del by_path[path]
    mended, found = deepcopy(plain), dict[Path, Problem]()
    for path in sorted(by_path, key=len, reverse=True):  # what is within an object before its name
        named = next((details["ctx"] for details in by_path[path] if details["type"] == UNKNOWN), None)
        if named:
            found[path] = _unknown_name(path, named, mended)
        else:
            found[path] = _problem(path, by_path[path], plain, defaults, schema, mended)
    return [found[path] if found[path].remedy != MENDED else _mended(found[path], path, mended) for path in by_path]


def _unknown_name(path: Path, context: dict[str, Any], mended: dict[str, Any]) -> Problem:
    """A name that Keras does not have. The one that was meant is set in `mended`."""
    problem, mend, inner = cast(Problem, context["problem"]), context["mend"], context["inner"]
    if mend:
        at(mended, path[:-1])[path[-1]] = mend(at(mended, path))
        problem = replace(problem, remedy=MENDED)
    return replace(problem, where=dotted(path[: len(path) - inner]) + problem.where)


def _mended(problem: Problem, path: Path, mended: dict[str, Any]) -> Problem:
    """Set the remedy that mends a key: of an entry of a list, with all others of that list."""
    key = key_of(path)
    value = without_repeats(at(mended, key)) if key == ("metrics",) else at(mended, key)
    return replace(problem, remedy=assign(dotted(key), value))


def _path(details: ErrorDetails, plain: Any) -> Path:
    """Keep the parts of pydantic's location that are keys of the config (it adds the names of union members)."""
    location, path = details["loc"], list[str | int]()
    for part in location:
        if (isinstance(plain, dict) and part in plain) or (isinstance(plain, list) and isinstance(part, int)):
            path.append(part)
            plain = cast(Any, plain)[part]
        elif details["type"] == "missing" and location[-1] == part:
            path.append(part)
            break
    if details["type"].startswith("union_tag"):  # pydantic names the union: the model; we, the key that decides
        path.append("name")
    return tuple(path)


def _problem(
    path: Path,
    group: list[ErrorDetails],
    plain: dict[str, Any],
    defaults: Mapping[str, Any],
    schema: type[BaseModel],
    mended: dict[str, Any],
) -> Problem:
    where, given, default = dotted(path), at(plain, path), remedy(path, plain, defaults)
    kinds = {details["type"]: details for details in group}
    if "extra_forbidden" in kinds:
        return _unknown(path, plain, defaults)
    if kinds.keys() & {"missing", "union_tag_not_found"}:
        take_over = "; add it, or begin your file with 'defaults: [NAME]' to take over the keys of another"
        whole = "" if default or len(path) == 1 else take_over
        return Problem(where, f"is missing{whole}", default and f"+{default}")
    if kinds.keys() == {"model_type"} and isinstance(given, str) and len(path) > 1:
        what = "is a group of files, which is chosen with a slash"
        return Problem(where, what, assign("/".join(map(str, path)), given))
    fitting = _corrected(path, plain, [*_near(given), *_named(group, given)], schema, mended)
    fitting = fitting or _corrected(path, plain, [_default(path, plain, defaults)], schema, mended)
    if "value_error" in kinds:
        return Problem(where, kinds["value_error"]["msg"].removeprefix("Value error, "), fitting)
    expected = " or ".join(dict.fromkeys(_expected(details, given) for details in group))
    return Problem(where, f"got {cut(shown(given), 200)}, expected {expected}", fitting)


def _unknown(path: Path, plain: dict[str, Any], defaults: Mapping[str, Any]) -> Problem:
    where, given = dotted(path), at(plain, path)
    if path == ("experiment",) and isinstance(given, dict):
        if not given:
            return Problem(where, "the preset is empty; it starts with the line '# @package _global_'")
        what = "the preset sets keys of the top level, so its file has to start with the line '# @package _global_'"
        return Problem(where, what)
    siblings = at(defaults, path[:-1]) or at(plain, path[:-1])
    known = [str(key) for key in siblings if str(key) not in (str(path[-1]), "hydra")]
    kept = "" if (meant := closest(str(path[-1]), known)) is None else f" {assign(dotted((*path[:-1], meant)), given)}"
    return Problem(where, f"no such key; {suggest(str(path[-1]), known)}", f"~{where}{kept}")


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


def _named(group: list[ErrorDetails], given: Any) -> Iterator[Any]:
    """Of the words that are allowed, the one that was probably meant."""
    for details in group:
        if details["type"] in ("literal_error", "union_tag_invalid") and (
            meant := closest(str(given), _choices(details))
        ):
            yield meant


def _corrected(
    path: Path,
    plain: dict[str, Any],
    candidates: Iterable[Any],
    schema: type[BaseModel],
    mended: dict[str, Any],
) -> str:
    """Set the first candidate that the schema takes in `mended`; empty if it takes none."""
    for candidate in candidates:
        if candidate is None or isinstance(candidate, dict):
            continue
        changed = deepcopy(plain)
        parent = at(changed, path[:-1])
        if not isinstance(parent, dict | list):
            return ""
        parent[path[-1]] = candidate  # type: ignore[index]
        try:
            schema.model_validate(changed)
        except ValidationError as error:
            if any(_path(details, changed)[: len(path)] == path for details in error.errors()):
                continue
        with suppress(LookupError, TypeError):  # what it is in was replaced
            at(mended, path[:-1])[path[-1]] = candidate
        return MENDED
    return ""


def _choices(details: ErrorDetails) -> list[str]:
    context = details.get("ctx", {})
    return re.findall(r"'([^']+)'", context.get("expected") or context["expected_tags"])


def _expected(details: ErrorDetails, given: Any) -> str:
    kind, context = details["type"], details.get("ctx", {})
    if kind in ("literal_error", "union_tag_invalid"):
        choices = _choices(details)
        meant = closest(str(given), choices)
        return " or ".join(choices) + (f"; did you mean '{meant}'?" if meant else "")
    whole = not any(isinstance(bound, float) for bound in context.values())
    number = "a whole number" if isinstance(given, int) and whole else "a number"
    return EXPECTED[kind].format(number=number, **context) if kind in EXPECTED else details["msg"]


def remedy(path: Path, plain: dict[str, Any], defaults: Mapping[str, Any]) -> str:
    """The key's default as an override; in a list, the rest of the user's entries stay."""
    value = _default(path, plain, defaults)
    key = key_of(path)
    if key != path:
        given, default = at(plain, key), value
        entries = [default if i == path[len(key)] else item for i, item in enumerate(given or ())]
        value = entries if isinstance(given, list) and default is not None else at(defaults, key)
    return "" if value is None or isinstance(value, dict) else assign(dotted(key), value)


def _default(path: Path, plain: dict[str, Any], defaults: Mapping[str, Any]) -> Any:
    """The default of a key; of an entry of a list, the default's entry at its place, or its last one."""
    key = key_of(path)
    value = at(defaults, key)
    if key != path and isinstance(value, list):
        index, *below = path[len(key) :]
        return at(value, (min(cast(int, index), len(value) - 1), *below)) if value else None
    return value


def at(tree: Any, path: Path) -> Any:
    """What stands at a path; None if nothing does."""
    for part in path:
        try:
            tree = tree[part]
        except (KeyError, IndexError, TypeError):
            return None
    return tree

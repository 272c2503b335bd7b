"""Every problem of a config, found at once and before TensorFlow is imported."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar, cast

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from pydantic import ValidationError

from experiments.config import expansion
from experiments.config.agreement import disagreements, unused_knobs
from experiments.config.explain import at, explain, remedy
from experiments.config.named import UNKNOWN, context_of
from experiments.config.problems import BEYOND_64_BITS, Problem, Refused, beyond_64_bits, dotted
from experiments.config.recordable import unrecordable
from experiments.config.schema import Config, Section

S = TypeVar("S", bound=Section)

# Keys by which Hydra and Keras would look up and run arbitrary code.
HYDRA_CODE_KEYS = frozenset({"_target_", "_partial_"})
KERAS_CODE_KEYS = frozenset({"class_name", "registered_name", "module"})


def check(config: DictConfig, schema: type[S], defaults: Callable[[], DictConfig] | None = None) -> S:
    """Return the config, checked.

    Args:
        config: As Hydra composed it.
        schema: What it has to fit.
        defaults: Composes it without the user's values; remedies are taken from there. Called if there are problems.

    Raises:
        Refused: With every problem that was found.
    """
    try:
        return _check(config, schema, {})
    except Refused:
        if defaults is None:
            raise
        return _check(config, schema, cast(dict[str, Any], OmegaConf.to_container(defaults())))


def _check(config: DictConfig, schema: type[S], defaults: Mapping[str, Any]) -> S:
    plain, problems = _resolve(config, defaults)
    for path in list(beyond_64_bits(plain)):  # replaced by the default, so that the other keys can be checked
        problems.append(Problem(dotted(path), f"holds {BEYOND_64_BITS}", remedy(path, {}, defaults)))
        at(plain, path[:-1])[path[-1]] = at(defaults, path)
    problems += find_problems(plain, schema, defaults)
    if not problems and isinstance(config.get("model"), DictConfig):
        problems = list(unused_knobs(config.model))
    if problems:
        first: dict[str, Problem] = {}  # of those about the same key
        for problem in problems:
            first.setdefault(problem.where, problem)
        raise Refused(list(first.values()))
    return schema.model_validate(plain)


def find_problems(plain: dict[str, Any], schema: type[Section], defaults: Mapping[str, Any]) -> list[Problem]:
    """List all problems of a resolved config: code, types and ranges, names, then keys that do not go together."""
    problems = list(_code(plain))
    try:
        checked = schema.model_validate(plain, context=context_of(plain))
    except ValidationError as error:
        found = explain(error, plain, defaults, schema)
        if {details["type"] for details in error.errors()} != {UNKNOWN}:
            return problems + found
        checked, problems = schema.model_validate(plain), problems + found  # more can be said, but not of those names
    if isinstance(checked, Config):
        unknown = {re.split(r"[.\[]", problem.where)[0] for problem in problems}
        problems += [*disagreements(checked, unknown), *unrecordable(checked)]
    return problems


def _resolved(config: DictConfig) -> dict[str, Any]:
    """Resolve all sections but Hydra's.

    Raises:
        Refused: Its references would multiply to more than fits into memory.
    """
    names = [str(key) for key in config if key != "hydra"]
    if any(OmegaConf.is_interpolation(config, name) for name in names):
        _refuse_too_long(config)
    values = {name: config[name] for name in names}
    with suppress(LookupError):  # OmegaConf parses each reference anew, which takes longer than the rest of a check
        raw = {
            key: OmegaConf.to_container(value) if OmegaConf.is_config(value) else value for key, value in values.items()
        }
        return cast(dict[str, Any], _followed(raw, raw))
    _refuse_too_long(config)
    return {
        key: OmegaConf.to_container(value, resolve=True, throw_on_missing=True) if OmegaConf.is_config(value) else value
        for key, value in values.items()
    }


def _refuse_too_long(config: DictConfig) -> None:
    if problem := expansion.too_long(config):
        raise Refused(problem)


def _followed(value: Any, root: Mapping[str, Any]) -> Any:
    """Replace references such as ``${data.name}`` by the plain values that they name.

    Raises:
        LookupError: Something is missing, or only OmegaConf can resolve it.
    """
    if isinstance(value, dict):
        return {key: _followed(inner, root) for key, inner in value.items()}
    if isinstance(value, list):
        return [_followed(inner, root) for inner in value]
    if not isinstance(value, str) or ("${" not in value and value != MISSING):
        return value
    if (reference := re.fullmatch(r"\$\{([a-z_]\w*(?:\.[a-z_]\w*)*)\}", value)) is None:
        raise LookupError
    found: Any = root
    for part in reference[1].split("."):
        if not isinstance(found, dict):
            raise LookupError
        found = found[part]
    if isinstance(found, dict | list) or (isinstance(found, str) and ("${" in found or found == MISSING)):
        raise LookupError
    return found


def _resolve(config: DictConfig, defaults: Mapping[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
    """Resolve interpolations; what cannot be resolved gets its default, so that the other keys can be checked."""
    with suppress(OmegaConfBaseException):
        return _resolved(config), []  # without a copy, which takes most of the time of a check
    copy = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    problems: dict[str, Problem] = {}
    while True:
        try:
            plain = OmegaConf.to_container(copy, resolve=True, throw_on_missing=True)
            return {str(key): value for key, value in cast(dict[str, Any], plain).items()}, list(problems.values())
        except OmegaConfBaseException as error:
            missing = isinstance(error, MissingMandatoryValue)
            what = "is not set, expected a value" if missing else str(error.msg).splitlines()[0]
            key = str(error.full_key)
            if key in problems or not error.full_key:
                raise Refused(Problem(key, what)) from error
            path = tuple(int(part) if part.isdigit() else part for part in re.split(r"[.\[\]]+", key.rstrip("]")))
            problems[key] = Problem(key, what, remedy(path, {}, defaults))
            OmegaConf.update(copy, key, at(defaults, path))


def _code(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[Problem]:
    """Find keys that would make Hydra or Keras look up arbitrary code."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        where = dotted([*path, key])
        if key in HYDRA_CODE_KEYS or (key in KERAS_CODE_KEYS and path[:2] != ("tracking", "tags")):
            what = (
                f"got {item!r}, but a config names Keras objects only, as {{Dense: {{units: 10}}}}; "
                "classes of your own package are allowed by trust=[mypackage]"
            )
            yield Problem(where, what, "" if "[" in where else f"~{where}")
        else:
            yield from _code(item, (*path, key))


def distrusted(packages: Sequence[str], overrides: Sequence[str] | None) -> list[Problem]:
    """List the packages that were not named on the command line, the only place that may trust a package.

    Args:
        packages: Those that the config trusts.
        overrides: Of the command line; None where there is none.
    """
    if overrides is None:
        return []
    values = [text.lstrip("+").removeprefix("trust=") for text in overrides if re.match(r"\+*trust=", text)]
    typed = {word for value in values for word in re.findall(r"[\w.]+", value)}
    what = "a config file trusts {}, but a package is code, and trusted on the command line only"
    remedy = f"trust=[{','.join(packages)}]"
    return [Problem("trust", what.format(package), remedy) for package in packages if package not in typed]

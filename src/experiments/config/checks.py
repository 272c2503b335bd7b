"""Every problem of a config, found at once and before TensorFlow is imported."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any, TypeVar, cast

from omegaconf import DictConfig, OmegaConf
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
    plain, problems = resolve(config, defaults)
    for path in list(beyond_64_bits(plain)):  # replaced by the default, so that the other keys can be checked
        problems.append(Problem(dotted(path), f"holds {BEYOND_64_BITS}", remedy(path, defaults)))
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


def resolve(config: DictConfig, defaults: Mapping[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
    """Resolve all sections but Hydra's; what cannot be resolved gets its default, so that the rest can be checked.

    Raises:
        Refused: Its references would multiply to more than fits into memory, or a default cannot be resolved either.
    """
    if problem := expansion.too_long(config):
        raise Refused(problem)
    problems: dict[str, Problem] = {}
    while True:
        try:
            return {str(key): _plain(config[key]) for key in config if key != "hydra"}, list(problems.values())
        except OmegaConfBaseException as error:
            config = config if problems else deepcopy(config)
            missing = isinstance(error, MissingMandatoryValue)
            what = "is not set, expected a value" if missing else str(error.msg).splitlines()[0]
            key = str(error.full_key)
            if key in problems or not error.full_key:
                raise Refused(Problem(key, what)) from error
            path = tuple(int(part) if part.isdigit() else part for part in re.split(r"[.\[\]]+", key.rstrip("]")))
            problems[key] = Problem(key, what, remedy(path, defaults))
            OmegaConf.update(config, key, at(defaults, path))


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True, throw_on_missing=True) if OmegaConf.is_config(value) else value


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

"""The proposer and the executor that a config names, each with its settings, checked."""

import importlib
import pkgutil
from collections.abc import Sequence
from types import ModuleType
from typing import Any, NamedTuple, cast

from omegaconf import DictConfig, OmegaConf
from pydantic import create_model

from experiments.config import Problem, Refused
from experiments.config.checks import distrusted, find_problems
from experiments.config.keras_names import is_within
from experiments.config.problems import assign, suggest
from experiments.config.schema import Section

# Of each section of Hydra's part of the config: the key that names a module, our package of these, its function.
KINDS = {
    "sweeper": ("proposer", "experiments.sweeps.proposers", "propose"),
    "launcher": ("executor", "experiments.sweeps.executors", "executor"),
}
# Keys that all modules of a section have, beside those of their own settings.
COMMON: dict[str, dict[str, Any]] = {"sweeper": {"dry_run": (bool, False)}, "launcher": {}}


class Part(NamedTuple):
    """A module, and its ``Settings`` with the values of the config."""

    module: ModuleType
    settings: Any


def load(config: DictConfig, *sections: str) -> dict[str, Part]:
    """Find the modules that a config names, and check their settings.

    Args:
        config: Of the sweep, as Hydra composed it.
        sections: ``sweeper``, ``launcher``.

    Raises:
        Refused: With all problems.
    """
    parts, problems = {}, list[Problem]()
    for section in sections:
        try:
            parts[section] = _load(config, section)
        except Refused as refused:
            problems += refused.problems
    if problems:
        raise Refused(list(dict.fromkeys(problems)))
    return parts


def _load(config: DictConfig, section: str) -> Part:
    given = cast(dict[str, Any], OmegaConf.to_container(config.hydra[section], resolve=True))
    key, package, function = KINDS[section]
    module = _find(given.pop(key, None), f"hydra.{section}.{key}", package, config)
    if missing := [name for name in ("Settings", function) if not hasattr(module, name)]:
        what = f"got {module.__name__}, which has no {' and no '.join(missing)}: see the docstring of {package}"
        raise Refused(Problem(f"hydra.{section}.{key}", what))
    del given["_target_"]
    schema = create_model("Settings", __base__=module.Settings, **COMMON[section])
    return Part(module, check_settings(section, cast(type[Section], schema), given))


def _find(name: Any, key: str, package: str, config: DictConfig) -> ModuleType:
    """Import a module: one of ours, or, where its name has dots, of a package that the command line trusts."""
    known = [module.name for module in pkgutil.iter_modules(importlib.import_module(package).__path__)]
    if not isinstance(name, str) or not all(part.isidentifier() for part in name.split(".")):
        raise Refused(Problem(key, f"got {name}, expected the name of a module; {suggest('', known)}"))
    if "." not in name:
        if name not in known:
            raise Refused(Problem(key, f"got {name}; {suggest(name, known)}"))
        return importlib.import_module(f"{package}.{name}")
    if not is_within(name, trust := _trusted(config)):
        remedy = assign("trust", [*trust, name.partition(".")[0]])
        raise Refused(Problem(key, f"got {name}, a module of a package that is not trusted", remedy))
    try:
        return importlib.import_module(name)
    except Exception as error:  # the user's own code raises all kinds
        what = f"got {name}, which cannot be imported: {type(error).__name__}: {error}"
        raise Refused(Problem(key, what)) from error


def _trusted(config: DictConfig) -> list[str]:
    trust = OmegaConf.to_container(config.trust) if OmegaConf.is_list(config.trust) else config.trust
    if not isinstance(trust, list):
        raise Refused(Problem("trust", f"got {trust}, expected a list of packages", f"trust=[{trust or ''}]"))
    packages = [str(package) for package in trust]
    overrides = cast(list[str], OmegaConf.to_container(config.hydra.overrides.task))
    if problems := distrusted(packages, overrides):
        raise Refused(problems)
    return packages


def check_settings(section: str, schema: type[Section], given: dict[str, Any]) -> Section:
    """Check keys of Hydra's part of the config.

    Args:
        section: ``sweeper`` or ``launcher``.
        schema: What they have to fit, with their defaults.
        given: Their values.

    Raises:
        Refused: With all problems.
    """
    inner = create_model("Hydra", __base__=Section, **{section: (schema, ...)})  # type: ignore[call-overload]
    outer = create_model("Settings", __base__=Section, hydra=(inner, ...))
    fields: Sequence[tuple[str, Any]] = list(schema.model_fields.items())
    defaults = {name: field.get_default(call_default_factory=True) for name, field in fields if not field.is_required()}
    if problems := find_problems({"hydra": {section: given}}, outer, {"hydra": {section: defaults}}):
        raise Refused(problems)
    return schema.model_validate(given)

"""Proposers and executors by name, and their settings, checked."""

import importlib
import pkgutil
from collections.abc import Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any, TypeVar

from omegaconf import OmegaConf
from pydantic import create_model

from experiments.config import Problem, Refused
from experiments.config.checks import find_problems
from experiments.config.problems import suggest
from experiments.config.schema import Section

S = TypeVar("S", bound=Section)


def find(package: str, folders: Iterable[str], name: str, key: str, trust: Sequence[str]) -> ModuleType:
    """Import a module by its name.

    Args:
        package: Ours, in which names without a dot are.
        folders: Of this package.
        name: What the user says; with dots, a module of a package of their own.
        key: Where they say it.
        trust: The packages of their own that they trust.

    Raises:
        Refused: There is none of this name, or its package is not trusted.
    """
    if "." in name:
        if name.partition(".")[0] not in trust:
            remedy = f"trust=[{name.partition('.')[0]}]"
            raise Refused(Problem(key, f"got {name}, a module of a package that is not trusted", remedy))
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            raise Refused(Problem(key, f"got {name}, which cannot be imported: {error}")) from error
    known = [module.name for module in pkgutil.iter_modules(folders)]
    if name not in known:
        raise Refused(Problem(key, f"got {name}; {suggest(name, known)}"))
    return importlib.import_module(f"{package}.{name}")


def check_settings(section: str, schema: type[S], settings: Mapping[str, Any]) -> S:
    """Check keys of Hydra's part of the config.

    Args:
        section: ``sweeper`` or ``launcher``.
        schema: What they have to fit, with their defaults.
        settings: As Hydra composed them.

    Raises:
        Refused: With all problems.
    """
    plain = {
        key: OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
        for key, value in settings.items()
    }
    inner = create_model("Hydra", __base__=Section, **{section: (schema, ...)})  # type: ignore[call-overload]
    outer = create_model("Settings", __base__=Section, hydra=(inner, ...))
    defaults = {"hydra": {section: schema().model_dump()}}
    if problems := find_problems({"hydra": {section: plain}}, outer, defaults):
        raise Refused(problems)
    return schema.model_validate(plain)

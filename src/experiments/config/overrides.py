"""Every override of a command that cannot be used; Hydra itself stops at the first one."""

import re
from collections.abc import Iterator, Sequence
from copy import deepcopy
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from experiments.config.problems import Problem, Refused, assign, closest, dotted, quoted, shown, suggest

COMPOSITION_ERRORS = (HydraException, OmegaConfBaseException, YAMLError)


def compose_usable(
    overrides: Sequence[str], config_name: str, loader: ConfigLoaderImpl, sweep: bool
) -> tuple[DictConfig, list[Problem]]:
    """Compose a config from those overrides that can be used.

    Args:
        overrides: As they were typed.
        config_name: The primary config.
        loader: Where configs are looked for.
        sweep: Whether an override may give several values; each choice of a group is looked at.

    Returns:
        The config, and a problem for each of the other overrides.

    Raises:
        Refused: There is nothing to compose from.
    """
    repository = loader.repository
    if not repository.config_exists(config_name):
        known = [name for name in repository.get_group_options("") if not name.startswith("_")]
        best = closest(config_name, known) or "config"
        raise Refused(
            Problem(
                "--config-name", f"there is no {config_name!r}; {suggest(config_name, known)}", f"--config-name {best}"
            )
        )
    parsed, problems = _parse(overrides, loader, sweep)
    groups = [item for item in parsed if repository.group_exists(item.key_or_group)]
    usable = [
        item
        for item in groups
        if all(choice in repository.get_group_options(item.key_or_group) for choice in _choices(item))
    ]
    composed, unfit = _compose_groups(usable, config_name, loader)
    problems += [_choice_problem(item, repository, composed) for item in groups if item not in usable] + unfit
    for item in parsed:
        if item not in groups:
            composed, found = _apply(item, composed, repository)
            problems += found
    return composed, problems


def _parse(overrides: Sequence[str], loader: ConfigLoaderImpl, sweep: bool) -> tuple[list[Override], list[Problem]]:
    """Read overrides; of a sweep, each choice of a group and one value of a key."""
    parser = OverridesParser.create(loader)
    parsed: list[Override] = []
    problems = []
    for text in overrides:
        try:
            override = parser.parse_overrides([text])[0]
            if not override.is_sweep_override():
                parsed.append(override)
            elif not sweep:
                problems.append(
                    Problem(override.get_key_element(), "got several values, which is a sweep", f"-m {quoted(text)}")
                )
            else:
                values = list(override.sweep_string_iterator()) if override.is_discrete_sweep() else ["0"]
                count = len(values) if loader.repository.group_exists(override.key_or_group) else 1
                parsed += parser.parse_overrides([f"{override.get_key_element()}={value}" for value in values[:count]])
        except OverrideParseException as error:
            first, second, *_ = str(error).splitlines()
            reason = second if first.startswith("Error parsing") else first.removeprefix("LexerNoViableAltException: ")
            hint = "put quotes around a value with brackets, blanks or commas: 'KEY=[A, B]'"
            problems.append(Problem(text, f"cannot be read as KEY=VALUE ({reason}); {hint}"))
    return parsed, problems


def _choices(override: Override) -> list[Any]:
    given: Any = override.value()
    return given if isinstance(given, list) else [] if override.is_delete() else [given]


def _choice_problem(override: Override, repository: Any, composed: DictConfig) -> Problem:
    group, known = override.key_or_group, repository.get_group_options(override.key_or_group)
    wrong = [shown(choice) for choice in _choices(override) if choice not in known]
    what = "; ".join(f"there is no {choice}; {suggest(choice, known)}" for choice in wrong)
    meant = [closest(str(choice), known) for choice in _choices(override)]
    if isinstance(override.value(), list):
        return Problem(group, what, assign(group, [choice for choice in meant if choice]))
    default = meant[0] or composed.hydra.runtime.choices.get(group)
    return Problem(group, what, f"{group}={default}" if default else "")


def _compose_groups(
    groups: list[Override], config_name: str, loader: ConfigLoaderImpl
) -> tuple[DictConfig, list[Problem]]:
    def compose(*chosen: Override) -> DictConfig:
        return loader.load_configuration(config_name, [str(item.input_line) for item in chosen], RunMode.RUN)

    try:
        return compose(*groups), []
    except COMPOSITION_ERRORS:  # rare: an override of a group that Hydra cannot place, a broken file
        composed, problems = compose(), []
    for item in groups:
        try:
            compose(item)
        except COMPOSITION_ERRORS as error:
            problems.append(_unplaced(item, error))
    return composed, problems


def _unplaced(override: Override, error: Exception) -> Problem:
    group = override.key_or_group
    if override.is_add() and override.package is None and isinstance(error, HydraException):
        return Problem(
            override.get_key_element(),
            "is chosen already; a choice is changed without the +",
            assign(group, override.value()),
        )
    return Problem(str(override.input_line), first_lines(error))


def _apply(override: Override, composed: DictConfig, repository: Any) -> tuple[DictConfig, list[Problem]]:
    """Set one key as Hydra would; composing anew for each key would take 0.15 s each."""
    changed = deepcopy(composed)
    try:
        ConfigLoaderImpl._apply_overrides_to_config([override], changed)
    except COMPOSITION_ERRORS as error:
        return composed, [_key_problem(override, error, composed, repository)]
    return changed, []


def _key_problem(override: Override, error: Exception, composed: DictConfig, repository: Any) -> Problem:
    where, key, line = override.get_key_element(), override.key_or_group, str(override.input_line)
    given = line.partition("=")[2]
    if override.is_add():
        return Problem(where, "is there already; a value is changed without the +", quoted(f"{key}={given}"))
    parent, name, rest = _first_unknown(key, composed)
    section = OmegaConf.select(composed, parent) if parent else composed
    if not isinstance(section, DictConfig):
        return Problem(where, f"{parent} is a value, it has no keys of its own")
    if not name:
        return Problem(where, first_lines(error))
    if name in repository.get_group_options(parent):
        chosen = [*(composed.hydra.runtime.choices.get(parent) or []), name]
        return Problem(where, f"{name} is not chosen", f"{assign(parent, chosen)} {quoted(line)}")
    known = list(_groups(repository)) if "/" in key else [str(item) for item in section if item != "hydra"]
    meant = closest(name, known)
    remedy = (
        "" if meant is None or override.is_delete() else quoted(f"{dotted([*parent.split('.'), meant])}{rest}={given}")
    )
    return Problem(where, f"there is no such key; {suggest(name, known)}", remedy)


def _first_unknown(key: str, composed: DictConfig) -> tuple[str, str, str]:
    """Split a key at its first part that the config does not have: what is before it, the part, what is after it."""
    parts = key.split(".")
    for index, part in enumerate(parts):
        parent = ".".join(parts[:index])
        section = OmegaConf.select(composed, parent) if parent else composed
        if not isinstance(section, DictConfig) or part not in section:
            return parent, part, "".join(f".{later}" for later in parts[index + 1 :])
    return key, "", ""


def _groups(repository: Any, parent: str = "") -> Iterator[str]:
    for name in repository.get_group_options(parent, ObjectType.GROUP):
        group = f"{parent}/{name}".lstrip("/")
        if group != "hydra":
            yield group
            yield from _groups(repository, group)


def first_lines(error: Exception) -> str:
    """What Hydra says, up to its first blank line or OmegaConf's details, on one line."""
    return " ".join(re.split(r"\n\n|\n +full_key", str(error))[0].split()) or type(error).__name__

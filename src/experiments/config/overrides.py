"""Every override of a command that cannot be used; Hydra itself stops at the first one."""

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from copy import deepcopy
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.errors import HydraException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from experiments.config import sweep_values, unreadable
from experiments.config.files import DEEPEST, BrokenFile
from experiments.config.keys import Keys, groups_of
from experiments.config.problems import (
    NAME_LENGTH,
    Problem,
    Refused,
    assign,
    closest,
    first_lines,
    quoted,
    shown,
    suggest,
)

QUOTED = re.compile(r"""'(\\.|[^'\\])*'|"(\\.|[^"\\])*\"""")
COMPOSITION_ERRORS = (HydraException, OmegaConfBaseException, YAMLError)
# Keys of the folders that all output goes into, and values that work.
FOLDERS = {"hydra.run.dir": "mlruns/outputs/mine", "hydra.sweep.dir": "mlruns/multirun/mine"}


def ids_as_text(override: str) -> str:
    """Quote ids of runs that Hydra would read as floating-point numbers: 12e45678 would be infinity.

    Whole numbers are left to `schema.RunId`, which has to turn back those of YAML files anyway.
    """
    key, equals, value = override.partition("=")
    if key not in ("run", "runs", "sweep"):
        return override
    return key + equals + re.sub(r"(?<![\w.@'\"])\d+e\d+(?![\w.@'\"])", r"'\g<0>'", value)


def without_plus(override: str) -> str:
    """Take the + from a key of a preset, which is none: Hydra would add a section that no command reads."""
    return override.lstrip("+") if re.match(r"\++experiment\.", override) else override


def nested_too_deeply(override: str) -> str:
    """Why Hydra must not parse an override, for which it would take up to minutes; empty if it may."""
    depth = deepest = 0
    for bracket in re.findall(r"[\[{(\]})]", re.sub(QUOTED, "", override)):
        depth += 1 if bracket in "[{(" else -1
        deepest = max(deepest, depth)
    return f"its brackets are nested more than {DEEPEST} levels deep" if deepest > DEEPEST else ""


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
    if len(os.fsencode(config_name)) > NAME_LENGTH or not repository.config_exists(config_name):
        known = [name for name in repository.get_group_options("") if not name.startswith("_")]
        what = f"there is no {config_name!r}; {suggest(config_name, known)}"
        raise Refused(Problem("--config-name", what, f"--config-name {closest(config_name, known) or 'config'}"))

    def compose(groups: Sequence[Override]) -> DictConfig:
        return loader.load_configuration(config_name, [str(item.input_line) for item in groups], RunMode.RUN)

    parsed, problems = _parse(overrides, loader, sweep)
    single = [item for item in parsed if not item.is_sweep_override()]
    groups = [item for item in single if repository.group_exists(item.key_or_group)]
    usable = []
    for item in groups:
        options = repository.get_group_options(item.key_or_group)
        if all(choice in options for choice in _choices(item)):
            usable.append(item)
    try:
        composed, untried = compose(usable), []
    except Exception:  # a sweep's choices exclude each other, a group has no place there, a file is broken
        composed, untried = compose([]), usable
    problems += [_choice_problem(item, repository, composed, overrides) for item in groups if item not in usable]
    fitting = []
    for item in untried:
        try:
            compose([item])
            fitting.append(item)
        except BrokenFile as error:
            problems.append(error.problem)
        except Exception as error:
            problems.append(_problem(item, error, composed, repository))
    if len(fitting) < len(untried):
        with suppress(Exception):  # as above
            composed = compose(fitting)
    problems += [_sweep_problem(item, composed) for item in parsed if item.is_sweep_override()]
    for item in (item for item in single if item not in groups):
        try:  # as Hydra would; composing anew for each key would take 0.15 s each
            changed = deepcopy(composed)
            ConfigLoaderImpl._apply_overrides_to_config([item], changed)
            composed = changed
        except Exception as error:
            problems.append(_problem(item, error, composed, repository))
    composed.hydra.overrides.task = [text for text in overrides if not text.lstrip("+~").startswith("hydra")]
    return composed, problems


def _parse(overrides: Sequence[str], loader: ConfigLoaderImpl, sweep: bool) -> tuple[list[Override], list[Problem]]:
    """Read overrides; of a sweep, each choice of a group and one value of a key."""
    parser = OverridesParser.create(loader)
    parsed: list[Override] = []
    problems, left = [], list(overrides)

    def read(text: str) -> Override:
        if not text.partition("=")[0].strip("+~"):
            raise OverrideParseException(text, "no key")
        return parser.parse_overrides([text])[0]

    def readable(text: str) -> bool:
        with suppress(OverrideParseException, ValueError, RecursionError):
            return not nested_too_deeply(text) and bool(read(text))
        return False

    while left:
        text = left.pop(0)
        if what := nested_too_deeply(text):
            problems.append(Problem(text.partition("=")[0], what))
            continue
        try:
            override = read(text)
        except (OverrideParseException, ValueError, RecursionError) as error:
            problem, words = unreadable.explain([text, *left], error, readable)
            problems.append(problem)
            del left[: words - 1]
            continue
        key = override.get_key_element()
        if any(len(os.fsencode(part)) > NAME_LENGTH for part in re.split("[./@]", key)):
            problems.append(Problem(key, f"there is no such key; known: {', '.join(loader.list_groups(''))}, …"))
            continue
        if not override.is_sweep_override() or not sweep:
            parsed.append(override)
        else:
            try:
                sweep_values.count(override)
            except Refused as refused:
                problems += refused.problems
                continue
            given = override.value()
            if isinstance(given, RangeSweep | IntervalSweep):
                values = [str(given.start)]
            else:
                values = list(override.sweep_string_iterator())
            count = len(values) if loader.repository.group_exists(override.key_or_group) else 1
            one_by_one = parser.parse_overrides([f"{key}={value}" for value in values[:count]])
            if not loader.repository.group_exists(override.key_or_group):
                one_by_one[0].input_line = text  # what a remedy keeps
            parsed += one_by_one
    return parsed, problems


def no_folder(key: str, given: str, composed: DictConfig) -> Problem:
    """Say that a key of `FOLDERS` names none."""
    remedy = FOLDERS[key] if composed.hydra.job.name == "run" else "."
    return Problem(key, f"got {given}, expected the name of a folder, which all output goes into", f"{key}={remedy}")


def _sweep_problem(override: Override, composed: DictConfig) -> Problem:
    """Several values outside a sweep: a list without brackets, or a sweep without -m."""
    key, _, values = str(override.input_line).partition("=")
    takes_list = isinstance(OmegaConf.select(composed, key), ListConfig) or _takes_several(key, composed)
    if takes_list and override.is_choice_sweep():
        return Problem(key, "got several values without brackets, expected a list", quoted(f"{key}=[{values}]"))
    if composed.hydra.job.name != "run":
        return Problem(key, "got several values, expected one")
    return Problem(key, "got several values, which is a sweep", f"-m {quoted(str(override.input_line))}")


def _takes_several(group: str, composed: DictConfig) -> bool:
    """Whether a group's files can be chosen together, as callbacks can. Hydra lists only groups with a choice."""
    chosen = composed.hydra.runtime.choices.get(group, [])
    return isinstance(chosen, list | ListConfig) and isinstance(OmegaConf.select(composed, group), DictConfig)


def _choices(override: Override) -> list[Any]:
    given: Any = override.value()
    return given if isinstance(given, list) else [] if override.is_delete() else [given]


def _choice_problem(override: Override, repository: Any, composed: DictConfig, overrides: Sequence[str]) -> Problem:
    group, given = override.key_or_group, _choices(override)
    if given == [None] and composed.hydra.runtime.choices.get(group) is None:
        return Problem(group, "got null, which stands for no choice in a list of defaults only", f"~{group}")
    known = repository.get_group_options(group)
    wrong = [shown(choice) for choice in given if choice not in known]
    what = "; ".join(f"there is no {choice}; {suggest(choice, known)}" for choice in wrong)
    meant: Any = [best for choice in given if (best := closest(str(choice), known))]
    if not isinstance(override.value(), list):
        if meant:
            swept = next((text for text in overrides if re.fullmatch(rf"{re.escape(group)}=[\w,]+,\w+", text)), "")
            values = swept.partition("=")[2].split(",") if swept else given  # of a sweep, the other values stay
            mended = dict.fromkeys(value if value in known else closest(str(value), known) or value for value in values)
            return Problem(group, what, quoted(f"{group}={','.join(map(str, mended))}"))
        if str(given[0]).lower() in ("none", "false", "off") and _takes_several(group, composed):
            return Problem(group, what, f"{group}=[]")
        meant = composed.hydra.runtime.choices.get(group)
    return Problem(group, what, assign(group, meant) if meant else "")


def _value_problem(override: Override, error: Exception, given: str, composed: DictConfig) -> Problem:
    """A key that exists, and cannot be given this value."""
    if override.key_or_group in FOLDERS and not override.is_delete():
        return no_folder(override.key_or_group, given, composed)
    cause = error.__cause__  # OmegaConf says more than Hydra
    return Problem(override.get_key_element(), first_lines(cause if isinstance(cause, Exception) else error))


def _problem(override: Override, error: Exception, composed: DictConfig, repository: Any) -> Problem:
    where, key, given = override.get_key_element(), override.key_or_group, str(override.input_line).partition("=")[2]
    if override.is_add() and override.package is None and isinstance(error, HydraException):
        return Problem(where, "is there already; it is changed without the +", quoted(f"{key}={given}"))
    if repository.group_exists(key):
        return Problem(str(override.input_line), first_lines(error))
    parts, choices = key.split("."), composed.hydra.runtime.choices
    for depth, name in enumerate(parts):
        parent = ".".join(parts[:depth])
        section = OmegaConf.select(composed, parent)
        if not isinstance(section, DictConfig):
            return Problem(where, f"{parent} is a value, it has no keys of its own")
        if name not in section:
            break
    else:
        return _value_problem(override, error, given, composed)
    if parent == "callbacks" and name in repository.get_group_options(parent):
        chosen = [*(choices.get(parent) or []), name]
        return Problem(where, f"{name} is not chosen", f"{assign(parent, chosen)} {quoted(f'{key}={given}')}")
    known = [str(name) for name in (choices if "/" in key else section) if str(name).split("/")[0] != "hydra"]
    if not parent and "/" not in key and name not in (groups := groups_of(repository)):
        known = sorted({*known, *groups})
    hint, remedy = suggest(name, known), ""
    if not override.is_delete():
        keys, value = Keys(composed, repository), override.value()
        hint, remedy = keys.elsewhere(key, value, given) or keys.meant(key, known, value, given)
        if remedy == quoted(str(override.input_line)):
            hint, remedy = "", ""
    return Problem(where, f"there is no such key; {hint}", remedy)

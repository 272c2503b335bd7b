"""A config composed from all overrides of a command that can be used; Hydra itself stops at the first that cannot."""

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from copy import deepcopy
from importlib.util import find_spec

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from experiments.config import overrides as typed
from experiments.config.files import BrokenFile
from experiments.config.keys import Keys, choices, is_group
from experiments.config.problems import NAME_LENGTH, Problem, Refused, closest, first_lines, suggest


def set_value(config: DictConfig, override: Override) -> None:
    """Set, add or remove a key as Hydra does it.

    Raises:
        Exception: Hydra's or OmegaConf's: the key or the value cannot be used.
    """
    key, value = override.key_or_group, override.value()
    if override.package is not None:
        raise ConfigCompositionException(f"there is no group of files {key!r}, and only groups take an @")
    current = OmegaConf.select(config, key) if override.is_delete() or override.is_add() else None
    if override.is_delete():
        if current is None or value not in (None, current):
            state = "does not exist" if current is None else f"is {current} and not {value}"
            raise ConfigCompositionException(f"The value of {key!r} {state}")
        parent, _, name = key.rpartition(".")
        with open_dict(config):
            del (OmegaConf.select(config, parent) if parent else config)[name]
    elif override.is_add() and current is not None and not isinstance(value, dict | list):
        raise ConfigCompositionException(f"{key!r} is there already")
    else:
        OmegaConf.update(config, key, value, force_add=override.is_add() or override.is_force_add())


def note_overrides(config: DictConfig, overrides: Sequence[str]) -> None:
    """Have a config say which overrides it was composed from, as Hydra does: without those of Hydra's own keys."""
    own = [text for text in overrides if not re.match(r"[+~]*hydra[./]", text)]
    job, config.hydra.overrides.task = config.hydra.job, own
    names = job.config.override_dirname
    named = sorted(text for text in own if re.split("[=@]", text.lstrip("+~"))[0] not in names.exclude_keys)
    job.override_dirname = names.item_sep.join(named).replace("=", names.kv_sep)


def unusable(error: Exception, where: str = "") -> Problem:
    """Say why Hydra cannot compose a config.

    Args:
        error: Whatever it raised.
        where: What was composed; empty: the whole command.
    """
    if isinstance(error, BrokenFile):
        return error.problem
    return Problem(where or getattr(error, "full_key", "") or "command", first_lines(error))


def compose_usable(
    overrides: Sequence[str], config_name: str, loader: ConfigLoader, sweep: bool
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
    _refuse_unknown_config(config_name, loader)
    _refuse_other_optuna(overrides)
    parsed, problems = typed.parse(overrides, loader, sweep)
    single = [item for item in parsed if not item.is_sweep_override()]
    groups = [item for item in single if is_group(loader, item.key_or_group)]
    usable = [item for item in groups if _can_be_chosen(item, loader)]
    composed, failed = _compose_groups(usable, config_name, loader)
    keys = Keys(composed, loader)
    problems += [keys.unknown_choice(item, overrides) for item in groups if item not in usable]
    problems += [error.problem if isinstance(error, BrokenFile) else keys.misfit(item, error) for item, error in failed]
    problems += [keys.several_values(item) for item in parsed if item.is_sweep_override()]
    for item in (item for item in single if item not in groups):
        try:
            changed = deepcopy(composed)  # OmegaConf may stop half-way
            set_value(changed, item)
            composed = changed
        except Exception as error:  # whatever OmegaConf raises
            problems.append(keys.misfit(item, error))
    try:
        note_overrides(composed, overrides)
    except Exception as error:  # an override has changed what Hydra needs
        problems.append(unusable(error))
    return composed, problems


def _refuse_other_optuna(overrides: Sequence[str]) -> None:
    """Refuse a search where Hydra's own plugin for Optuna is installed, too: Hydra would merge the two."""
    if "hydra/sweeper=optuna" in overrides and find_spec("hydra_plugins.hydra_optuna_sweeper"):
        what = "the package hydra-optuna-sweeper has a sweeper of the same name, and Hydra cannot tell them apart"
        raise Refused(Problem("hydra/sweeper", what, "pip uninstall hydra-optuna-sweeper"))


def _can_be_chosen(override: Override, loader: ConfigLoader) -> bool:
    known = loader.get_group_options(override.key_or_group)
    return all(choice in known for choice in choices(override))


def _refuse_unknown_config(name: str, loader: ConfigLoader) -> None:
    fits = len(os.fsencode(name)) <= NAME_LENGTH
    if not (fits and any(source.is_config(name) for source in loader.get_sources())):
        known = [name for name in loader.get_group_options("") if not name.startswith("_")]
        what = f"there is no {name!r}; {suggest(name, known)}"
        raise Refused(Problem("--config-name", what, f"--config-name {closest(name, known) or 'config'}"))


def _compose_groups(
    groups: Sequence[Override], config_name: str, loader: ConfigLoader
) -> tuple[DictConfig, list[tuple[Override, Exception]]]:
    """Compose a config from the choices of groups; choices that cannot be used are left out.

    A sweep's choices may exclude each other, a group may have no place there, a file may be broken.
    """

    def compose(chosen: Sequence[Override]) -> DictConfig:
        return loader.load_configuration(config_name, [str(item.input_line) for item in chosen], RunMode.RUN)

    with suppress(Exception):
        return compose(groups), []
    try:
        composed = compose([])
    except Exception as error:
        raise Refused(unusable(error)) from error
    fitting, failed = list[Override](), list[tuple[Override, Exception]]()
    for item in groups:
        try:
            compose([item])
            fitting.append(item)
        except Exception as error:
            failed.append((item, error))
    with suppress(Exception):
        composed = compose(fitting)
    return composed, failed

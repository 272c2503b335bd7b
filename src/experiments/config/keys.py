"""Why an override does not fit a config, and which key or choice was probably meant."""

import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import Container, DictConfig, ListConfig, OmegaConf

from experiments.config.commands import CHOICES_OF_A_RUN
from experiments.config.problems import Problem, assign, closest, first_lines, quoted, shown, suggest

# Keys of the folders that all output goes into, and values that work.
FOLDERS = {"hydra.run.dir": "mlruns/outputs/mine", "hydra.sweep.dir": "mlruns/multirun/mine"}


def is_group(loader: ConfigLoader, name: str) -> bool:
    """Whether there is a folder of config files of this name, such as ``optimizer/schedule``."""
    return any(source.is_group(name) for source in loader.get_sources())


def no_folder(key: str, given: str, composed: DictConfig) -> Problem:
    """Say that a key of `FOLDERS` names none."""
    remedy = FOLDERS[key] if composed.hydra.job.name == "run" else "."
    return Problem(key, f"got {given}, expected the name of a folder, which all output goes into", f"{key}={remedy}")


def choices(override: Override) -> list[Any]:
    """The files that an override of a group chooses."""
    given: Any = override.value()
    return given if isinstance(given, list) else [] if override.is_delete() else [given]


class Keys:
    """The keys of a config, and the groups of files that can be chosen.

    Args:
        composed: The config.
        loader: Hydra's, of the config files.
    """

    def __init__(self, composed: DictConfig, loader: ConfigLoader) -> None:
        self._composed, self._loader = composed, loader
        self._top_groups = [group for group in loader.list_groups("") if group != "hydra"]
        chosen = [str(group) for group in composed.hydra.runtime.choices]
        self._groups = [group for group in {*chosen, *self._top_groups} if not group.startswith("hydra/")]

    def several_values(self, override: Override) -> Problem:
        """Several values outside a sweep: a list without brackets, or a sweep without -m."""
        key, _, values = str(override.input_line).partition("=")
        takes_list = isinstance(OmegaConf.select(self._composed, key), ListConfig) or self._takes_several(key)
        if takes_list and override.is_choice_sweep():
            return Problem(key, "got several values without brackets, expected a list", quoted(f"{key}=[{values}]"))
        if key.startswith(("hydra.", "hydra/")):
            first = next(iter(override.sweep_string_iterator()), "") if override.is_choice_sweep() else ""
            return Problem(key, f"got {values}, but this has one value in a sweep", first and f"{key}={first}")
        if self._composed.hydra.job.name != "run":
            return Problem(key, "got several values, expected one")
        return Problem(key, "got several values, which is a sweep", f"-m {quoted(str(override.input_line))}")

    def unknown_choice(self, override: Override, typed: Sequence[str]) -> Problem:
        """A choice of a group that has no such file.

        Args:
            override: The override.
            typed: All of the command.
        """
        group, given, several = override.key_or_group, choices(override), isinstance(override.value(), list)
        known, chosen = self._loader.get_group_options(group), self._composed.hydra.runtime.choices.get(group)
        if given == [None] and chosen is None:
            return Problem(group, "got null, which stands for no choice in a list of defaults only", f"~{group}")
        wrong = [shown(choice) for choice in given if choice not in known]
        what = "; ".join(f"there is no {choice}; {suggest(choice, known)}" for choice in wrong)
        meant: Any = [best for choice in given if (best := closest(str(choice), known))]
        if meant and not several:
            swept = next((text for text in typed if re.fullmatch(rf"{re.escape(group)}=[\w,]+,\w+", text)), "")
            values = swept.partition("=")[2].split(",") if swept else given  # of a sweep, the other values stay
            mended = dict.fromkeys(value if value in known else closest(str(value), known) or value for value in values)
            return Problem(group, what, quoted(f"{group}={','.join(map(str, mended))}"))
        if not several and str(given[0]).lower() in ("none", "false", "off") and self._takes_several(group):
            return Problem(group, what, f"{group}=[]")
        meant = meant if several else chosen
        return Problem(group, what, assign(group, meant) if meant else "")

    def misfit(self, override: Override, error: Exception) -> Problem:
        """An override that Hydra cannot use: its key does not exist, or cannot be given this value."""
        where, key, given = override.get_key_element(), override.key_or_group, _value_of(override)
        parent, section, name = self._first_unknown(key)
        if override.is_add() and override.package is None and isinstance(error, HydraException):
            return Problem(where, "is there already; it is changed without the +", quoted(f"{key}={given}"))
        if is_group(self._loader, key):
            return Problem(str(override.input_line), first_lines(error))
        if name and isinstance(section, DictConfig):
            return self._unknown_key(override, parent, section, name)
        if name:
            what, remedy = ("null", quoted(f"{parent}={{{name}: {given}}}")) if section is None else ("a value", "")
            return Problem(where, f"{parent} is {what}, it has no keys of its own", remedy)
        if key in FOLDERS and not override.is_delete():
            return no_folder(key, given, self._composed)
        return Problem(where, first_lines(error))

    def _unknown_key(self, override: Override, parent: str, section: DictConfig, name: str) -> Problem:
        where, key, given = override.get_key_element(), override.key_or_group, _value_of(override)
        chosen = self._composed.hydra.runtime.choices
        if parent == "callbacks" and name in self._loader.get_group_options(parent):
            remedy = f"{assign(parent, [*(chosen.get(parent) or []), name])} {quoted(f'{key}={given}')}"
            return Problem(where, f"{name} is not chosen", remedy)
        known = {str(beside) for beside in (chosen if "/" in key else section)}
        if not parent and "/" not in key and name not in self._top_groups:
            known |= {*self._top_groups}
        known = {beside for beside in known if beside.split("/")[0] != "hydra"}
        hint, remedy = suggest(name, known), ""
        if not override.is_delete():
            value = override.value()
            elsewhere = self._elsewhere(key, value, given) or self._of_a_sweep(key, value, given)
            hint, remedy = elsewhere or self._meant(key, known, value, given)
            if remedy == quoted(str(override.input_line)):
                hint, remedy = "", ""
        return Problem(where, f"there is no such key; {hint}", remedy)

    def _meant(self, key: str, known: Collection[str], value: Any, typed: str) -> tuple[str, str]:
        """Say what was probably meant, and give the override that sets it.

        Args:
            key: What was typed; it does not exist.
            known: The keys beside it.
            value: What it was set to.
            typed: The same as text.

        Returns:
            A hint, and a remedy, which is empty where nothing fits.
        """
        wrong = key if "/" in key else self._first_unknown(key)[2] or key
        near = [key.replace(wrong, best, 1)] if (best := closest(wrong, known)) else []
        if key.startswith("hydra."):  # what is beside it, and nothing else, is about the sweep
            remedies = [self._remedy(path, value, typed) for path in near]
            return suggest(wrong, known), next(iter(remedies), "")
        tail, by_tail = key.rpartition(".")[2], dict[str, list[str]]()
        for path in self._paths():
            by_tail.setdefault(path.rpartition(".")[2], []).append(path)
        for paths in (near or by_tail.get(tail, []), by_tail.get(closest(tail, by_tail) or "", [])):
            fitting = [(path, remedy) for path in paths if (remedy := self._remedy(path, value, typed))]
            if len(fitting) > 1:
                return f"did you mean {' or '.join(path for path, _ in fitting)}?", ""
            if fitting:
                [(path, remedy)] = fitting
                return f"did you mean '{best if paths == near else path}'?", remedy
        return suggest("", known), ""

    def _elsewhere(self, key: str, value: Any, typed: str) -> tuple[str, str] | None:
        """Say which other files of its group have the key: only ``model=mlp`` has `layer_sizes`, for one.

        Returns:
            A hint, and a remedy, which is empty where several files have the key; None where no file has it.
        """
        parent, _, name = key.rpartition(".")
        group = parent.replace(".", "/")
        is_known = group in self._groups or (group.startswith("hydra/") and is_group(self._loader, group))
        if not is_known or OmegaConf.select(self._composed, parent) is None:  # presets have no section
            return None
        having = {}
        for option in self._loader.get_group_options(group):
            file = f"{group}/{option}"
            with suppress(Exception):  # of a broken file, which is refused where it is chosen
                found = next(each for each in self._loader.get_sources() if each.is_config(file)).load_config(file)
                if found.header["package"] in (None, parent) and name in found.config:
                    having[option] = found.config
        if not having:
            return None
        hint = f"it is a key of {' and of '.join(assign(group, option) for option in having)}"
        [choice, config], *others = having.items()
        remedy = "" if others else self._set(key, _value(config, name), value, typed)
        return hint, remedy and f"{assign(group, choice)} {remedy}"

    def _of_a_sweep(self, key: str, value: Any, typed: str) -> tuple[str, str] | None:
        """Say where a key belongs that is about sweeps, as `workers` is: in a section of Hydra's."""
        if self._composed.hydra.job.name != "run":
            return None
        for path in (f"hydra.sweeper.{key}", f"hydra.launcher.{key}"):
            if key in (OmegaConf.select(self._composed, path.rpartition(".")[0]) or ()):
                return f"did you mean '{path}'?", self._set(path, _value(self._composed, path), value, typed)
        return self._elsewhere(f"hydra.sweeper.{key}", value, typed)

    def _takes_several(self, group: str) -> bool:
        """Whether a group's files can be chosen together, as callbacks can. Hydra lists only groups with a choice."""
        chosen = self._composed.hydra.runtime.choices.get(group, [])
        return isinstance(chosen, list | ListConfig) and isinstance(OmegaConf.select(self._composed, group), DictConfig)

    def _first_unknown(self, key: str) -> tuple[str, Any, str]:
        """The part of a key that does not exist: the key before it, what that one holds, and its name, or empty."""
        parts = key.split(".")
        for depth, name in enumerate(parts):
            section = OmegaConf.select(self._composed, parent := ".".join(parts[:depth]))
            if not isinstance(section, DictConfig) or name not in section:
                return parent, section, name
        return key, None, ""

    def _paths(self) -> Iterator[str]:
        """All dotted keys but Hydra's, and the groups in groups: ``optimizer/schedule``."""
        sections: list[tuple[str, Any]] = [("", self._composed)]
        while sections:
            parent, section = sections.pop(0)
            for name in map(str, section) if isinstance(section, DictConfig) else ():
                if (path := f"{parent}.{name}" if parent else name) == "hydra":
                    continue
                yield path
                if not OmegaConf.is_missing(section, name) and not OmegaConf.is_interpolation(section, name):
                    sections.append((path, section[name]))

    def _remedy(self, path: str, value: Any, typed: str) -> str:
        group = path.replace(".", "/")
        if group in self._groups and not isinstance(value, dict):
            options = self._loader.get_group_options(group)
            choice = value if value in options or isinstance(value, list) else closest(str(value), options)
            return assign(group, choice) if choice else ""
        if path in self._loader.get_group_options(""):
            return ""
        return self._set(path, _value(self._composed, path), value, typed)

    def _set(self, path: str, default: Any, value: Any, typed: str) -> str:
        """The override that sets a key, as it was typed; empty if the key's default shows that it cannot be."""
        if path == "runs" and value in CHOICES_OF_A_RUN:  # it takes ids only
            return "runs=[]"
        if isinstance(default, ListConfig) and isinstance(value, int | float | str):
            return quoted(f"{path}=[{typed}]")
        if isinstance(default, DictConfig | bool):
            fits = isinstance(value, dict if isinstance(default, DictConfig) else bool)
        else:
            fits = not isinstance(default, int | float) or not isinstance(value, bool | str)
        return quoted(f"{path}={typed}") if fits else ""


def _value_of(override: Override) -> str:
    """What was typed behind the key."""
    return str(override.input_line).partition("=")[2]


def _value(config: Container, path: str) -> Any:
    try:
        return OmegaConf.select(config, path)
    except Exception:  # a reference to a key that does not exist
        return None

"""The key that was probably meant by one that does not exist: a near miss, or one that lies elsewhere."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from hydra.core.object_type import ObjectType
from omegaconf import DictConfig, ListConfig, OmegaConf

from experiments.config.problems import assign, closest, quoted, suggest
from experiments.config.schema import CHOICES_OF_A_RUN


def groups_of(repository: Any) -> list[str]:
    """The groups of files at the top level, also those of which nothing is chosen; Hydra's own is none."""
    return [str(group) for group in repository.get_group_options("", ObjectType.GROUP) if group != "hydra"]


class Keys:
    """The keys of a config, and the groups of files that can be chosen.

    Args:
        composed: The config.
        repository: Hydra's, of the config files.
    """

    def __init__(self, composed: DictConfig, repository: Any) -> None:
        self._composed, self._repository = composed, repository
        chosen = [str(group) for group in composed.hydra.runtime.choices]
        self._groups = [group for group in {*chosen, *groups_of(repository)} if not group.startswith("hydra/")]

    def meant(self, key: str, known: list[str], value: Any, typed: str) -> tuple[str, str]:
        """Say what was probably meant, and give the override that sets it.

        Args:
            key: What was typed; it does not exist.
            known: The keys beside it.
            value: What it was set to.
            typed: The same as text.

        Returns:
            A hint, and a remedy, which is empty where nothing fits.
        """
        wrong = self._first_unknown(key)
        near = [key.replace(wrong, best, 1)] if (best := closest(wrong, known)) else []
        tail = key.rpartition(".")[2]
        exact = [path for path in self._paths() if path.rpartition(".")[2] == tail]
        fitting = [(path, remedy) for path in near or exact if (remedy := self._remedy(path, value, typed))]
        if not fitting and (similar := closest(tail, {path.rpartition(".")[2] for path in self._paths()})):
            paths = [path for path in self._paths() if path.rpartition(".")[2] == similar]
            fitting = [(path, remedy) for path in paths if (remedy := self._remedy(path, value, typed))]
        if not fitting:
            return suggest("", known), ""
        if len(fitting) > 1:
            return f"did you mean {' or '.join(path for path, _ in fitting)}?", ""
        path, remedy = fitting[0]
        return f"did you mean '{best if near and path == near[0] else path}'?", remedy

    def elsewhere(self, key: str, value: Any, typed: str) -> tuple[str, str] | None:
        """The same for a key that other files of its group have, as `layer_sizes` is one of ``model=mlp`` only.

        Returns:
            A hint, and a remedy, which is empty where several files have the key; None where no file has it.
        """
        parent, _, name = key.rpartition(".")
        group = parent.replace(".", "/")
        if group not in self._groups or OmegaConf.select(self._composed, parent) is None:  # presets have no section
            return None
        having = {}
        for option in self._repository.get_group_options(group):
            with suppress(Exception):  # of a broken file, which is refused where it is chosen
                found = self._repository.load_config(f"{group}/{option}")
                if found is not None and found.header["package"] in (None, parent) and name in found.config:
                    having[option] = found.config
        if not having:
            return None
        hint = f"it is a key of {' and of '.join(assign(group, option) for option in having)}"
        [choice, config], *others = having.items()
        remedy = "" if others else self._set(key, _value(config, name), value, typed)
        return hint, remedy and f"{assign(group, choice)} {remedy}"

    def _first_unknown(self, key: str) -> str:
        """The part of a key that does not exist, such as ``optimzer`` of ``optimzer.name``."""
        if "/" in key:
            return key
        section = self._composed
        for part in key.split("."):
            if not isinstance(section, DictConfig) or part not in section:
                return part
            section = section[part]
        return key

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
            options = self._repository.get_group_options(group)
            choice = value if value in options or isinstance(value, list) else closest(str(value), options)
            return assign(group, choice) if choice else ""
        if path in self._repository.get_group_options(""):
            return ""
        return self._set(path, _value(self._composed, path), value, typed)

    def _set(self, path: str, default: Any, value: Any, typed: str) -> str:
        """The override that sets a key, as it was typed; empty if the key cannot be given such a value."""
        if not self._takes(default, value):
            return ""
        if path == "runs" and value in CHOICES_OF_A_RUN:  # it takes ids only
            return "runs=[]"
        if isinstance(default, ListConfig) and isinstance(value, int | float | str):
            return quoted(f"{path}=[{typed}]")
        return quoted(f"{path}={typed}")

    def _takes(self, default: Any, value: Any) -> bool:
        """Whether a key may be given such a value, as far as its default shows."""
        if isinstance(default, DictConfig):
            return isinstance(value, dict)
        if isinstance(default, bool):
            return isinstance(value, bool)
        if isinstance(default, int | float):
            return not isinstance(value, bool | str)
        return True


def _value(config: DictConfig, path: str) -> Any:
    try:
        return OmegaConf.select(config, path)
    except Exception:  # a reference to a key that does not exist
        return None

"""The key that was probably meant by one that does not exist: a near miss, or one that lies elsewhere."""

from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from experiments.config.problems import assign, closest, quoted, suggest


class Keys:
    """The keys of a config, and the groups of files that can be chosen.

    Args:
        composed: The config.
        repository: Hydra's, of the config files.
    """

    def __init__(self, composed: DictConfig, repository: Any) -> None:
        self._composed, self._repository = composed, repository
        self._groups = [str(group) for group in composed.hydra.runtime.choices if not str(group).startswith("hydra/")]

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
        """All dotted keys below the top level, and the groups in groups: ``optimizer/schedule``."""
        sections: list[tuple[str, Any]] = [(str(key), self._composed[key]) for key in self._composed if key != "hydra"]
        while sections:
            parent, section = sections.pop(0)
            for name in map(str, section) if isinstance(section, DictConfig) else ():
                yield f"{parent}.{name}"
                if not OmegaConf.is_missing(section, name) and not OmegaConf.is_interpolation(section, name):
                    sections.append((f"{parent}.{name}", section[name]))

    def _remedy(self, path: str, value: Any, typed: str) -> str:
        group = path.replace(".", "/")
        if group in self._groups and not isinstance(value, dict):
            options = self._repository.get_group_options(group)
            choice = value if value in options or isinstance(value, list) else closest(str(value), options)
            return assign(group, choice) if choice else ""
        try:
            default = OmegaConf.select(self._composed, path)
        except Exception:  # a reference to a key that does not exist
            default = None
        if path in self._repository.get_group_options("") or not self._takes(default, value):
            return ""
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

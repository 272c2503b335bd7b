"""Composes the configs of a sweep's jobs, and says what is wrong with those that cannot be composed."""

import pickle
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

from experiments.config import Problem, Refused
from experiments.config.composition import compose_usable, note_overrides, set_value, unusable
from experiments.config.keys import is_group


class Composer:
    """Composes the configs of a sweep's jobs as Hydra does, in a tenth of the time.

    Hydra reads and merges all files anew for each job. Here it does so once for each choice of groups; the values of
    keys are set on a copy.
    """

    def __init__(self, loader: ConfigLoader, master: DictConfig) -> None:
        _ = master.hydra.sweep.dir  # resolves ${now:...} once, for all jobs
        self._loader, self._master = loader, master
        self._parser = OverridesParser.create(loader)
        self._parsed: dict[str, tuple[Override, bool]] = {}
        self._bases: dict[tuple[str, ...], bytes] = {}
        self._explained: dict[str, list[Problem]] = {}

    def compose(self, overrides: Sequence[str]) -> DictConfig:
        """Compose one job's config.

        Raises:
            Refused: Hydra cannot.
        """
        try:
            return self._compose(overrides)
        except Exception as error:  # whatever Hydra and OmegaConf raise: files may be nested too deeply, …
            raise Refused(self._problems(error, overrides)) from error

    def _problems(self, error: Exception, overrides: Sequence[str]) -> list[Problem]:
        """All that is wrong with overrides, each with what was probably meant. They come from a file: no remedies."""
        if str(error) not in self._explained:
            name = self._master.hydra.job.config_name
            with suppress(Exception):
                _, found = compose_usable(overrides, name, self._loader, sweep=False)
                self._explained[str(error)] = [replace(problem, remedy="") for problem in found]
        return self._explained.get(str(error)) or [unusable(error, " ".join(overrides))]

    def _compose(self, overrides: Sequence[str]) -> DictConfig:
        for text in set(overrides) - self._parsed.keys():
            override = self._parser.parse_override(text)
            self._parsed[text] = override, is_group(self._loader, override.key_or_group)
        groups = tuple(text for text in overrides if self._parsed[text][1])
        if groups not in self._bases:
            self._bases[groups] = pickle.dumps(self._loader.load_sweep_config(self._master, list(groups)))
        config: DictConfig = pickle.loads(self._bases[groups])  # noqa: S301 - it is ours; five times faster than a copy
        for override, chooses in map(self._parsed.__getitem__, overrides):
            if not chooses:
                set_value(config, override)
        note_overrides(config, overrides)
        return config

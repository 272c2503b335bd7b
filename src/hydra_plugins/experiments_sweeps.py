"""Where Hydra looks for plugins. It imports this at every start, so the work is in `experiments.sweeps`."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.core.object_type import ObjectType
from hydra.core.utils import JobReturn
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.plugins.launcher import Launcher
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class ProposerSweeper(Sweeper):
    """Runs the jobs of a proposer, with any launcher. See ``conf/hydra/sweeper/``.

    Args:
        keys: Those of ``hydra.sweeper``. The whole config, which is checked, has them, too.
    """

    def __init__(self, **keys: Any) -> None:
        """Make one; `setup` reads the keys."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        from hydra.core.plugins import Plugins

        from experiments.sweeps import parts

        ours = config.hydra.launcher._target_.endswith(f".{ExecutorLauncher.__name__}")
        self.proposer = parts.load(config, "sweeper", *["launcher"] * ours)["sweeper"]
        self.context, self.master = hydra_context, config
        self._launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        from experiments.sweeps.sweep import sweep

        return sweep(self, arguments, self._launcher)


class ExecutorLauncher(Launcher):
    """Runs jobs with an executor. See ``conf/hydra/launcher/``.

    Args:
        keys: Those of ``hydra.launcher``. The whole config, which is checked, has them, too.
    """

    def __init__(self, **keys: Any) -> None:
        """Make one; `setup` reads the keys."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        from experiments.sweeps import parts

        module, self.settings = parts.load(config, "launcher")["launcher"]
        self.hydra_context, self.task_function, self.master = hydra_context, task_function, config
        self.executor = module.executor(self.settings, self)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from experiments.sweeps.sweep import launch

        return launch(self, job_overrides, initial_job_idx)


class CheckedSource(ConfigSource):
    """A folder of config files, each of which is checked before Hydra reads it."""

    @staticmethod
    def scheme() -> str:
        return "checked"

    def load_config(self, config_path: str) -> ConfigResult:
        from experiments.config.files import load

        config, header = load(self._file(config_path), self._get_header_dict)
        return ConfigResult(self.provider, self.full_path(), config, header)

    def is_group(self, config_path: str) -> bool:
        return os.path.isdir(Path(self.path, config_path))

    def is_config(self, config_path: str) -> bool:
        return os.path.isfile(self._file(config_path))

    def available(self) -> bool:
        return self.is_group("")

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        found: list[str] = []
        for file in Path(self.path, config_path).iterdir():
            self._list_add_result(found, str(Path(config_path, file.name)), file.name, results_filter)
        return sorted(found)

    def _file(self, config_path: str) -> Path:
        return Path(self.path, self._normalize_file_name(config_path))


class OwnFolders(SearchPathPlugin):
    """Looks for config files in the user's folders before ours; Hydra's ``--config-dir`` would do so after."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        files = sys.modules.get("experiments.config.files")  # another program's Hydra asks, too
        for folder in files.own_folders if files else ():
            search_path.prepend("command-line", f"checked://{folder}", SearchPathQuery("main"))

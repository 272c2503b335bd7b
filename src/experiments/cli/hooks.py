"""Hydra's callbacks by which a command is refused before Hydra writes anything."""

import functools
import os
import re
from typing import Any, cast

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from experiments.cli import exit as ending
from experiments.cli.checks import (
    check_run,
    group_defaults,
    loader,
    make_folder,
    output_problems,
    password_problems,
)
from experiments.cli.exit import exit_status
from experiments.config import Problem, Refused
from experiments.config.overrides import compose_usable


class CheckCommand(Callback):
    """Hydra's callback that refuses a command that trains nothing before Hydra writes anything."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Leave with exit status 2 if Hydra would write files or make a folder."""
        ending.composed = True
        with exit_status(kwargs["config_name"]):
            what, problems = f"got {{}}, but {config.hydra.job.name} writes no files of Hydra's", list[Problem]()
            if (folder := config.hydra.run.dir) and not os.path.isdir(folder):
                problems.append(Problem("hydra.run.dir", what.format(folder), "hydra.run.dir=."))
            if (folder := config.hydra.output_subdir) is not None:
                problems.append(Problem("hydra.output_subdir", what.format(folder), "hydra.output_subdir=null"))
            if problems:
                raise Refused(problems)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Leave with exit status 2: there is nothing to sweep."""
        ending.composed = True
        with exit_status(kwargs["config_name"]):
            raise Refused(Problem("-m", f"{config.hydra.job.name} has no sweeps; leave -m out"))


class CheckBeforeRun(CheckCommand):
    """The same for `experiments.run`: refuses a run before Hydra makes its output folder."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Leave with exit status 2 if the run cannot start."""
        ending.composed = True
        name = kwargs["config_name"]
        with exit_status(name):
            check_run(config, functools.partial(group_defaults, config, name, loader()))
            make_folder(str(config.hydra.run.dir), "hydra.run.dir")

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Leave with exit status 2 if an override of the sweep cannot be used."""
        ending.composed = True
        name, sweeper = kwargs["config_name"], config.hydra.sweeper
        with exit_status(name):
            overrides = OmegaConf.to_container(config.hydra.overrides.task)  # to iterate would resolve ${...} in them
            _, problems = compose_usable(cast(list[str], overrides), name, loader(), sweep=True)
            params = OmegaConf.select(config, "hydra.sweeper.params")
            if isinstance(params, DictConfig) and any("trust" in re.findall(r"\w+", str(key)) for key in params):
                what = "packages are trusted on the command line only"
                problems.append(Problem("hydra.sweeper.params.trust", what, "trust=[mypackage]"))
            problems += output_problems(config)
            if not sweeper._target_.endswith(".ProposerSweeper"):
                problems += password_problems(config, "hydra/sweeper", "")
            if problems:
                raise Refused(problems)
            make_folder(str(config.hydra.sweep.dir), "hydra.sweep.dir")

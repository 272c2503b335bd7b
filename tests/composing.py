"""Configs for tests, composed in a fraction of Hydra's time; tests/sweeps/test_jobs.py compares the two."""

from functools import cache

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode

from experiments.cli.checks import CONF
from experiments.config import Config, check
from experiments.sweeps.composer import Composer


@cache
def composer() -> Composer:
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        return Composer(loader, loader.load_configuration("config", [], RunMode.RUN))


@cache
def config(*overrides: str) -> Config:
    """A checked config."""
    return check(composer().compose(overrides), Config)

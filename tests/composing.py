"""Configs for tests, composed in a fraction of Hydra's time; tests/sweeps/test_jobs.py compares the two."""

from functools import cache

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.types import RunMode

from experiments.cli.checks import CONF
from experiments.config import Config, check
from experiments.sweeps.jobs import Composer


@cache
def composer() -> Composer:
    loader = ConfigLoaderImpl(create_config_search_path(str(CONF)))
    return Composer(loader, loader.load_configuration("config", [], RunMode.RUN))


@cache
def config(*overrides: str) -> Config:
    """A checked config."""
    return check(composer().compose(overrides), Config)

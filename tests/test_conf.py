"""Every file in conf/: found, composed as its head says, and checked."""

import re
import shlex
from collections import Counter
from pathlib import Path

import hydra
import pytest
from omegaconf import DictConfig, OmegaConf

from experiments.cli.checks import CONF, check_run
from experiments.config import CompareConfig, PredictConfig, PromoteConfig, ReproduceConfig, SyncConfig, check

FILES = sorted(CONF.rglob("*.y*ml"))
# How many files there are at least, so that a search that misses some is noticed.
LISTING = {
    ".": 6,
    "callbacks": 6,
    "data": 8,
    "experiment": 4,
    "hydra/help": 1,
    "hydra/launcher": 2,
    "hydra/sweeper": 1,
    "loss": 19,
    "model": 4,
    "optimizer": 14,
    "optimizer/schedule": 7,
    "task": 2,
    "tracking": 3,
}


@pytest.fixture(autouse=True)
def _somewhere_with_data(hydra_here: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("mnist", "fashion_mnist", "cifar10", "cifar100", "my"):
        (tmp_path / f"{name}.npz").touch()
    monkeypatch.setenv("EXPERIMENTS_DATA_DIR", str(tmp_path))
    (tmp_path / "mypackage.py").touch()
    monkeypatch.syspath_prepend(tmp_path)


def head(file: Path) -> list[str]:
    """The comment that a file starts with, without Hydra's own line."""
    lines = file.read_text().splitlines()
    count = next(index for index, line in enumerate(lines) if not line.startswith("#"))
    return [line.removeprefix("# ") for line in lines[:count] if not line.startswith("# @package")]


def words(text: str) -> list[str]:
    """The overrides and keys of a line: ``optimizer.learning_rate, loss=hinge, or a file of your own``."""
    stripped = [word.rstrip(",") for word in shlex.split(text)]
    return [word for word in stripped if re.fullmatch(r"[a-z_.0-9/]+=.+|[a-z_]+(\.[a-z_0-9]+)+", word)]


def composed(file: Path, overrides: list[str]) -> DictConfig:
    name = file.stem if file.parent == CONF else "config"
    return hydra.compose(name, overrides, return_hydra_config=True)


COMMANDS = {
    "predict": PredictConfig,
    "compare": CompareConfig,
    "reproduce": ReproduceConfig,
    "promote": PromoteConfig,
    "sync": SyncConfig,
}


def checked(config: DictConfig) -> None:
    if (name := config.hydra.job.name) in COMMANDS:
        check(config, COMMANDS[name])
    else:
        check_run(config)


def test_every_file_is_found() -> None:
    found = Counter(file.parent.relative_to(CONF).as_posix() for file in FILES)
    assert {folder for folder, count in LISTING.items() if found[folder] < count} == set()
    assert all(file.suffix == ".yaml" for file in FILES), "Hydra reads only .yaml"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(CONF).as_posix())
def test_a_file_says_how_it_is_used_and_that_works(file: Path) -> None:
    first, *more = head(file)
    assert re.fullmatch(r"[A-Z0-9].+[.]", first), "a head starts with a sentence"
    [usage] = [line for line in more if line.startswith(("Choose: ", "Run: "))]
    choose, _, tune = usage.partition("Tune: ")
    name = file.stem if file.stem in COMMANDS else "run"
    command = rf"Run: python -m experiments\.{name}( |$)" if file.parent in (CONF, CONF / "experiment") else "Choose: "
    assert re.match(command, choose)
    chosen = words(re.sub(command, "", choose))
    if file.parent != CONF:
        group = file.parent.relative_to(CONF).as_posix()
        assert f"{group}={file.stem}" in chosen
    plain = composed(file, chosen)
    checked(plain)
    if tuned := words(tune):
        checked(composed(file, chosen + [word for word in tuned if "=" in word]))
    for key in (word for word in tuned if "=" not in word):
        parent, _, last = key.rpartition(".")
        assert last in OmegaConf.select(plain, parent), f"{key} is not there to be tuned"


def test_the_choices_of_the_notebook_are_the_defaults() -> None:
    config = composed(CONF / "config.yaml", [])
    chosen = {group: choice for group, choice in config.hydra.runtime.choices.items() if "hydra" not in group}
    assert chosen == {
        "data": "mnist",
        "task": "classification",
        "model": "mlp",
        "optimizer": "rmsprop",
        "optimizer/schedule": "constant",
        "loss": "sparse_categorical_crossentropy",
        "tracking": "mlflow",
        "experiment": None,
        "search": None,
    }
    assert (config.epochs, config.batch_size, config.model.layer_sizes) == (5, 128, [512])


def test_the_reference_preset_is_what_no_argument_at_all_does() -> None:
    config = check_run(composed(CONF / "config.yaml", []))
    assert check_run(composed(CONF / "config.yaml", ["experiment=reference"])) == config

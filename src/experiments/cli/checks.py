"""What can be known before a command starts: its config, the places of data and records, its output folders."""

import functools
import os
import re
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, cast

from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from experiments.config import Config, Problem, Refused, check
from experiments.config.callback_checks import RESERVED
from experiments.config.checks import distrusted
from experiments.config.composition import compose_usable, unusable
from experiments.config.fingerprint import without_packages
from experiments.config.keys import FOLDERS, no_folder
from experiments.config.problems import NAME_LENGTH, assign, shown
from experiments.config.schema import Section
from experiments.tracking import store

PACKAGE = Path(__file__).resolve().parents[1]
CONF = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parents[1] / "conf"  # a wheel, or a checkout
_made: list[Path] = []  # folders made for the output, the innermost first


class Checked(NamedTuple):
    """A command that can start: its composed config, whether it is a sweep, and the checked config if it is none."""

    composed: DictConfig
    sweep: bool
    config: Section | None


def check_arguments(arguments: Namespace, command: str, schema: type[Section]) -> Checked:
    """Compose the config of a command, and check all that can be known before it starts.

    Args:
        arguments: What was typed, see `arguments.read`.
        command: The name of its config.
        schema: What that has to fit.

    Raises:
        Refused: With all problems.
    """
    name, sweep = arguments.config_name or command, arguments.multirun
    composed, problems = compose_usable(arguments.overrides, name, loader(), sweep)
    if not sweep and (sweep := composed.hydra.mode == RunMode.MULTIRUN):  # as a preset says
        composed, problems = compose_usable(arguments.overrides, name, loader(), sweep)
    checked, known = None, {problem.where.partition("=")[0].lstrip("+") for problem in problems}
    try:
        if not arguments.informs:
            checked = _check_start(composed, schema, sweep, command)
    except Refused as refused:
        problems += [problem for problem in refused.problems if problem.where not in known]
    except (HydraException, OmegaConfBaseException) as error:  # a reference of Hydra's own part
        problems += [] if problems else [unusable(error)]
    if problems:
        raise Refused(list(dict.fromkeys(problems)))
    return Checked(composed, sweep, checked)


def _check_start(composed: DictConfig, schema: type[Section], sweep: bool, command: str) -> Section | None:
    if schema is Config and not sweep:
        if OmegaConf.select(composed, "hydra.sweeper.dry_run"):
            raise Refused(Problem("hydra.sweeper.dry_run", "is for sweeps: a single run would train; add -m"))
        return check_run(composed, functools.partial(group_defaults, composed))
    if sweep and schema is Config:
        problems = _sweep_problems(composed)
    else:
        problems = [Problem("-m", f"{command} has no sweeps; leave -m out")] if sweep else _written_files(composed)
    if problems:
        raise Refused(problems)
    if sweep:
        return None
    _make_readable(composed)
    checked = check(composed, schema, functools.partial(group_defaults, composed))
    if problems := distrusted(getattr(checked, "trust", ()), _typed()):
        raise Refused(problems)
    return checked


def _make_readable(composed: DictConfig) -> None:
    """Make ${hydra:runtime.output_dir} and the like readable, as Hydra does when a job starts."""
    with read_write(composed.hydra.runtime), open_dict(composed.hydra.runtime):
        composed.hydra.runtime.output_dir = os.path.abspath(str(composed.hydra.run.dir))
    HydraConfig.instance().set_config(composed)


def _written_files(config: DictConfig) -> list[Problem]:
    """The settings by which Hydra would write files, or make a folder, for a command that trains nothing."""
    what, problems = f"got {{}}, but {config.hydra.job.name} writes no files of Hydra's", list[Problem]()
    if (folder := config.hydra.run.dir) and not os.path.isdir(folder):
        problems.append(Problem("hydra.run.dir", what.format(folder), "hydra.run.dir=."))
    if (folder := config.hydra.output_subdir) is not None:
        problems.append(Problem("hydra.output_subdir", what.format(folder), "hydra.output_subdir=null"))
    return problems


def _sweep_problems(config: DictConfig) -> list[Problem]:
    problems, params = output_problems(config), OmegaConf.select(config, "hydra.sweeper.params")
    grids = params if isinstance(params, ListConfig) else [params]
    keys = [str(key) for grid in grids if isinstance(grid, DictConfig) for key in grid]
    if any("trust" in re.findall(r"\w+", key) for key in keys):
        what = "packages are trusted on the command line only"
        problems.append(Problem("hydra.sweeper.params.trust", what, "trust=[mypackage]"))
    if not config.hydra.sweeper._target_.endswith(".ProposerSweeper"):
        problems += password_problems(config, "hydra/sweeper", "")
    return problems


def check_run(config: DictConfig, defaults: Callable[[], DictConfig] | None = None) -> Config:
    """Check all that can be checked before TensorFlow is imported: the config, the data's place, the store.

    Raises:
        Refused: With all problems, in the order of the config's keys.
    """
    if "hydra" in config:
        _make_readable(config)
        if problems := [*_names_of_choices(config), *output_problems(config)]:
            raise Refused(problems)
    checked = check(config, Config, defaults)
    check_places(checked)
    return checked


def _names_of_choices(config: DictConfig) -> Iterator[Problem]:
    """Find overrides such as ``optimizer.name=adam`` that keep the other keys of the file that is chosen."""
    chosen = dict(choices(config))
    for text in cast(list[str], OmegaConf.to_container(config.hydra.overrides.task)):
        key, _, name = text.lstrip("+").partition("=")
        group = key.removesuffix(".name").replace(".", "/")
        if not key.endswith(".name") or chosen.get(group, name) == name or chosen[group] == "npz":  # has any name
            continue
        if name in loader().get_group_options(group):
            what = f"got {name}, but the other keys are those of {assign(group, chosen[group])}"
            yield Problem(key, what, assign(group, name))


def choices(config: DictConfig) -> list[tuple[str, str]]:
    """The groups of a composed config with the names of their files, but for Hydra's own groups."""
    chosen = config.hydra.runtime.choices.items()
    return [(str(group), str(name)) for group, name in chosen if name and not str(group).startswith("hydra/")]


def check_places(config: Config) -> None:
    """Check that the trusted packages are installed and were named on the command line, and find data and store.

    Raises:
        Refused: If not.
    """
    from experiments.data import sources  # only now: NumPy takes half as long to import as Hydra

    found = [*distrusted(config.trust, _typed()), *without_packages(config.trust)]
    try:
        sources.locate(config.data)
    except Refused as refused:
        found += refused.problems
    found += store.problems(config.tracking)
    if found:
        raise Refused(found)


def _typed() -> list[str] | None:
    """The overrides of the command line, see `TYPED_ONLY`; None where a config did not come from one."""
    if not HydraConfig.initialized():
        return None
    return cast(list[str], OmegaConf.to_container(HydraConfig.get().overrides.task))  # unresolved, as they were typed


def output_problems(config: DictConfig) -> list[Problem]:
    """List what is wrong with the folders that all output, and within a run's one Hydra's own files, would go into."""
    parts = {key: cast(Any, OmegaConf.to_container(config.hydra[key.split(".")[1]])) for key in FOLDERS}  # unresolved
    problems = [no_folder(key, "''", config) for key, part in parts.items() if part["dir"] == ""]
    if config.hydra.job.chdir:
        what = (
            "got true, but commands stay in the folder that they are started in, where mlruns/ and data are looked for"
        )
        problems.append(Problem("hydra.job.chdir", what, "hydra.job.chdir=false"))
    if (given := config.hydra.output_subdir) is None:
        return problems
    key, path = "hydra.output_subdir", PurePosixPath(given)
    if path.name in ("", "..", *RESERVED) or len(path.parts) > 1 or len(os.fsencode(path.name)) > NAME_LENGTH:
        what = f"got {given}, expected the name of a folder in the run's output folder that the run itself does not use"
        return [*problems, Problem(key, what, f"{key}=.hydra")]
    return problems + password_problems(config, key, f"{key}=null")


def password_problems(config: DictConfig, key: str, remedy: str) -> list[Problem]:
    """Refuse a setting by which Hydra would write the config with the password of an address into a file."""
    text = OmegaConf.to_yaml(config)
    if store.redact(text) == text:
        return []
    what = "would have Hydra write the password of an address into a file; set $MLFLOW_TRACKING_URI instead"
    return [Problem(key, what, remedy)]


def make_folder(config: DictConfig, sweep: bool) -> list[str]:
    """Make the folder that all output of a command goes into.

    Returns:
        A list with the override that fixes the folder's name, if that contains the time; else an empty list.

    Raises:
        Refused: It cannot be made, written, or named to Hydra.
    """
    key = "hydra.sweep.dir" if sweep else "hydra.run.dir"
    written = cast(Any, OmegaConf.to_container(config.hydra["sweep" if sweep else "run"]))["dir"]
    try:
        folder = Path(str(OmegaConf.select(config, key))).absolute()
        if "${" in f"{folder} {Path.cwd()}":
            raise ValueError("Hydra takes ${ in the name of a folder for a reference to a key")
        _made[:] = [place for place in (folder, *folder.parents) if not os.path.lexists(place)]
        folder.mkdir(parents=True, exist_ok=True)
        trouble = "" if os.access(folder, os.W_OK | os.X_OK) else "Permission denied"
    except (OSError, ValueError) as error:
        trouble = getattr(error, "strerror", "") or str(error)
    if trouble:
        raise Refused(Problem(key, f"{folder} cannot be written ({trouble}), and all output goes there"))
    return [f"{key}={shown(str(folder))}"] if "${now:" in written else []


def remove_empty_folders() -> None:
    """Remove those of the folders made for output that nothing was put into."""
    for folder in _made:
        with suppress(OSError):  # it holds something
            folder.rmdir()


def loader() -> ConfigLoader:
    """Hydra's loader of the command that is starting."""
    return GlobalHydra.instance().config_loader()


def group_defaults(config: DictConfig) -> DictConfig:
    """The same config groups with none of the user's values: where remedies come from."""
    return _composed(loader(), config.hydra.job.config_name, *(f"{group}={name}" for group, name in choices(config)))


@functools.cache  # the jobs of a sweep may have many problems
def _composed(config_loader: ConfigLoader, config_name: str, *overrides: str) -> DictConfig:
    return config_loader.load_configuration(config_name, list(overrides), RunMode.RUN)

"""What all commands share: Hydra's start, refusals, signals and the exit status."""

import functools
import logging
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn, TypeVar, cast

import hydra
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from experiments.config import Config, Problem, Refused, RunFailed, check
from experiments.config.fingerprint import without_packages
from experiments.config.overrides import COMPOSITION_ERRORS, compose_usable, first_lines
from experiments.config.schema import Section
from experiments.tracking import store

HERE = Path(__file__).resolve().parent
CONF = HERE / "conf" if (HERE / "conf").is_dir() else HERE.parents[1] / "conf"  # a wheel, or a checkout
DONE, FAILED, REFUSED, INTERRUPTED = 0, 1, 2, 130
S = TypeVar("S", bound=Section)


def command(
    config_name: str, ahead: Callable[[Sequence[str]], None] | None = None
) -> Callable[[Callable[[DictConfig], Any]], Callable[[], NoReturn]]:
    """Make a function of a composed config a command, with the exit statuses that the README promises.

    Args:
        config_name: Of the command.
        ahead: Is called with the arguments before Hydra looks at them.
    """

    def decorate(task: Callable[[DictConfig], Any]) -> Callable[[], NoReturn]:
        @functools.wraps(task)
        def guarded(config: DictConfig) -> Any:
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                os.chdir(HydraConfig.get().runtime.cwd)  # a worker on another machine may stand elsewhere
                return task(config)  # the sweep goes on, whatever this run raises
            with exit_status(config_name), _no_folder_of_nothing():
                return task(config)

        @functools.wraps(task)
        def main() -> NoReturn:
            os.environ["HYDRA_FULL_ERROR"] = "1"  # have Hydra raise what it would print
            warnings.filterwarnings("error", "Callback ")  # where Hydra would go on after an error of a callback
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            # Hydra copies its store of built-in configs at each look into a group, 92 times for --help, only to read.
            ConfigStore.__deepcopy__ = lambda store, memo: store  # type: ignore[attr-defined]
            try:
                with exit_status(config_name):
                    if ahead:
                        ahead(sys.argv[1:])
                    hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(guarded)()
            except SystemExit as leaving:
                _leave(int(leaving.code or DONE))
            except BaseException:  # a mistake of ours, or of a package's: what Python would do, but leave at once
                traceback.print_exc()
                _leave(FAILED)
            _leave(DONE)

        return main

    return decorate


@contextmanager
def _no_folder_of_nothing() -> Iterator[None]:
    """Remove the folder that Hydra made for the output of a run, if the run is refused."""
    try:
        yield
    except Refused:
        folder = Path(HydraConfig.get().runtime.output_dir)
        with suppress(OSError):  # it holds something
            if not folder.samefile(Path.cwd()):
                folder.rmdir()
        raise


@contextmanager
def exit_status(config_name: str) -> Iterator[None]:
    """Turn what a command raises into a message on stderr and an exit status."""
    try:
        yield
    except Refused as refused:
        _stop(str(refused), REFUSED)
    except RunFailed as failed:
        _stop(f"error: {failed}", FAILED)
    except (*COMPOSITION_ERRORS, ValueError) as error:
        if HydraConfig.initialized() and not isinstance(error, COMPOSITION_ERRORS):
            raise  # the config was composed: this one is not about the input
        _stop("\n".join(map(str, explain(error, config_name, sys.argv[1:]))), REFUSED)
    except KeyboardInterrupt:
        _stop("interrupted", INTERRUPTED)
    except BrokenPipeError:
        _stop("error: broken pipe: nobody reads the output any more", FAILED)


def _stop(message: str, status: int) -> NoReturn:
    _flush()
    print(store.redact(message), file=sys.stderr)
    sys.exit(status)


def _leave(status: int) -> NoReturn:
    """End the process without taking TensorFlow apart, which takes a second or more."""
    logging.shutdown()
    if status == REFUSED and (process := sys.modules.get("experiments.tracking.process")):
        process.stop_idle()
    if server := sys.modules.get("experiments.sweeps.server"):
        server.stop()
    _flush()
    sys.stderr.flush()
    if {"joblib", "ray"} & set(sys.modules) and "tensorflow" not in sys.modules:
        sys.exit(status)  # their workers end when Python takes its leave
    os._exit(status)


def _flush() -> None:
    with suppress(BrokenPipeError):  # nobody reads any more, as after `--help | head -1`
        sys.stdout.flush()


def check_run(config: DictConfig, defaults: Callable[[], DictConfig] | None = None) -> Config:
    """Check all that can be checked before TensorFlow is imported: the config, the data's place, the store.

    Raises:
        Refused: With all problems, in the order of the config's keys.
    """
    if "hydra" in config:  # make ${hydra:runtime.output_dir} and the like readable, as Hydra does when the job starts
        with read_write(config.hydra.runtime), open_dict(config.hydra.runtime):
            config.hydra.runtime.output_dir = "OUTPUT"
        HydraConfig.instance().set_config(config)
    checked = check(config, Config, defaults)
    check_places(checked)
    return checked


def check_places(config: Config) -> None:
    """Check that the trusted packages are installed, the data is to be had and the store answers.

    Raises:
        Refused: If not.
    """
    from experiments.data import sources  # only now: NumPy takes half as long to import as Hydra

    found = [*without_packages(config.trust), *store.problems(config.tracking)]
    try:
        sources.locate(config.data)
    except Refused as refused:
        found = [*refused.problems, *found]
    if found:
        raise Refused(found)


def check_command(config: DictConfig, schema: type[S]) -> S:
    """Check the config of a command that trains nothing.

    Raises:
        Refused: With all problems; the remedies are the command's defaults.
    """
    if not HydraConfig.initialized():
        return check(config, schema)
    name = HydraConfig.get().job.config_name
    return check(config, schema, lambda: _loader().load_configuration(name, [], RunMode.RUN))


class CheckBeforeRun(Callback):
    """Hydra's callback that refuses a command before Hydra makes its output folder."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Leave with exit status 2 if the run cannot start."""
        name = kwargs["config_name"]
        with exit_status(name):
            check_run(config, functools.partial(group_defaults, config, name, _loader()))

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Leave with exit status 2 if an override of the sweep cannot be used."""
        name = kwargs["config_name"]
        server = sys.modules.get("experiments.sweeps.server")
        if server and not config.hydra.launcher._target_.endswith(".PoolLauncher"):
            server.stop()  # it was expected that it would be needed
        with exit_status(name):
            overrides = OmegaConf.to_container(config.hydra.overrides.task)  # to iterate would resolve ${...} in them
            _, problems = compose_usable(cast(list[str], overrides), name, _loader(), sweep=True)
            if problems:
                raise Refused(problems)


def _loader() -> ConfigLoaderImpl:
    return cast(ConfigLoaderImpl, GlobalHydra.instance().config_loader())


def group_defaults(config: DictConfig, config_name: str, loader: ConfigLoaderImpl) -> DictConfig:
    """The same config groups with none of the user's values: where remedies come from."""
    choices = config.hydra.runtime.choices.items()
    groups = [f"{group}={choice}" for group, choice in choices if choice and not group.startswith("hydra/")]
    return loader.load_configuration(config_name, groups, RunMode.RUN)


def explain(error: Exception, config_name: str, argv: list[str]) -> list[Problem]:
    """Find all problems of a command that Hydra could not compose a config for; it stops at the first one."""
    arguments, _ = get_args_parser().parse_known_args(argv)
    config_name, folder = arguments.config_name or config_name, arguments.config_dir
    search_path = create_config_search_path(str(CONF))
    if folder:
        if not Path(folder).is_dir():
            return [Problem("--config-dir", f"there is no folder {folder}")]
        search_path.prepend("command-line", f"file://{Path(folder).absolute()}", SearchPathQuery("schema"))
    loader = ConfigLoaderImpl(search_path)
    problems: list[Problem] = []
    try:
        composed, problems = compose_usable(arguments.overrides, config_name, loader, arguments.multirun)
        if not arguments.multirun and "check" in (composed.hydra.callbacks or {}):
            check_run(composed, functools.partial(group_defaults, composed, config_name, loader))
    except Refused as refused:
        problems += refused.problems
    except COMPOSITION_ERRORS as other:
        error = other
    return problems or [Problem(getattr(error, "full_key", "") or "command", first_lines(error))]

"""What all commands share: Hydra's start, refusals, signals and the exit status."""

import functools
import io
import logging
import os
import re
import signal
import sys
import traceback
import warnings
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, NoReturn, TypeVar, cast

import hydra
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from experiments import streams
from experiments.config import Config, Problem, Refused, RunFailed, check
from experiments.config.callback_checks import RESERVED
from experiments.config.checks import distrusted
from experiments.config.files import BrokenFile, lacks_defaults, own_folders
from experiments.config.fingerprint import without_packages
from experiments.config.overrides import (
    COMPOSITION_ERRORS,
    FOLDERS,
    compose_usable,
    ids_as_text,
    nested_too_deeply,
    no_folder,
    without_plus,
)
from experiments.config.problems import NAME_LENGTH, assign, first_lines, quoted, shown
from experiments.config.schema import Section
from experiments.tracking import store
from hydra_plugins.experiments_sweeps import CheckedSource

HERE = Path(__file__).resolve().parent
CONF = HERE / "conf" if (HERE / "conf").is_dir() else HERE.parents[1] / "conf"  # a wheel, or a checkout
DONE, FAILED, REFUSED, INTERRUPTED = 0, 1, 2, 130
ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)  # the last one: the terminal was closed
# Ahead of all overrides: Hydra adds what is typed to these lists, which config files could have filled.
TYPED_ONLY = ("hydra.overrides.hydra=[]", "hydra.overrides.task=[]")
S = TypeVar("S", bound=Section)


_made: list[Path] = []  # folders made for the output, the innermost first


class Ended(SystemExit):
    """A command ended, with its exit status, and has said what there is to say."""


def command(config_name: str, positional: str = "") -> Callable[[Callable[[DictConfig], Any]], Callable[[], NoReturn]]:
    """Make a function of a composed config a command, with the exit statuses that the README promises.

    Args:
        config_name: Of the command.
        positional: The key, a list, that words without a key are values of; empty: there is none.
    """

    def decorate(task: Callable[[DictConfig], Any]) -> Callable[[], NoReturn]:
        @functools.wraps(task)
        def guarded(config: DictConfig) -> Any:
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                os.chdir(HydraConfig.get().runtime.cwd)  # a worker on another machine may stand elsewhere
                return task(config)  # the sweep goes on, whatever this run raises
            with exit_status(config_name):
                return task(config)

        @functools.wraps(task)
        def main() -> NoReturn:
            try:
                with exit_status(config_name):
                    _prepare()
                    sys.argv[1:] = _with_key(sys.argv[1:], positional)
                    arguments = _arguments(sys.argv[1:])
                    # Hydra wants all overrides in one place.
                    options = [word for word in sys.argv[1:] if word not in arguments.overrides]
                    overrides = [ids_as_text(without_plus(word)) for word in arguments.overrides]
                    sys.argv[1:] = [*options, *TYPED_ONLY, *overrides]
                    own_folders[:] = _config_folders(arguments, config_name)
                    if any(map(nested_too_deeply, arguments.overrides)):
                        raise Refused(explain(RecursionError(), config_name, sys.argv[1:]))
                    with _shown_safely(arguments):
                        hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(guarded)()
            except Ended as ended:
                _leave(int(ended.code or DONE))
            except SystemExit as leaving:  # Hydra or argparse did not understand the arguments
                _leave(REFUSED if leaving.code else DONE)
            except BaseException:  # a mistake of ours, or of a package's: what Python would do, but leave at once
                traceback.print_exc()
                _leave(FAILED)
            _leave(DONE)

        return main

    return decorate


def _prepare() -> None:
    """Set the process up: signals, standard streams, warnings, and Hydra's ways."""
    for number in ENDING:
        if signal.getsignal(number) != signal.SIG_IGN:  # as for a command in the background of a script, or with nohup
            signal.signal(number, _interrupt)
    streams.secure()
    for name in ("COLUMNS", "LINES"):
        if not re.fullmatch("[1-9][0-9]{1,3}", os.environ.get(name, "80")):
            del os.environ[name]  # not known, or nothing that can be used
    os.environ["HYDRA_FULL_ERROR"] = "1"  # have Hydra raise what it would print
    # Warnings of other packages are not the user's to mend, and must not end a run where PYTHONWARNINGS=error is set.
    os.environ.pop("PYTHONWARNINGS", None)
    sys.warnoptions[:] = ["default"] if sys.flags.dev_mode else []  # the standard library expects that one
    warnings.resetwarnings()
    for ignored in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
        warnings.simplefilter("ignore", ignored)
    warnings.filterwarnings("error", "Callback ")  # where Hydra would go on after an error of a callback
    # Hydra copies its store of built-in configs at each look into a group, 92 times for --help, only to read.
    ConfigStore.__deepcopy__ = lambda store, memo: store  # type: ignore[attr-defined]


def _interrupt(*_: object) -> NoReturn:
    """End the command in order, once: more signals would only interrupt that."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


@contextmanager
def _shown_safely(arguments: Namespace) -> Iterator[None]:
    """Show ``--help``, ``--cfg`` and the like without passwords, and on a terminal with lines broken between words."""
    if not any((arguments.help, arguments.hydra_help, arguments.cfg, arguments.info)):
        yield
        return
    text = io.StringIO()
    try:
        with redirect_stdout(text):
            yield
    finally:
        safe = store.redact(text.getvalue())
        print(streams.wrapped(safe, sys.stdout) if arguments.help else safe, end="")


def _arguments(argv: Sequence[str]) -> Namespace:
    """Read the arguments as Hydra does, but for ``--config-dir``, which may come several times."""
    parser = ArgumentParser(parents=[get_args_parser()], conflict_handler="resolve", add_help=False)
    parser.add_argument("--config-dir", "-cd", action="append", default=[])
    arguments, unknown = parser.parse_known_intermixed_args(list(argv))
    following = dict(zip(argv, [*argv[1:], ""], strict=False))
    arguments.unknown = [(word, following[word]) for word in unknown if word.startswith("-")]
    return arguments


def _with_key(argv: Sequence[str], key: str) -> list[str]:
    """Put words without a key into the list that they are values of."""
    words = [word for word in argv if key and word[:1] not in ("-", "") and "=" not in word]
    return [word for word in argv if word not in words] + ([f"{key}={shown(words)}"] if words else [])


def _config_folders(arguments: Namespace, config_name: str) -> list[str]:
    """The user's config folders, whose files count before ours; of several, the last counts first.

    Raises:
        Refused: One cannot be used, or an option is one that no command has.
    """
    folders = [Path(folder).absolute() for folder in arguments.config_dir]
    problems = [
        Problem("--config-dir", f"there is no folder {typed}")
        for typed, folder in zip(arguments.config_dir, folders, strict=True)
        if not os.path.isdir(folder)
    ]
    if arguments.experimental_rerun is not None:
        what = "is not supported, as it would run code from that file"
        problems.append(Problem("--experimental-rerun", f"{what}; python -m experiments.reproduce repeats a run"))
    for option, following in arguments.unknown:
        key, equals, value = option.lstrip("-").partition("=")
        typed = value if equals else following
        remedy = quoted(f"{key}={typed}") if option.startswith("--") and typed and "=" not in typed else ""
        problems.append(Problem(option, "there is no such option; settings are written KEY=VALUE", remedy))
    if arguments.config_path is not None:
        what = "is not supported; --config-dir adds a folder of your own to those of the project"
        problems.append(Problem("--config-path", what))
    if any(word.lstrip("+~").startswith("hydra.searchpath") for word in arguments.overrides):
        problems.append(
            Problem("hydra.searchpath", "is not supported; --config-dir adds a folder, several times if need be")
        )
    if arguments.config_name is None:
        found = [folder for folder in folders if os.path.isdir(folder)]
        problems += [problem for folder in found for problem in lacks_defaults(folder, config_name)]
    if problems:
        raise Refused(problems)
    return [str(folder) for folder in reversed(folders)]


@contextmanager
def exit_status(config_name: str) -> Iterator[None]:
    """Turn what a command raises into a message on stderr and an exit status."""
    try:
        yield
    except Refused as refused:
        _remove_empty_folders()
        _stop(str(refused), REFUSED)
    except RunFailed as failed:
        _stop(f"error: {failed}", FAILED)
    except KeyboardInterrupt:
        _remove_empty_folders()
        _stop("interrupted", INTERRUPTED)
    except Exception as error:
        if _followed_an_interrupt(error):
            _stop("interrupted", INTERRUPTED)
        if problem := store.damage(error):
            _stop(str(Refused(problem)), REFUSED)
        if CheckCommand.composed and not isinstance(error, COMPOSITION_ERRORS):
            raise  # this one is not about the input
        _stop(str(Refused(explain(error, config_name, sys.argv[1:]))), REFUSED)


def _followed_an_interrupt(error: BaseException | None) -> bool:
    """Whether an error came of cleaning up after Ctrl-C, as argparse raises one where it is not ready for that yet."""
    while error and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


def _stop(message: str, status: int) -> NoReturn:
    _flush()
    print(streams.wrapped(store.redact(message), sys.stderr), file=sys.stderr)
    raise Ended(status)


def _leave(status: int) -> NoReturn:
    """End the process without taking TensorFlow apart, which takes a second or more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # impatience does not make it faster
    if (lost := _flush()) and not lost.broken_pipe and status == DONE:
        print(f"error: {lost}", file=sys.stderr)
        status = FAILED
    logging.shutdown()
    if server := sys.modules.get("experiments.sweeps.server"):
        server.stop()
    sys.stderr.flush()
    if {"hydra_plugins.hydra_joblib_launcher._core", "ray"} & set(sys.modules) and "tensorflow" not in sys.modules:
        sys.exit(status)  # their workers end when Python takes its leave
    os._exit(status)


def _flush() -> streams.OutputLost | None:
    try:
        sys.stdout.flush()
    except streams.OutputLost as lost:  # the pipe may just be no longer read, as after `--help | head -1`
        return lost
    return None


def check_run(config: DictConfig, defaults: Callable[[], DictConfig] | None = None) -> Config:
    """Check all that can be checked before TensorFlow is imported: the config, the data's place, the store.

    Raises:
        Refused: With all problems, in the order of the config's keys.
    """
    if "hydra" in config:  # make ${hydra:runtime.output_dir} and the like readable, as Hydra does when the job starts
        with read_write(config.hydra.runtime), open_dict(config.hydra.runtime):
            config.hydra.runtime.output_dir = "OUTPUT"
        HydraConfig.instance().set_config(config)
        misspelt = [(group, name) for group, name in choices(config) if name.endswith(".yaml")]
        what = "got {}, expected a choice without .yaml"
        problems = [Problem(group, what.format(name), assign(group, name[:-5])) for group, name in misspelt]
        problems += [*_names_of_choices(config), *output_problems(config)]
        if problems:
            raise Refused(problems)
    checked = check(config, Config, defaults)
    check_places(checked)
    return checked


def _names_of_choices(config: DictConfig) -> Iterator[Problem]:
    """Find names such as ``optimizer.name=adam``, which leave the other keys as those of the file that is chosen."""
    chosen = dict(choices(config))
    for text in cast(list[str], OmegaConf.to_container(config.hydra.overrides.task)):
        key, _, name = text.lstrip("+").partition("=")
        group = key.removesuffix(".name").replace(".", "/")
        if not key.endswith(".name") or chosen.get(group, name) == name or chosen[group] == "npz":  # has any name
            continue
        if name in _loader().repository.get_group_options(group):
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


def check_command(config: DictConfig, schema: type[S]) -> S:
    """Check the config of a command that trains nothing.

    Raises:
        Refused: With all problems; the remedies are the command's defaults.
    """
    if not HydraConfig.initialized():
        return check(config, schema)
    name = HydraConfig.get().job.config_name
    checked = check(config, schema, lambda: _loader().load_configuration(name, [], RunMode.RUN))
    if problems := distrusted(getattr(checked, "trust", ()), _typed()):
        raise Refused(problems)
    return checked


class CheckCommand(Callback):
    """Hydra's callback that refuses a command that trains nothing before Hydra writes anything."""

    composed: ClassVar[bool] = False  # there is a config: what goes wrong from now on is not about its composition

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Leave with exit status 2 if Hydra would write files or make a folder."""
        CheckCommand.composed = True
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
        CheckCommand.composed = True
        with exit_status(kwargs["config_name"]):
            raise Refused(Problem("-m", f"{config.hydra.job.name} has no sweeps; leave -m out"))


class CheckBeforeRun(CheckCommand):
    """The same for `experiments.run`: refuses a run before Hydra makes its output folder."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Leave with exit status 2 if the run cannot start."""
        CheckCommand.composed = True
        name = kwargs["config_name"]
        with exit_status(name):
            check_run(config, functools.partial(group_defaults, config, name, _loader()))
            _make_folder(str(config.hydra.run.dir), "hydra.run.dir")

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Leave with exit status 2 if an override of the sweep cannot be used."""
        CheckCommand.composed = True
        name, sweeper = kwargs["config_name"], config.hydra.sweeper
        with exit_status(name):
            overrides = OmegaConf.to_container(config.hydra.overrides.task)  # to iterate would resolve ${...} in them
            _, problems = compose_usable(cast(list[str], overrides), name, _loader(), sweep=True)
            params = OmegaConf.select(config, "hydra.sweeper.params")
            if isinstance(params, DictConfig) and any("trust" in re.findall(r"\w+", str(key)) for key in params):
                what = "packages are trusted on the command line only"
                problems.append(Problem("hydra.sweeper.params.trust", what, "trust=[mypackage]"))
            problems += output_problems(config)
            if not sweeper._target_.endswith(".GridSweeper"):
                problems += _password_problems(config, "hydra/sweeper", "")
            if problems:
                raise Refused(problems)
            _make_folder(str(config.hydra.sweep.dir), "hydra.sweep.dir")


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
    return problems + _password_problems(config, key, f"{key}=null")


def _password_problems(config: DictConfig, key: str, remedy: str) -> list[Problem]:
    text = OmegaConf.to_yaml(config)
    if store.redact(text) == text:
        return []
    what = "would have Hydra write the password of an address into a file; set $MLFLOW_TRACKING_URI instead"
    return [Problem(key, what, remedy)]


def _make_folder(path: str, key: str) -> None:
    """Make a folder for output.

    Raises:
        Refused: It cannot be made or written.
    """
    folder = Path(path).absolute()
    _made[:] = [place for place in (folder, *folder.parents) if not os.path.lexists(place)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        trouble = "" if os.access(folder, os.W_OK | os.X_OK) else "Permission denied"
    except (OSError, ValueError) as error:
        trouble = getattr(error, "strerror", "") or str(error)
    if trouble:
        raise Refused(Problem(key, f"{folder} cannot be written ({trouble}), and all output goes there"))


def _remove_empty_folders() -> None:
    """Remove those of the folders made for output that nothing was put into."""
    for folder in _made:
        with suppress(OSError):  # it holds something
            folder.rmdir()


def _loader() -> ConfigLoaderImpl:
    return cast(ConfigLoaderImpl, GlobalHydra.instance().config_loader())


def group_defaults(config: DictConfig, config_name: str, loader: ConfigLoaderImpl) -> DictConfig:
    """The same config groups with none of the user's values: where remedies come from."""
    groups = [f"{group}={name}" for group, name in choices(config)]
    return loader.load_configuration(config_name, groups, RunMode.RUN)


def explain(error: Exception, config_name: str, argv: Sequence[str]) -> list[Problem]:
    """Find all problems of a command that Hydra could not compose a config for; it stops at the first one."""
    try:
        arguments = _arguments(argv)
        config_name = arguments.config_name or config_name
        own_folders[:] = _config_folders(arguments, config_name)
    except Refused as refused:
        return refused.problems
    loader = ConfigLoaderImpl(create_config_search_path(str(CONF)))
    sources = loader.repository.sources
    for place, source in enumerate(sources):
        if source.scheme() == "file":
            sources[place] = CheckedSource(source.provider, f"checked://{source.path}")
    problems: list[Problem] = []
    try:
        composed, problems = compose_usable(arguments.overrides, config_name, loader, arguments.multirun)
        if not arguments.multirun and composed.hydra.callbacks.check._target_.endswith(".CheckBeforeRun"):
            check_run(composed, functools.partial(group_defaults, composed, config_name, loader))
    except Refused as refused:
        known = {problem.where.partition("=")[0].lstrip("+") for problem in problems}
        problems += [problem for problem in refused.problems if problem.where not in known]
    except Exception as other:
        error = other
    if problems:
        return list(dict.fromkeys(problems))
    if isinstance(error, BrokenFile):
        return [error.problem]
    return [Problem(getattr(error, "full_key", "") or "command", first_lines(error))]

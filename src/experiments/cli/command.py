"""Make a function of a config a command."""

import functools
import io
import os
import re
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from typing import Any, NoReturn

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from yaml import YAMLError

from experiments.cli import arguments as typed
from experiments.cli.checks import CONF, Checked, check_arguments, make_folder
from experiments.cli.exit import DONE, FAILED, REFUSED, Ended, exit_status, leave
from experiments.config import Config, Problem, Refused
from experiments.config.composition import unusable
from experiments.config.files import own_folders
from experiments.config.overrides import ids_as_text, without_plus
from experiments.config.schema import Section
from experiments.config.sweep_values import spaced
from experiments.system import streams
from experiments.tracking import store

ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)  # the last one: the terminal was closed
# Ahead of all overrides: Hydra adds what is typed to these lists, which config files could have filled.
TYPED_ONLY = ("hydra.overrides.hydra=[]", "hydra.overrides.task=[]")


def command(
    config_name: str, schema: type[Section], positional: str = ""
) -> Callable[[Callable[[Any], Any]], Callable[[], NoReturn]]:
    """Make a function of a checked config a command, with the exit statuses that the README promises.

    Args:
        config_name: Of the command.
        schema: What the config has to fit.
        positional: The key, a list, that words without a key are values of; empty: there is none.
    """

    def decorate(task: Callable[[Any], Any]) -> Callable[[], NoReturn]:
        @functools.wraps(task)
        def main() -> NoReturn:
            try:
                with exit_status():
                    _prepare()
                    _start(task, config_name, schema, typed.with_key(sys.argv[1:], positional))
            except Ended as ended:
                leave(int(ended.code or DONE))
            except SystemExit as leaving:  # Hydra or argparse did not understand the arguments
                leave(REFUSED if leaving.code else DONE)
            except BaseException:  # a mistake of ours, or of a package's: what Python would do, but leave at once
                traceback.print_exc()
                leave(FAILED)
            leave(DONE)

        return main

    return decorate


def _start(task: Callable[[Any], Any], config_name: str, schema: type[Section], words: list[str]) -> None:
    """Check a command, then have Hydra carry it out, or show what its options ask for."""
    arguments = typed.read(words)
    if arguments.shell_completion and "COMP_LINE" not in os.environ and "query=bash" in words:
        what = "query=bash is how the shell asks, which says in COMP_LINE what was typed; completion is turned on by"
        raise Refused(Problem("-sc", what, 'eval "$(experiments -sc install=bash)"'))
    options = [word for word in words if word not in arguments.overrides]
    arguments.overrides = [ids_as_text(without_plus(spaced(word, strict=False))) for word in arguments.overrides]
    own_folders[:] = typed.config_folders(arguments, config_name)
    with hydra.initialize_config_dir(str(CONF), "run" if schema is Config else config_name, "1.3"):
        if not arguments.shell_completion:
            checked = check_arguments(arguments, config_name, schema)
        if not arguments.informs:
            return _carry_out(task, arguments.config_name or config_name, checked, arguments.overrides)
    sys.argv[1:] = [*options, *arguments.overrides]  # Hydra wants all overrides in one place
    return _show(config_name, wrap=arguments.help)


def _carry_out(task: Callable[[Any], Any], config_name: str, checked: Checked, overrides: Sequence[str]) -> None:
    config = checked.config

    @functools.wraps(task)
    def guarded(composed: DictConfig) -> Any:
        if config is None:  # a job of a sweep, which goes on, whatever this run raises
            os.chdir(HydraConfig.get().runtime.cwd)  # a worker on another machine may stand elsewhere
            return task(composed)
        with exit_status():
            return task(config)

    mode = "hydra.mode=" + ("MULTIRUN" if checked.sweep else "RUN")
    folder = make_folder(checked.composed, checked.sweep) if isinstance(config, Config | None) else []
    started = GlobalHydra.instance().hydra
    assert started
    (started.multirun if checked.sweep else started.run)(config_name, guarded, [*TYPED_ONLY, *overrides, mode, *folder])


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


def _interrupt(*_: object) -> NoReturn:
    """End the command in order, once: more signals would only interrupt that."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _show(config_name: str, wrap: bool) -> None:
    """Have Hydra show help, a config and the like: without passwords, and `wrap` with lines broken between words."""
    text = io.StringIO()
    try:
        with redirect_stdout(text):
            hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(print)()
    except (ValueError, YAMLError) as error:  # options that exclude each other; what cannot be completed
        raise Refused(unusable(error)) from error
    finally:
        safe = store.redact(text.getvalue())
        print(streams.wrapped(safe, sys.stdout) if wrap else safe, end="")

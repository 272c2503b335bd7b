"""Make a function of a config a command."""

import functools
import io
import os
import re
import signal
import sys
import traceback
import warnings
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from experiments.cli import arguments as typed
from experiments.cli.checks import CONF
from experiments.cli.exit import DONE, FAILED, REFUSED, Ended, exit_status, explain, leave
from experiments.config import Refused
from experiments.config.files import own_folders
from experiments.config.overrides import ids_as_text, nested_too_deeply, without_plus
from experiments.system import streams
from experiments.tracking import store

ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)  # the last one: the terminal was closed
# Ahead of all overrides: Hydra adds what is typed to these lists, which config files could have filled.
TYPED_ONLY = ("hydra.overrides.hydra=[]", "hydra.overrides.task=[]")


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
                    sys.argv[1:] = typed.with_key(sys.argv[1:], positional)
                    arguments = typed.read(sys.argv[1:])
                    # Hydra wants all overrides in one place.
                    options = [word for word in sys.argv[1:] if word not in arguments.overrides]
                    overrides = [ids_as_text(without_plus(word)) for word in arguments.overrides]
                    sys.argv[1:] = [*options, *TYPED_ONLY, *overrides]
                    own_folders[:] = typed.config_folders(arguments, config_name)
                    if any(map(nested_too_deeply, arguments.overrides)):
                        raise Refused(explain(RecursionError(), config_name, sys.argv[1:]))
                    with _shown_safely(arguments):
                        hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(guarded)()
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

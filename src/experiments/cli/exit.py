"""What ends a command: every exception becomes a message on standard error and an exit status."""

import functools
import logging
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path

from experiments.cli import arguments as typed
from experiments.cli.checks import CONF, check_run, group_defaults, remove_empty_folders
from experiments.config import Problem, Refused, RunFailed
from experiments.config.files import BrokenFile, own_folders
from experiments.config.overrides import COMPOSITION_ERRORS, compose_usable
from experiments.config.problems import first_lines
from experiments.system import streams
from experiments.tracking import store
from hydra_plugins.experiments_sweeps import CheckedSource

composed = False  # there is a config: what goes wrong from now on is not about its composition
DONE, FAILED, REFUSED, INTERRUPTED = 0, 1, 2, 130


class Ended(SystemExit):
    """A command ended, with its exit status, and has said what there is to say."""


@contextmanager
def exit_status(config_name: str) -> Iterator[None]:
    """Turn what a command raises into a message on stderr and an exit status."""
    try:
        yield
    except Refused as refused:
        remove_empty_folders()
        _stop(str(refused), REFUSED)
    except RunFailed as failed:
        _stop(f"error: {failed}", FAILED)
    except KeyboardInterrupt:
        remove_empty_folders()
        _stop("interrupted", INTERRUPTED)
    except Exception as error:
        if _followed_an_interrupt(error):
            _stop("interrupted", INTERRUPTED)
        if problem := store.damage(error):
            _stop(str(Refused(problem)), REFUSED)
        if composed and not isinstance(error, COMPOSITION_ERRORS):
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


def leave(status: int) -> NoReturn:
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
        sys.exit(status)  # their workers are stopped by atexit handlers
    os._exit(status)


def _flush() -> streams.OutputLost | None:
    try:
        sys.stdout.flush()
    except streams.OutputLost as lost:  # the pipe may just be no longer read, as after `--help | head -1`
        return lost
    return None


def explain(error: Exception, config_name: str, argv: Sequence[str]) -> list[Problem]:
    """Find all problems of a command that Hydra could not compose a config for; it stops at the first one."""
    try:
        arguments = typed.read(argv)
        config_name = arguments.config_name or config_name
        own_folders[:] = typed.config_folders(arguments, config_name)
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

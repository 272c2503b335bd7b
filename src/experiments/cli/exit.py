"""What ends a command: every exception becomes a message on standard error and an exit status."""

import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from experiments.cli.checks import remove_empty_folders
from experiments.config import Refused, RunFailed
from experiments.config.composition import unusable
from experiments.system import streams
from experiments.tracking import store

DONE, FAILED, REFUSED, INTERRUPTED = 0, 1, 2, 130


class Ended(SystemExit):
    """A command ended, with its exit status, and has said what there is to say."""


@contextmanager
def exit_status() -> Iterator[None]:
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
        if not isinstance(error, HydraException | OmegaConfBaseException):
            raise  # this one is not about the input
        remove_empty_folders()
        _stop(str(Refused(unusable(error))), REFUSED)


def _followed_an_interrupt(error: BaseException | None) -> bool:
    """Whether an error was raised while Ctrl-C was being handled, as by an argparse that is only half set up."""
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

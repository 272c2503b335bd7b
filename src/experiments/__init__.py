"""Config-driven experiments: YAML in, a trained Keras model and its MLflow record out."""

import os
import signal
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from experiments.config import Refused, RunFailed
    from experiments.interface import RecordedRun, load, sweep, table, train

__version__ = "0.1.0"
__all__ = ["RecordedRun", "Refused", "RunFailed", "load", "sweep", "table", "train"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from experiments import interface  # now: commands are started by a part of it only

    return getattr(interface, name)


def _leave(*_: object) -> None:
    os.write(2, b"interrupted\n")
    os._exit(130)


# While Python looks for the module of ``python -m experiments.run``, sys.argv[0] is "-m"; else it is our script. Ctrl-C
# during the imports ends the command as it does later; `cli.command` takes over.
started_as = os.path.basename((sys.argv or [""])[0])
if started_as in ("-m", "experiments") and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _leave)

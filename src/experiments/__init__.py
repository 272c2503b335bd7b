"""Config-driven experiments: YAML in, a trained Keras model and its MLflow record out."""

import os
import signal
import sys

__version__ = "0.1.0"


def _leave(*_: object) -> None:
    os.write(2, b"interrupted\n")
    os._exit(130)


# While Python looks for the module of ``python -m experiments.run``, sys.argv[0] is "-m". Ctrl-C during its imports
# ends the command as it does later; `cli.command` takes over.
if sys.argv[:1] == ["-m"] and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _leave)

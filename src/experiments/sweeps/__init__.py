"""Many runs from one command: every combination checked, run side by side, and recorded beneath one parent."""

from collections.abc import Sequence
from contextlib import suppress


def expect(arguments: Sequence[str]) -> None:
    """Begin with what a sweep takes longest for, to import TensorFlow, while Hydra is still looking at the command.

    Args:
        arguments: Of the command line. Unless they are those of a plain sweep, nothing happens.
    """
    options = {item for item in arguments if item.startswith(("-", "hydra/launcher="))}
    if options and options <= {"-m", "--multirun"}:
        from experiments.config import RunFailed
        from experiments.sweeps import server

        with suppress(RunFailed):  # for which reason is told when the command was found to be right
            server.begin()

"""Start the default run for `make run`; on a machine without MNIST, on the digits that scikit-learn carries."""

import os
import sys

from experiments.config import Refused
from experiments.config.schema import Data
from experiments.data.sources import locate


def main() -> None:
    """Become the training command, with the arguments of `make run`: it then gets the signals, and gives the status."""
    overrides = sys.argv[1:]
    chosen = {item.lstrip("+").partition("=")[0] for item in overrides}
    if not chosen & {"data", "data.name", "data.path", "experiment"}:
        try:
            locate(Data(name="mnist", scale=255.0, path=None, validation_size=0, limit=None))
        except Refused as refused:
            print(f"{refused}\n\n*** MNIST is not available here: this quick start continues with data=digits ***\n")
            overrides.append("data=digits")
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "experiments.run", *overrides])  # noqa: S606


if __name__ == "__main__":
    main()

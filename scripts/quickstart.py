"""What `make run` starts: the default run; on a machine without MNIST, loudly, the digits that scikit-learn carries."""

import subprocess
import sys

from experiments.config import Refused
from experiments.config.schema import Data
from experiments.data.sources import locate


def main() -> int:
    """Train with the arguments of `make run`, and return the command's exit status."""
    overrides = sys.argv[1:]
    if not any(item.startswith(("data", "experiment")) for item in overrides):
        try:
            locate(Data(name="mnist", scale=255.0, path=None, validation_size=0, limit=None))
        except Refused as refused:
            print(
                f"{refused}\n\n*** MNIST is not to be had: this quick start goes on with data=digits ***\n", flush=True
            )
            overrides.append("data=digits")
    return subprocess.call([sys.executable, "-m", "experiments.run", *overrides])


if __name__ == "__main__":
    sys.exit(main())

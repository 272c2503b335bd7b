"""A file that one process at a time holds, for as long as it lives; however it ends, the next one can have it."""

import fcntl
import time
from pathlib import Path
from typing import IO

# How long to wait for what is left of a process before, in seconds: its record is being ended.
PATIENCE = 30.0


def take(file: Path, patience: float) -> IO[str] | None:
    """Lock a file until the result is closed, or this process ends; None if another one does not let go of it.

    Args:
        file: It is created.
        patience: How long to wait, in seconds.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    held = file.open("w")
    end = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return held
        except BlockingIOError:
            if time.monotonic() > end:
                held.close()
                return None
            time.sleep(0.1)

"""Files that one process at a time holds, for as long as it lives; however it ends, the next one can have them."""

import errno
import fcntl
import os
import sys
import time
from functools import cache
from pathlib import Path
from typing import IO

# How long to wait for what another process does in a moment, in seconds.
MOMENT = 1.0
UNSUPPORTED = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)


def take(file: Path, patience: float = MOMENT) -> IO[bytes] | None:
    """Lock a file until the result is closed, or this process ends; None if another one does not let go of it.

    What is in the file stays. On a file system without locks nothing is locked, and a line on stderr says so.

    Args:
        file: It is created where it is missing.
        patience: How long to wait, in seconds.
    """
    while True:
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            opened = file.open("a+b")
        except FileNotFoundError:  # another process has just removed the empty folder
            continue
        if not hold(opened, patience):
            opened.close()
            return None
        if _is_still(file, opened):
            return opened
        opened.close()  # the process that held it before has removed it


def _is_still(file: Path, opened: IO[bytes]) -> bool:
    try:
        return os.path.samestat(file.stat(), os.fstat(opened.fileno()))
    except OSError:
        return False


def hold(opened: IO[bytes] | int, patience: float = MOMENT) -> bool:
    """Lock an open file or folder, if no other process holds it, or lets go of it within `patience` seconds."""
    end = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= end:
                return False
            time.sleep(0.02)
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                raise
            _warn(error.strerror)
            return True


def is_held(file: Path) -> bool:
    """Whether another process holds a file; what looks at it meanwhile does not count."""
    if not file.is_file():  # a pipe would be waited for
        return False
    try:
        with file.open("rb") as opened:
            fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # it is gone, or cannot be locked
        return False
    return False


@cache
def _warn(why: str | None) -> None:
    what = "two equal commands at once would both run, and records may be delivered while they are written"
    print(f"this file system has no locks ({why}): {what}", file=sys.stderr)

"""Whether what a store did not do can be done later."""

import re
import sqlite3
import time
from collections.abc import Callable
from typing import Any, TypeVar

from experiments.tracking.store import reason, redact

T = TypeVar("T")
TRIES = 3  # of an event that is rejected: another writer may have been in the way; and of one that was not answered
PAUSE = 0.1  # seconds between two tries
QUICK_SECONDS = 1.0  # a call that failed later than that is not repeated at once, but for these reasons:
# a server closes connections that rest while pictures are drawn, and two writers may add the same row.
PASSES = re.compile("Connection aborted|UniqueViolation|UNIQUE constraint|Duplicate entry|[Dd]eadlock")
# Statuses by which a server, not an event, says that it cannot go on; beside those from 500 on.
NOT_NOW = (401, 403, 408, 429)
# How MLflow's client begins where what answered was no MLflow server: a proxy whose server is away, for one.
NOT_OF_MLFLOW = "API request to "
# What MLflow says of an error of its database.
OF_THE_DATABASE = "BAD_REQUEST"


class Unavailable(Exception):  # noqa: N818 - a state, not a mistake
    """The store can take nothing now; with what it said."""


class Deleted(Exception):  # noqa: N818 - a state, not a mistake
    """The run was deleted in the store; with its id."""


def asked(call: Callable[[], T]) -> T:
    """Call a function that asks the store; again, where it is rejected, or fails at once or for a reason that passes.

    Raises:
        Unavailable: It can take nothing now.
        Exception: It rejects what it is given.
    """
    for attempt in range(1, TRIES + 1):
        began = time.monotonic()
        try:
            return call()
        except (Unavailable, Deleted):
            raise
        except Exception as error:
            temporary, is_quick = is_temporary(error), time.monotonic() - began < QUICK_SECONDS
            if attempt == TRIES or (temporary and not is_quick and not PASSES.search(str(error))):
                if temporary:
                    raise Unavailable(redact(reason(error))) from error
                raise
        time.sleep(PAUSE)
    raise AssertionError


def is_temporary(error: Exception) -> bool:
    """Whether a store may do later what it has not done now: it is away, its disk is full, or it is locked."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    answer: Any = getattr(error, "response", None)  # of a server for artifacts
    if isinstance(error, MlflowException):
        if str(error).startswith(NOT_OF_MLFLOW):
            return True
        status = 500 if error.error_code == OF_THE_DATABASE else error.get_http_status_code()
    elif hasattr(answer, "status_code"):
        status = answer.status_code
    elif isinstance(error, FileNotFoundError):  # of the journal
        return False
    else:
        return isinstance(error, OSError | sqlite3.Error | SQLAlchemyError)
    return status >= 500 or status in NOT_NOW

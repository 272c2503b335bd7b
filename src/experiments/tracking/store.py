"""Where runs are recorded, and whether it can be reached. Quick: MLflow is not imported."""

import os
import re
import socket
import threading
import traceback
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from experiments.config import Problem, Refused
from experiments.config.schema import Tracking
from experiments.tracking import journal, sqlite
from experiments.tracking.sqlite import sqlite_file

FOLDER = Path("mlruns")
# Below it, a file for each journal that was not delivered whole: its name is the run's uuid, and it says where.
WAITING = "waiting"
# The start of an address, and the rest of it; also with a slash too few, or without a scheme.
ADDRESS = re.compile(r"(\b[\w+.-]{1,30}:/+|\w:/+|(?<![^\s'\"=(\[,])//+)(\S+)")
VERSIONED = re.compile(r"[\w-]+(\.[\w-]+)+(/[\w.~+-]+)+@[\w./~-]+(#[\w=&.-]+)?[\"',;)\]]*")
# An address whose parts are plain enough to be shown: scheme, user and password, hosts with ports, path, query.
READABLE = re.compile(
    r"[\w+.-]+://([^/@?#]*@)?([\w.-]*(:\d*)?|\[[\w.:%]+\](:\d*)?)(,[\w.-]+(:\d*)?)*(/[^;=@?#\s]*)?([?#].*)?"
)
QUERY = re.compile("[?#]")
SCHEMES = ("sqlite", "postgresql", "mysql", "mssql", "http", "https", "databricks", "uc")


def store_uri(config: Tracking) -> str:
    """``tracking.uri``, else ``$MLFLOW_TRACKING_URI``, else SQLite in ``mlruns/`` of the current folder."""
    return config.uri or os.environ.get("MLFLOW_TRACKING_URI") or sqlite.address(FOLDER.absolute() / "mlflow.db")


def store_name(uri: str) -> str:
    """What a store is called in journals: its address without passwords; ours moves with the folder around it."""
    return "mlruns/mlflow.db" if sqlite_file(uri) == FOLDER.absolute() / "mlflow.db" else _shown(uri)


def problems(config: Tracking) -> list[Problem]:
    """Say why nothing could be recorded, if so."""
    found = []
    if not sqlite.can_be_made(FOLDER.absolute()):
        found.append(
            Problem(str(FOLDER.absolute()), "cannot be written, and all output goes there; start in another folder")
        )
    if config.enabled and any("\ud800" <= letter <= "\udfff" for letter in str(FOLDER.absolute())):
        what = "has bytes in its name that are no UTF-8 text, beneath which nothing can be recorded"
        found.append(Problem(str(FOLDER.absolute()), f"{what}; start in another folder"))
    elif config.enabled and not config.offline:
        found += [replace(problem, remedy="tracking=offline") for problem in _store_problems(config, writing=True)]
    return found


def _store_problems(config: Tracking, writing: bool) -> list[Problem]:
    uri = store_uri(config)
    if not (reason := _unreachable(uri, writing)):
        return []
    from_environment = not config.uri and os.environ.get("MLFLOW_TRACKING_URI")
    where = "$MLFLOW_TRACKING_URI" if from_environment else "tracking.uri"
    return [Problem(where, f"{_shown(uri)} {redact(reason)}")]


def _shown(uri: str) -> str:
    """An address without its secrets; of what cannot be read as one, where any part may be a password, the scheme."""
    scheme = uri.partition(":")[0].partition("+")[0]
    is_address = scheme in SCHEMES and "://" in uri and not _unreadable(uri, scheme)
    if is_address or re.fullmatch(r"[\w./~-]+", uri):  # the latter is the name of a folder
        return redact(re.sub(r"\s", "%20", uri))  # the whole of it is an address
    return f"{scheme}:***" if scheme in (*SCHEMES, "file") else "***"


def existing(tracking: Tracking, key: str, writing: bool = False) -> str:
    """The address of a store that answers and that something was recorded in.

    Args:
        tracking: The store.
        key: Of the config, that names what is looked for in it.
        writing: Whether the store has to be writable.

    Raises:
        Refused: There is none.
    """
    uri = store_uri(tracking)
    if found := _store_problems(tracking, writing):  # MLflow itself would retry for minutes
        raise Refused(found)
    if (file := sqlite_file(uri)) and not sqlite.is_in_use(file):
        how = "train something first: python -m experiments.run"
        if next(FOLDER.rglob(journal.JOURNAL), None):
            again = "" if (FOLDER / WAITING).is_dir() else " all=true"
            how = f"send what was recorded here: python -m experiments.sync{again}"
        raise Refused(Problem(key, f"nothing is recorded in {file}; {how}"))
    return uri


def refuse_unusable(tracking: Tracking) -> None:
    """Refuse a store that cannot be written.

    Raises:
        Refused: With the reason.
    """
    if found := _store_problems(tracking, writing=True):
        raise Refused(found)


def damage(error: Exception) -> Problem | None:
    """What to say of an exception of MLflow, or of what it calls; None of any other one.

    A store may be damaged in any place, so that the exception may be of any class.
    """
    frames = traceback.walk_tb(error.__traceback__)
    modules = [type(error).__module__, *(str(frame.f_globals.get("__name__")) for frame, _ in frames)]
    if {"mlflow", "sqlalchemy"}.isdisjoint(module.partition(".")[0] for module in modules):
        return None
    return damaged(reason(error))


def damaged(why: str) -> Problem:
    """What to say of a store that cannot be used."""
    return Problem("tracking.uri", f"the records cannot be read or changed: {redact(why)}")


def reason(error: Exception, length: int = 300) -> str:
    """What MLflow or a database said, on one line of at most `length` characters, without the SQL statement."""
    return " ".join(str(error).partition("\n[SQL")[0].split())[:length] or type(error).__name__


def redact(text: str) -> str:
    """Take user names, passwords and queries out of the addresses in a text.

    A password may hold any character but a blank, so all up to the last @ is taken out. Only what is plainly the
    version of a package, as in ``https://host.org/name.git@v1``, stays.
    """
    return ADDRESS.sub(lambda found: found[1] + _without_secrets(found[1], found[2]), text)


def redact_all(value: Any) -> Any:
    """Redact every text in nested lists and dictionaries."""
    if isinstance(value, Mapping):
        return {key: redact_all(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redact_all(item) for item in value]
    return redact(value) if isinstance(value, str) else value


def _without_secrets(scheme: str, address: str) -> str:
    """Redact an address behind its scheme, which ends with slashes."""
    if scheme.startswith(("sqlite", "file")) and scheme.endswith("///"):  # a path: no user, no password
        address = redact(address)
    elif "@" in address and not VERSIONED.fullmatch(address):
        before, _, host = address.rpartition("@")
        address = f"***@{host}" if _without_query(before) == before else "***"  # the @ may be one of a query
    return _without_query(address)


def _without_query(address: str) -> str:
    """Redact what follows the first ? or # of an address, if it has values."""
    start = QUERY.search(address)
    return f"{address[: start.end()]}***" if start and "=" in address[start.end() :] else address


def _unreachable(uri: str, writing: bool) -> str | None:
    """Try the store, at most a few seconds; None if it answers."""
    scheme = uri.partition(":")[0].partition("+")[0]
    if scheme not in SCHEMES or ("://" not in uri and scheme != "databricks"):
        return (
            "is no tracking store; expected sqlite:///FILE, http://HOST:PORT or a database (a folder no longer is one)"
        )
    if reason := _unreadable(uri, scheme):
        return reason
    try:
        if (file := sqlite_file(uri)) is not None:
            return sqlite.trouble(file, writing)
        if scheme in ("http", "https"):
            _ask_server(uri, writing)
        elif scheme in ("postgresql", "mysql", "mssql"):
            import sqlalchemy

            engine = sqlalchemy.create_engine(uri)
            engine.connect().close()
            engine.dispose()  # or its pool keeps the connection
    except Exception as error:  # whatever the driver raises: the store cannot be used
        return f"cannot be reached ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
    return None


PATIENCE = 5.0  # seconds for the answer of a server


def _ask_server(uri: str, writing: bool) -> None:
    """Ask a server whether it is there. Whether it takes runs, MLflow asks later, which sends credentials.

    Raises:
        Exception: The host is not known, or nothing listens there; also, unless `writing`, as a run can be sent later:
            it gives no answer within `PATIENCE`, however many bytes it sends, or says that it cannot.
    """
    import urllib.error
    import urllib.request

    url = f"{re.sub(r'//[^/@]+@', '//', uri).rstrip('/')}/health"
    failed: list[Exception] = [TimeoutError(f"no whole answer within {PATIENCE:g} seconds")]

    def ask() -> None:
        try:
            urllib.request.urlopen(url, timeout=3).close()
            failed.clear()
        except urllib.error.HTTPError as error:  # it may want credentials, which MLflow sends
            failed[:] = [error] if error.code >= 500 else []
        except Exception as error:
            failed[:] = [error]

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(PATIENCE)
    for error in list(failed):
        if not writing or isinstance(getattr(error, "reason", error), ConnectionRefusedError | socket.gaierror):
            raise error


def _unreadable(uri: str, scheme: str) -> str | None:
    """Say why an address cannot be read as it was meant; libraries would show parts of the password in their errors."""
    if scheme == "sqlite":
        return None
    before, at, _ = uri.partition("://")[2].rpartition("@")
    if re.search(r"\s", uri) or (at and re.search("[/?#@]", before)):
        return "cannot be read: write blanks and / ? # @ of user name and password as %20 %2F %3F %23 %40"
    if "://" in uri and not READABLE.fullmatch(uri):
        return "cannot be read: expected SCHEME://USER:PASSWORD@HOST:PORT/NAME"
    if scheme in ("http", "https") and re.search("[?#]", uri):
        return "has a query, which MLflow does not send; a token goes into $MLFLOW_TRACKING_TOKEN"
    return None

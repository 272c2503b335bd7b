"""SQLite stores without MLflow: whether the installed version can use them, how they are shared, and read-only ones."""

import contextlib
import importlib.metadata
import importlib.util
import math
import os
import re
import shlex
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from urllib.parse import unquote

from experiments.tracking import lock

# What SQLite runs when tables are read or written. MLflow makes one trigger, on its table of secrets, and
# generated columns in its table of spans; neither table is used here.
PROGRAMS = (
    "SELECT 'the ' || type || ' ' || name FROM sqlite_master WHERE type = 'view' "
    "OR (type = 'trigger' AND tbl_name <> 'secrets') UNION ALL "
    "SELECT 'the generated column ' || tables.name || '.' || columns.name "
    "FROM sqlite_master AS tables, pragma_table_xinfo(tables.name) AS columns "
    "WHERE tables.type = 'table' AND tables.name <> 'spans' AND columns.hidden IN (2, 3) ORDER BY 1"
)
LONGEST = 1_000_000  # bytes of a value that is read here; those are names and ids


def address(file: Path) -> str:
    """The address of a SQLite file.

    SQLAlchemy reads ? and % in it, and MLflow makes a folder of their quoted form: a relative address avoids both.
    """
    if re.search("[?%]", str(file)) and file.is_relative_to(Path.cwd()):
        file = file.relative_to(Path.cwd())
    return f"sqlite:///{str(file).replace('%', '%25').replace('?', '%3F')}"


def sqlite_file(uri: str) -> Path | None:
    """The file of a SQLite store; None for other stores. As SQLAlchemy reads it: without a query, and unquoted."""
    return Path(unquote(uri.partition(":///")[2].partition("?")[0])).absolute() if uri.startswith("sqlite") else None


def trouble(file: Path, writing: bool = True) -> str | None:
    """Say why a store cannot be used; None if it can, or can be created.

    Args:
        file: Of the store.
        writing: Whether it has to be writable.
    """
    if file.name in ("", ":memory:") or file.is_dir():
        return "names no file, and a store in memory would be lost; expected sqlite:///FILE"
    if (held := lock_file(file)).exists() and not held.is_file():
        return f"cannot be used: {held} is no file, but a folder, a pipe or a device"
    if not file.exists():
        return None if not writing or can_be_made(file.parent) else "cannot be created: its folder cannot be written"
    if not file.is_file():
        return "is no ordinary file"
    if not os.access(file, os.R_OK) or (writing and is_read_only(file)):
        return f"cannot be {'written' if writing else 'read'}"
    return _unusable(file)


def _unusable(file: Path) -> str | None:
    try:
        return mismatch(file)
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return None  # another process writes; MLflow waits for longer than this look
        if code not in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_ERROR):
            return f"cannot be used now ({error}): is there space left, and may it be read and written?"
        return f"is not a usable SQLite file ({error}); move it away to start a new one"


def can_be_made(folder: Path) -> bool:
    """Whether a folder can be written, or made."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    return existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)


def is_in_use(file: Path) -> bool:
    """Whether a store has tables; MLflow would make them, even if it only reads."""
    try:
        return bool(tables(file))
    except sqlite3.Error:  # it is busy
        return True


def tables(file: Path) -> set[str]:
    """The names of the tables of a SQLite file; none, if it is not there.

    Raises:
        sqlite3.Error: It is busy, damaged, or not a SQLite file.
    """
    if not (file.exists() and file.stat().st_size):
        return set()
    with contextlib.closing(_open(file)) as connection:
        return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def mismatch(file: Path) -> str | None:
    """Say why MLflow could not use a store; None if it can, or if the store is empty.

    MLflow itself would say so only after its import, and has no public function that does. So this is the one place
    that knows where MLflow keeps the version of its tables.

    Raises:
        sqlite3.Error: It is busy, or damaged.
    """
    if not (names := tables(file)):
        return None
    if "alembic_version" not in names:
        return f"has no tables of MLflow, but of another program ({', '.join(sorted(names)[:3])})"
    with contextlib.closing(_open(file)) as connection:
        rows = connection.execute("SELECT substr(version_num, 1, 64) FROM alembic_version LIMIT 2")
        found = [version for (version,) in rows]
        programs = [name for (name,) in connection.execute(PROGRAMS)]
    known, installed = revisions(), importlib.metadata.version("mlflow")
    if known and set(found) != known.keys() - set(known.values()):
        upgrade = f"mlflow db upgrade {shlex.quote(address(file))}"
        if found and found[0] in known:
            return f"is of an older MLflow than the installed {installed}; copy it, then: {upgrade}"
        what = f"is of another MLflow than the installed {installed} (schema {', '.join(map(str, found)) or 'unknown'})"
        return f"{what}; install that one, or if it is older, copy the file, then: {upgrade}"
    what = f"has {', '.join(programs)}, which MLflow does not make and SQLite would run; remove that, or move it away"
    return what if programs else None


@contextmanager
def alone(uri: str) -> Iterator[None]:
    """Keep other processes out while a SQLite store is opened: two that create it at once would break it."""
    if (file := sqlite_file(uri)) is None:
        yield
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    if (held := lock.take(lock_file(file), math.inf)) is not None:
        with held:
            yield


def lock_file(file: Path) -> Path:
    """The file that is locked while a SQLite store is opened; nothing else has such a name."""
    return file.with_name(f"{file.name}.lock")


def allow_many_writers(uri: str) -> None:
    """Have a SQLite store keep a write-ahead log, with which readers never wait, and writers wait for each other."""
    if file := sqlite_file(uri):
        with contextlib.suppress(sqlite3.OperationalError), contextlib.closing(sqlite3.connect(file)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")  # stays so; refused while others use the store


def is_read_only(file: Path) -> bool:
    """Whether SQLite, which keeps files beside a store, could not open it to write."""
    return not (os.access(file, os.W_OK) and os.access(file.parent, os.W_OK | os.X_OK))


def copy_to(file: Path, copy: sqlite3.Connection) -> None:
    """Copy a read-only store, with what is in its write-ahead log, into another database.

    Raises:
        sqlite3.Error: It is damaged.
    """
    with tempfile.TemporaryDirectory() as folder:
        for suffix in ("", "-wal"):
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(f"{file}{suffix}", f"{folder}/copy{suffix}")
        with contextlib.closing(sqlite3.connect(f"{folder}/copy")) as source:
            source.backup(copy)


def _open(file: Path) -> sqlite3.Connection:
    if is_read_only(file):
        connection = sqlite3.connect(":memory:")
        copy_to(file, connection)
    else:  # opened to write: SQLite rolls back what a killed writer has left
        connection = sqlite3.connect(f"{file.absolute().as_uri()}?mode=rw", uri=True, timeout=3)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST)
    return connection


@cache
def revisions() -> dict[str, str | None]:
    """The installed MLflow's versions of its tables, each with the one before; none if they are not where expected."""
    spec = importlib.util.find_spec("mlflow")
    folders = spec.submodule_search_locations or [] if spec else []
    files = [file for folder in folders for file in Path(folder, "store", "db_migrations", "versions").glob("*.py")]
    assigned = re.compile(r"^(revision|down_revision) = ['\"](\w+)['\"]", re.MULTILINE)
    found = [dict(assigned.findall(file.read_text())) for file in files]
    return {names["revision"]: names.get("down_revision") for names in found if "revision" in names}

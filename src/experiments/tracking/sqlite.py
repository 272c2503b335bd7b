"""SQLite stores, read without MLflow: whether the installed version can use them, and copies of read-only ones."""

import contextlib
import importlib.metadata
import importlib.util
import os
import re
import shlex
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

# Those of MLflow's tables that are read or written here.
TABLES = frozenset(
    {
        "alembic_version",
        "experiments",
        "experiment_tags",
        "runs",
        "tags",
        "params",
        "metrics",
        "latest_metrics",
        "datasets",
        "inputs",
        "input_tags",
        "logged_models",
        "logged_model_tags",
        "logged_model_params",
        "logged_model_metrics",
        "registered_models",
        "registered_model_tags",
        "registered_model_aliases",
        "model_versions",
        "model_version_tags",
    }
)
LONGEST = 1_000_000  # bytes of a value that is read here; those are names and ids


def address(file: Path) -> str:
    """The address of a SQLite file.

    SQLAlchemy reads ? and % in it, and MLflow makes a folder of their quoted form: a relative address avoids both.
    """
    if re.search("[?%]", str(file)) and file.is_relative_to(Path.cwd()):
        file = file.relative_to(Path.cwd())
    return f"sqlite:///{str(file).replace('%', '%25').replace('?', '%3F')}"


def query(file: Path, statement: str, *values: str) -> list[Any]:
    """Read from a store.

    Raises:
        sqlite3.Error: It is busy, damaged, or not a store.
    """
    with contextlib.closing(_open(file)) as connection:
        return connection.execute(statement, values).fetchall()


def mismatch(file: Path) -> str | None:
    """Say why MLflow could not use a store; None if it can, or if the store is empty.

    Raises:
        sqlite3.Error: It is busy, or damaged.
    """
    with contextlib.closing(_open(file)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not tables:
            return None
        if "alembic_version" not in tables:
            return f"has no tables of MLflow, but of another program ({', '.join(sorted(tables)[:3])})"
        rows = connection.execute("SELECT substr(version_num, 1, 64) FROM alembic_version LIMIT 2")
        found = [version for (version,) in rows]
        computing = list(_computing(connection))
    upgrade = f"mlflow db upgrade {shlex.quote(address(file))}"
    if (known := _revisions()) and found != [known[-1]]:
        installed = importlib.metadata.version("mlflow")
        if found and found[0] in known:
            return f"is of an older MLflow than the installed {installed}; copy it, then: {upgrade}"
        what = f"is of another MLflow than the installed {installed} (schema {', '.join(map(str, found)) or 'unknown'})"
        return f"{what}; install that one, or if it is older, copy the file, then: {upgrade}"
    if missing := TABLES - tables:
        return f"is damaged: it lacks the table {', '.join(sorted(missing))}; restore it, or move it away"
    what = f"has {', '.join(computing)}, which MLflow does not make and SQLite would run; remove that, or move it away"
    return what if computing else None


def _computing(connection: sqlite3.Connection) -> Iterator[str]:
    """What in a store is run when its tables are read or written, and is not MLflow's."""
    # MLflow has one trigger, on its table of secrets, which is not used here.
    programs = "SELECT type, name, tbl_name FROM sqlite_master WHERE type IN ('trigger', 'view') ORDER BY name"
    for kind, name, table in connection.execute(programs):
        if (kind, table) != ("trigger", "secrets"):
            yield f"the {kind} {name}"
    columns = (
        "SELECT tables.name, columns.name FROM sqlite_master AS tables, pragma_table_xinfo(tables.name) AS columns "
        "WHERE tables.type = 'table' AND columns.hidden IN (2, 3)"  # generated ones, which MLflow has for spans
    )
    for table, name in connection.execute(columns):
        if table in TABLES:
            yield f"the generated column {table}.{name}"


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
def _revisions() -> list[str]:
    """The installed MLflow's versions of its tables, oldest first; empty if they are not where they are expected."""
    spec = importlib.util.find_spec("mlflow")
    folders = spec.submodule_search_locations or [] if spec else []
    files = [file for folder in folders for file in Path(folder, "store", "db_migrations", "versions").glob("*.py")]
    return list(_in_order({before: name for name, before in map(_revision, files) if name}))


def _revision(file: Path) -> tuple[str | None, str | None]:
    """A migration's own name, and that of the one before."""
    found = dict(re.findall(r"^(revision|down_revision) = ['\"](\w+)['\"]", file.read_text(), re.MULTILINE))
    return found.get("revision"), found.get("down_revision")


def _in_order(following: dict[str | None, str | None]) -> Iterator[str]:
    name = following.get(None)
    while name:
        yield name
        name = following.get(name)

"""Prepared records, copies of them for single cases, and what is tampered with in a copy."""

import json
import os
import shutil
import sqlite3
import zipfile
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from fuzzing.case import RUN, SWEEP
from fuzzing.files import MAKERS, Recipe, damaged, damages, make, not_a_file
from fuzzing.words import MATERIAL, drawn_from

# Commands that make the records which cases start with; the second is a sweep.
SMALL = ["data=digits", "data.limit=200", "model.layer_sizes=[8]", "data.validation_size=0.2"]
PREPARED = [
    ["run", *SMALL, "epochs=2", "seed=7"],
    ["run", "-m", "hydra/launcher=basic", *SMALL, "epochs=1", "seed=0,1"],
    ["promote", "run=latest"],
]


def ids(store: Path) -> tuple[str, str]:
    """The ids of a prepared run, and of the prepared sweep."""
    with closing(sqlite3.connect(store / "mlflow.db")) as connection:
        [[sweep]] = connection.execute("SELECT run_uuid FROM tags WHERE key = 'sweep'").fetchall()
        [[run]] = connection.execute("SELECT run_uuid FROM params WHERE key = 'seed' AND value = '7'").fetchall()
    return str(run), str(sweep)


def copy(store: Path, to: Path) -> None:
    """Copy a store with its artifacts; the addresses in it become those of the copy."""
    shutil.copytree(store, to)
    replaced = {store.as_uri(): to.as_uri(), str(store): str(to).encode("utf-8", "replace").decode()}
    with closing(sqlite3.connect(to / "mlflow.db")) as connection, connection:
        for table, column in _places(connection, str(store)):
            for pair in replaced.items():
                connection.execute(f'UPDATE "{table}" SET "{column}" = replace("{column}", ?, ?)', pair)  # noqa: S608


Rows = dict[str, list[tuple[Any, ...]]]


def rows_below(folder: Path) -> dict[Path, Rows]:
    """The rows of every table of every SQLite file below a folder; of one that cannot be read, nothing."""
    found: dict[Path, Rows] = {}
    for top, _, names in os.walk(folder):
        for name in names:
            path = Path(top, name)
            if path.is_symlink() or not path.is_file() or name.endswith(("-wal", "-shm", "-journal")):
                continue
            with path.open("rb") as file:
                if file.read(15) == b"SQLite format 3":
                    found[path] = rows_of(path)
    return found


def rows_of(file: Path) -> Rows:
    """The rows of all tables that have any."""
    rows: Rows = {}
    with suppress(sqlite3.Error), closing(sqlite3.connect(file)) as connection:
        connection.text_factory = lambda raw: raw.decode("utf-8", "backslashreplace")
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            with suppress(sqlite3.Error):
                if found := connection.execute(f'SELECT * FROM "{name}"').fetchall():  # noqa: S608
                    rows[name] = sorted(found, key=repr)
    return rows


_known: dict[str, list[tuple[str, str]]] = {}


def _places(connection: sqlite3.Connection, text: str) -> list[tuple[str, str]]:
    """Tables and columns that hold a text; looked for once."""
    if text not in _known:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        columns = [(table, row[1]) for table in tables for row in connection.execute(f'PRAGMA table_info("{table}")')]
        query = 'SELECT 1 FROM "{}" WHERE instr("{}", ?) LIMIT 1'
        _known[text] = [place for place in columns if connection.execute(query.format(*place), (text,)).fetchall()]
    return _known[text]


# --- makers; the path is that of the working folder's mlruns --------------------------------------------------------


def _sql(mlruns: Path, *statements: str) -> None:
    with closing(sqlite3.connect(mlruns / "mlflow.db")) as connection:
        for statement in statements:
            with suppress(sqlite3.Error):  # an earlier one has dropped the table
                connection.execute(statement)
                connection.commit()
        with suppress(sqlite3.Error):
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _found(mlruns: Path, pattern: str) -> list[Path]:
    return [path for path in sorted(mlruns.glob(pattern)) if path.is_file() and not path.is_symlink()]


def _replace(mlruns: Path, pattern: str, maker: str, *arguments: Any) -> None:
    for path in _found(mlruns, pattern):
        path.unlink()
        if maker != "nothing":
            make(path, maker, *arguments)


def _damage(mlruns: Path, pattern: str, found: Sequence[Any]) -> None:
    for path in _found(mlruns, pattern):
        path.write_bytes(damaged(path.read_bytes(), found))


def _json(mlruns: Path, pattern: str, keys: Sequence[str], value: str) -> None:
    """Set a value in JSON files; `value` is JSON, as it may be what `json` would not write."""
    for path in _found(mlruns, pattern):
        path.write_text(_changed(path.read_text(), keys, value))


def _changed(text: str, keys: Sequence[Any], value: str) -> str:
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError):  # what an earlier change of the same file made of it
        return text
    node = tree
    for key in keys[:-1]:
        node = node[key] if isinstance(node, dict | list) and (isinstance(node, list) or key in node) else {}
    mark = "a mark that nothing else looks like"
    if keys and isinstance(node, dict | list):
        with suppress(IndexError, TypeError):
            node[keys[-1]] = mark
    return json.dumps(tree if keys else mark).replace(json.dumps(mark), value)


def _keras(mlruns: Path, member: str, keys: Sequence[Any], value: str) -> None:
    """Change a member of the models' zip files: a value of its JSON, or all of it."""
    for path in _found(mlruns, "artifacts/models/*/artifacts/data/model.keras"):
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        if value == "nothing":
            members.pop(member, None)
        elif keys == ["bytes"]:
            members[member] = value.encode("utf-8", "surrogateescape")
        else:
            members[member] = _changed(members[member].decode(), keys, value).encode()
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)


MAKERS |= {"sql": _sql, "replace": _replace, "damage": _damage, "json": _json, "keras": _keras}

# --- strategies -----------------------------------------------------------------------------------------------------

TEXTS = [*MATERIAL["spoiled_texts"], "x" * 600, "9" * 400]
CONFIGS = [*MATERIAL["configs"], "[" * 2000, "x: " + "9" * 5000]


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


@st.composite
def statements(draw: st.DrawFn) -> str:
    """A statement that spoils a store."""
    where = draw(st.sampled_from(["", "", f" AND run_uuid = '{RUN}'", f" AND run_uuid != '{RUN}'"]))
    value = draw(st.one_of(st.sampled_from(TEXTS).map(_quoted), drawn_from("spoiled_numbers")))
    kind = draw(st.integers(0, 9))
    if kind == 0:
        return f"{draw(st.sampled_from(['DROP TABLE', 'DELETE FROM', 'DELETE FROM']))} {draw(drawn_from('tables'))}"
    if kind < 3:
        table, column = draw(drawn_from("spoiled_columns"))
        return f"UPDATE OR IGNORE {table} SET {column} = {value}"  # noqa: S608
    if kind == 3:
        status = draw(st.sampled_from(["RUNNING", "FAILED", "KILLED", "SCHEDULED", "FINISHED", "nope", ""]))
        return f"UPDATE runs SET status = '{status}' WHERE 1=1{where}"  # noqa: S608
    if kind == 4:
        return f"INSERT INTO tags (key, value, run_uuid) VALUES ('failure', {value}, '{RUN}')"  # noqa: S608
    table = draw(st.sampled_from(sorted(MATERIAL["spoiled_keys"])))
    key = draw(st.sampled_from(MATERIAL["spoiled_keys"][table]))
    if draw(st.integers(0, 3)) == 0:
        return f"DELETE FROM {table} WHERE key = '{key}'{where}"  # noqa: S608
    number = draw(drawn_from("spoiled_numbers")) if "metrics" in table else value
    return f"UPDATE OR IGNORE {table} SET value = {number} WHERE key = '{key}'{where}"  # noqa: S608


@st.composite
def tampered(draw: st.DrawFn) -> list[Recipe]:
    """What is done to a copy of the prepared records."""
    recipes: list[Recipe] = []
    for _ in range(draw(st.integers(1, 2))):
        kind = draw(st.integers(0, 9))
        if kind < 4:
            recipes.append(["mlruns", "sql", *draw(st.lists(statements(), min_size=1, max_size=2))])
        elif kind == 4:
            recipes.append(["mlruns", "damage", draw(drawn_from("artifacts")), draw(damages)])
        elif kind == 5:
            other = draw(
                st.one_of(
                    not_a_file, st.sampled_from([["nothing"], ["text", ""], ["text", "x"], ["link", "/proc/self/mem"]])
                )
            )
            recipes.append(["mlruns", "replace", draw(drawn_from("artifacts")), *other])
        elif kind == 6:
            config = draw(st.sampled_from(CONFIGS))
            recipes.append(["mlruns", "replace", "artifacts/*/artifacts/config/config.yaml", "text", config])
        elif kind == 7:
            report = "artifacts/*/artifacts/report.json"
            recipes.append(["mlruns", "json", report, draw(drawn_from("json_keys")), draw(drawn_from("json_values"))])
        elif kind == 8:
            recipes.append(
                [
                    "mlruns",
                    "keras",
                    "config.json",
                    draw(drawn_from("keras_keys")),
                    draw(drawn_from("json_values", "keras_values") | st.just("[" * 2000)),
                ]
            )
        else:
            member = draw(
                st.sampled_from(["config.json", "metadata.json", "model.weights.h5", "x/../../y", "assets/x"])
            )
            recipes.append(
                [
                    "mlruns",
                    "keras",
                    member,
                    ["bytes"],
                    draw(st.sampled_from(["nothing", "", "x", "{}", "[]", "\x89HDF\r\n"])),
                ]
            )
    return [*recipes, ["evilmod.py", "evil"]]


USUAL = [
    *(("predict", [f"run={run}"]) for run in ("latest", RUN, "best", "digits@champion")),
    ("predict", ["run=best", "format=json"]),
    *(("compare", [form]) for form in ("format=text", "format=json", "format=csv", "report=page.html", "sort=seconds")),
    *(("compare", ["tracking.experiment=digits", form]) for form in ("format=markdown", "report=page.html")),
    *(("compare", [named]) for named in (f"runs=[{RUN}]", f"sweep={SWEEP}")),
    *(("promote", words) for words in ([], ["run=latest", "alias=x"], [f"run={RUN}"])),
    *(("reproduce", words) for words in ([], [f"run={RUN}"])),
    ("run", ["data=digits", "data.limit=100", "epochs=1", "model.layer_sizes=[8]"]),
    ("run", [*PREPARED[0][1:], "resume=true"]),
]


def usual() -> st.SearchStrategy[tuple[str, list[str]]]:
    """A command as it is commonly given, and its arguments."""
    return st.sampled_from(USUAL)

"""Stores: their addresses, without passwords, and whether they can be used."""

import json
import os
import re
import socket
import sqlite3
import string
import threading
import time
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.config import Refused
from experiments.config.schema import Tracking
from experiments.tracking import sqlite
from experiments.tracking.client import open_store
from experiments.tracking.provenance import origin
from experiments.tracking.runs import look_up
from experiments.tracking.search import connect
from experiments.tracking.sqlite import sqlite_file
from experiments.tracking.store import existing, problems, redact, redact_all, store_uri

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's own
# Whatever a keyboard gives, but blanks, which end a word.
SECRETS = st.text(st.characters(categories=("L", "N", "P", "S")), min_size=3, max_size=20)
FORMS = [
    "http://user:{}@host:5000/path",
    "postgresql+psycopg2://user:{}@host/db?sslmode=require",
    "https://{}@host",
    "http://:{}@host",
    "http:/user:{}@host",
    "//user:{}@host",
    "mysql://{}:{}@[::1]:3306/db",
    "http://host/?token={}",
    "http://host/path?a=b&api_key={}",
    "http://host/path#access_token={}",
]
TEXTS = [
    "{}",
    "tracking.uri={}",
    "sqlite:////home/me/x.db,{}",
    "'tracking.uri=\"{}\"' epochs=3",
    "error: {} cannot be reached",
    "see\n- {}\nand on",
]


@given(secret=SECRETS, form=st.sampled_from(FORMS), text=st.sampled_from(TEXTS), encoded=st.booleans())
def test_no_part_of_a_password_is_left(secret: str, form: str, text: str, encoded: bool) -> None:
    if "?" in form or "#" in form:
        secret = secret.replace("&", "")
    whole = text.format(form.format(*2 * [quote(secret, safe="") if encoded else secret]))
    shown, usual = redact(whole), text.format(form.format("", "")) + "***@***"
    pieces = {secret[start : start + 3] for start in range(len(secret) - 2)}
    assert [piece for piece in pieces if piece in shown and piece not in usual] == []
    assert redact(shown) == shown


@given(secret=SECRETS)
def test_a_password_is_in_no_tag(secret: str) -> None:
    address = f"http://user:{secret}@host/x"
    tracking = Tracking(enabled=True, experiment="e", tags={"x": address})
    tags = origin(tracking, [f'tracking.uri="{address}"', f"+tracking.tags.x={address}"], "run")
    shown = json.dumps([tags, redact_all({"a": [{"b": (address, 1)}]})], ensure_ascii=False)
    # Behind a ? with values, the @ may be one of the query: then nothing of the host is shown either.
    assert tags["x"] == ("http://***" if re.search("[?#].*=", secret, re.DOTALL) else "http://***@host/x")
    assert "user" not in shown.replace("mlflow.user", "")


@pytest.mark.parametrize(
    "text",
    [
        "optimizer=adam data.path=/data/me@home.npz",
        'filter="val_accuracy>0.9"',
        "http://127.0.0.1:5000/#/experiments/1",
        '"mypackage @ git+https://github.com/me/mypackage.git@v1.2",',
        "sqlite:////home/me/mlruns/mlflow.db",
        "file:///home/me/mlruns/artifacts",
        "MLFLOW_TRACKING_URI=sqlite:////home/me@work/mlruns/mlflow.db sqlite:///me@work.db",
        "file:///home/me@work/mlruns/artifacts",
        "@decorator  # see https://example.com",
        string.punctuation.replace("//", ""),
    ],
)
def test_what_holds_no_password_stays(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("http://user:se/kretG@127.0.0.1:9", "write blanks and / ? # @ of user name and password as %20 %2F"),
        ("http://user:se@kretG@127.0.0.1:9", "write blanks"),
        ("postgresql://user:se kretG@127.0.0.1:9/db", "write blanks"),
        ("http://127.0.0.1:9?token=sekretG", "a token goes into $MLFLOW_TRACKING_TOKEN"),
        ("http://user:sekretG@127.0.0.1:9", "cannot be reached"),
        ("http://user:kret%47@127.0.0.1:9", "cannot be reached"),
        ("sqlite:///:memory:", "names no file"),
        ("sqlite://", "names no file"),
        ("sqlite:////dev/null", "is no ordinary file"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_without_its_password(uri: str, told: str) -> None:
    [problem] = problems(Tracking(enabled=True, uri=uri, experiment="e"))
    assert (problem.where, problem.remedy) == ("tracking.uri", "tracking=offline")
    assert told in problem.what
    assert "kret" not in problem.what


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("mysql:u:s3cr3t@h", "mysql:*** is no tracking store"),
        ("sqlite:u:s3cr3t@h", "sqlite:*** is no tracking store"),
        ("u:s3cr3t@127.0.0.1:9", "*** is no tracking store"),
        ("http:\\\\u:s3cr3t@127.0.0.1", "http:*** is no tracking store"),
        ("host=127.0.0.1 password=s3cr3t user=u", "*** is no tracking store"),
        ("http://127.0.0.1:9;password=s3cr3t", "http:*** cannot be read"),
        ("http://127.0.0.1:s3cr3t", "http:*** cannot be read"),
        ("postgresql://127.0.0.1:9;password=s3cr3t/db", "postgresql:*** cannot be read"),
        ("postgresql://127.0.0.1:9/db;password=s3cr3t", "postgresql:*** cannot be read"),
        ("http://u:s3cr3t/@127.0.0.1:9", "http:*** cannot be read"),
        ("http://u:s3cr3t@127.0.0.1:9/path", "http://***@127.0.0.1:9/path cannot be reached"),
        ("http://u:s3cr3t@[::1]:9", "http://***@[::1]:9 cannot be reached"),
        ("mlruns", "mlruns is no tracking store"),
    ],
)
def test_of_what_is_no_readable_address_the_scheme_is_shown(uri: str, shown: str) -> None:
    [problem] = problems(Tracking(enabled=True, uri=uri, experiment="e"))
    assert problem.what.startswith(shown)
    assert "s3cr3t" not in problem.what


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of the installed MLflow, with a run in it."""
    file = tmp_path_factory.mktemp("whole") / "mlflow.db"
    client = open_store(sqlite.address(file))
    client.set_terminated(client.create_run("0").info.run_id)
    return file


SCHEMAS = {
    "older": ("UPDATE alembic_version SET version_num = '451aebb31d03'", "of an older MLflow than the installed"),
    "newer": ("UPDATE alembic_version SET version_num = 'ffffffffffff'", "(schema ffffffffffff); install that one"),
    "no version": ("DELETE FROM alembic_version", "of another MLflow than the installed"),
    "a long version": ("UPDATE alembic_version SET version_num = hex(zeroblob(9000))", f"(schema {64 * '0'}); install"),
    "a computed version": (
        "DROP TABLE alembic_version; CREATE TABLE alembic_version (x, version_num AS (hex(zeroblob(200000000)))); "
        "INSERT INTO alembic_version (x) VALUES (1), (2)",
        "string or blob too big",
    ),
    "trigger": (
        "CREATE TRIGGER slow BEFORE INSERT ON runs BEGIN WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x FROM n) "
        "SELECT count(*) FROM n; END",
        "has the trigger slow, which MLflow does not make",
    ),
    "view": ("CREATE VIEW mine AS SELECT * FROM runs", "has the view mine, which MLflow does not make"),
    "generated column": ("ALTER TABLE runs ADD COLUMN x AS (hex(name))", "has the generated column runs.x, which"),
    "of another program": ("DROP TABLE alembic_version", "has no tables of MLflow, but of another program ("),
}


@pytest.mark.parametrize(("statement", "told"), SCHEMAS.values(), ids=SCHEMAS.keys())
def test_a_store_that_mlflow_cannot_use_is_refused_at_once(
    whole: Path, tmp_path: Path, statement: str, told: str
) -> None:
    file = tmp_path / "mlflow.db"
    with closing(sqlite3.connect(whole)) as source, closing(sqlite3.connect(file)) as copy:
        source.backup(copy)
        copy.executescript(statement)
    tracking = Tracking(enabled=True, uri=sqlite.address(file), experiment="e")
    [problem] = problems(tracking)
    assert told in problem.what
    with pytest.raises(Refused, match=re.escape(told)):
        existing(tracking, "run")
    if "alembic_version SET" in statement:
        assert f"mlflow db upgrade {sqlite.address(file)}" in problem.what


def test_a_store_that_is_no_database_is_refused(tmp_path: Path) -> None:
    for content in (b"garbage", b"SQLite format 3\x00" + bytes(100), bytes(5000)):
        (tmp_path / "x.db").write_bytes(content)
        [problem] = problems(Tracking(enabled=True, uri=f"sqlite:///{tmp_path}/x.db", experiment="e"))
        assert "is not a usable SQLite file" in problem.what
    os.mkfifo(tmp_path / "fifo.db")
    [problem] = problems(Tracking(enabled=True, uri=f"sqlite:///{tmp_path}/fifo.db", experiment="e"))
    assert "is no ordinary file" in problem.what


def test_a_store_lies_in_its_folder_whatever_that_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "a?b=c#d@e%41 é'\"$x"
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / name)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tracking = Tracking(enabled=True, experiment="e")
    uri = store_uri(tracking)
    run = open_store(uri).create_run("0")
    assert problems(tracking) == []
    assert existing(tracking, "run") == uri
    assert sqlite_file(uri) == Path.cwd() / "mlruns" / "mlflow.db"
    assert connect(uri).get_run(run.info.run_id).info.run_id == run.info.run_id
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert [path.name for path in Path.cwd().iterdir()] == ["mlruns"]


def test_a_read_only_store_can_be_read(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may write everything, so that the look at the permissions is replaced."""
    monkeypatch.setattr(sqlite, "is_read_only", lambda file: True)
    tracking = Tracking(enabled=True, uri=sqlite.address(whole), experiment="e")
    before = sorted(whole.parent.iterdir())
    client = connect(existing(tracking, "run"))
    assert len(client.search_runs(["0"])) == 1
    assert sorted(whole.parent.iterdir()) == before
    with pytest.raises(Refused, match="cannot be written"):
        existing(tracking, "run", writing=True)
    assert "cannot be written" in problems(tracking)[0].what


DAMAGES = {
    "no runs": "DROP TABLE runs",
    "status": "PRAGMA ignore_check_constraints = ON; UPDATE runs SET status = 'DANCING'",
    "stage": "PRAGMA ignore_check_constraints = ON; UPDATE runs SET lifecycle_stage = 'dancing'",
    "column": "ALTER TABLE runs DROP COLUMN user_id",
    "table of metrics": "DROP TABLE latest_metrics; CREATE TABLE latest_metrics (x)",
    "tag": "UPDATE tags SET value = x'00ff'",
    "page": "",
}


@pytest.mark.parametrize("statement", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_store_that_is_damaged_within_is_refused(whole: Path, tmp_path: Path, statement: str) -> None:
    file = tmp_path / "mlflow.db"
    with closing(sqlite3.connect(whole)) as source, closing(sqlite3.connect(file)) as copy:
        source.backup(copy)
        [(page,)] = copy.execute("SELECT rootpage FROM sqlite_master WHERE name = 'runs'")
        [(size,)] = copy.execute("PRAGMA page_size")
        copy.executescript(statement)
    if not statement:
        with file.open("r+b") as stream:
            stream.seek((page - 1) * size)
            stream.write(b"\xff" * size)
    tracking = Tracking(enabled=True, uri=sqlite.address(file), experiment="")
    for which in ("latest", "best", "0123456789abcdef0123456789abcdef"):
        with pytest.raises(Refused):
            look_up(which, tracking)
    with pytest.raises(Refused):
        _ = look_up("latest", tracking).histories


def test_reading_a_store_without_tables_makes_none(tmp_path: Path) -> None:
    file = tmp_path / "new.db"
    with closing(sqlite3.connect(file)) as empty:
        empty.executescript("CREATE TABLE x (y); DROP TABLE x")
    with pytest.raises(Refused, match="nothing is recorded in"):
        look_up("latest", Tracking(enabled=True, uri=sqlite.address(file), experiment=""))
    assert sqlite.tables(file) == set()


def test_the_versions_of_mlflows_tables_are_where_they_are_looked_for(whole: Path) -> None:
    """Fails if another MLflow keeps them elsewhere: stores of other versions would not be refused any more."""
    revisions = sqlite.revisions()
    (newest,) = revisions.keys() - set(revisions.values())
    with closing(sqlite3.connect(whole)) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(newest,)]


def test_a_lock_that_is_a_pipe_is_refused(tmp_path: Path) -> None:
    """To open it would wait for a reader for ever."""
    os.mkfifo(tmp_path / "mlflow.db.lock")
    [problem] = problems(Tracking(enabled=True, uri=f"sqlite:///{tmp_path}/mlflow.db", experiment="e"))
    assert "mlflow.db.lock is no file" in problem.what


def test_a_server_that_never_ends_its_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.tracking.store.PATIENCE", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip() -> None:
            with suppress(OSError), listener.accept()[0] as connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\n")
                while True:
                    connection.sendall(b"X-A: b\r\n")
                    time.sleep(0.1)

        threading.Thread(target=drip, daemon=True).start()
        uri = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(Refused, match="no whole answer within"):
            existing(Tracking(enabled=True, uri=uri, experiment="e"), "run")

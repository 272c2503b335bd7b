"""A team's MLflow server to try out, for this machine only: PostgreSQL of the system's packages, and access control.

Everything is in `mlruns/server/` of the current folder:

    password      of the user admin
    artifacts/    what the server hands out
    mlflow.log    what it says
    postgres/     the database, and what it says

Ctrl-C ends both. The next start goes on with what is there.
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

import psutil

from experiments.tracking import lock
from experiments.tracking.store import FOLDER

INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
WORKERS = 2
START_SECONDS = 120.0
DATABASE_USER = "mlflow"
AUTH = """[mlflow]
default_permission = EDIT
database_uri = sqlite:///{users}
admin_username = admin
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
auth_cache_ttl_seconds = 60
"""


class Unusable(Exception):  # noqa: N818 - a state of this machine
    """The server cannot be started here; with the reason."""


def main() -> None:
    """Serve on the port that the first argument names, until interrupted."""
    for number in INTERRUPTS:
        signal.signal(number, _interrupt)
    folder = FOLDER.absolute() / "server"
    try:
        _serve(folder, _port(sys.argv[1] if len(sys.argv) > 1 else "5000"))
    except Unusable as why:
        print(f"error: make server: {why}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print()


def _serve(folder: Path, port: int) -> None:
    programs = _programs()
    folder.mkdir(parents=True, exist_ok=True)
    with lock.take(folder / "lock") or _running(folder):
        _end_left_over(folder / "mlflow.pid")
        _refuse_taken(port)
        _serve_alone(folder, port, programs)


def _serve_alone(folder: Path, port: int, programs: Path) -> None:
    with _postgres(folder, programs) as database:
        server = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port),
             "--workers", str(WORKERS), "--app-name", "basic-auth",
             "--serve-artifacts", "--artifacts-destination", (folder / "artifacts").as_uri()],
            env={**os.environ, **_settings(folder, database)},
            stdout=(folder / "mlflow.log").open("w"), stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        (folder / "mlflow.pid").write_text(str(server.pid))
        try:
            _wait(server, port, folder)
            print(f"http://127.0.0.1:{port}  user admin, password in {folder / 'password'}  (Ctrl-C ends it)")
            print("to record there:")
            print(f"  export MLFLOW_TRACKING_URI=http://127.0.0.1:{port} MLFLOW_TRACKING_USERNAME=admin")
            print(f"  export MLFLOW_TRACKING_PASSWORD=$(cat {folder / 'password'})", flush=True)
            server.wait()
            raise Unusable(f"the server has ended by itself; see {folder / 'mlflow.log'}")
        finally:
            _end(server)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    for each in INTERRUPTS:  # once is enough: both servers are being ended
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


def _port(written: str) -> int:
    if not (written.isdecimal() and 0 < int(written) < 65536):
        raise Unusable(f"got port {written}, expected one from 1 to 65535; try  make server PORT=5000")
    return int(written)


def _end_left_over(file: Path) -> None:
    """End the server of a script that was killed: it would have another database taken from it."""
    try:
        left = psutil.Process(int(file.read_text()))
        if "mlflow" in left.cmdline():
            os.killpg(left.pid, signal.SIGKILL)
            left.wait(10)
    except (OSError, ValueError, psutil.Error):  # there is none
        return


def _running(folder: Path) -> NoReturn:
    raise Unusable(f"the server of {folder} is already running")


def _programs() -> Path:
    """The folder of PostgreSQL's programs; Debian keeps those of a server off PATH.

    Raises:
        Unusable: There are none.
    """
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda file: float(file.parts[-3]))
    if not versions:
        raise Unusable("PostgreSQL is not installed: apt-get install postgresql, or brew install postgresql")
    return versions[-1].parent


def _refuse_taken(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise Unusable(f"port {port} is taken; try  make server PORT={port + 1}") from error


def _secret(file: Path) -> str:
    """A password that is made at the first start; only its owner can read it."""
    if not file.exists():
        new = file.with_name(f"{file.name}.new")
        _write_secret(new, secrets.token_urlsafe(24))
        new.replace(file)
    return file.read_text()


@contextmanager
def _postgres(folder: Path, programs: Path) -> Iterator[str]:
    """Run PostgreSQL on a free port; yield the address of the database, without its password."""
    # PostgreSQL does not run as root; its packages make a user for it.
    user = "postgres" if os.geteuid() == 0 else None
    place = folder / "postgres"
    place.mkdir(exist_ok=True)
    if user:
        shutil.chown(place, user, user)
    password = _secret(folder / "database_password")
    control: Sequence[str | Path] = [programs / "pg_ctl", "--pgdata", place / "data", "--silent", "--wait"]
    if not (place / "data").exists():
        _create(programs, place, user, password)
    _call([*control, "--mode", "immediate", "stop"], user, may_fail=True)  # one that outlived its script
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories=''"
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, INTERRUPTS)  # or it would not be known whether it has started
        try:
            _call([*control, "--log", place / "log", "--options", options, "start"], user)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, INTERRUPTS)
        yield f"postgresql+psycopg2://{DATABASE_USER}@127.0.0.1:{port}/postgres"
    finally:
        _call([*control, "--mode", "fast", "stop"], user, may_fail=True)


def _create(programs: Path, place: Path, user: str | None, password: str) -> None:
    """Make a database, whole or not at all."""
    new, told = place / "data.new", place / "password"
    shutil.rmtree(new, ignore_errors=True)
    _write_secret(told, password)
    if user:
        shutil.chown(told, user, user)
    try:
        command: list[str | Path] = [
            programs / "initdb",
            "--pgdata",
            new,
            "--username",
            DATABASE_USER,
            "--pwfile",
            told,
        ]
        _call([*command, "--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C"], user)
        new.rename(place / "data")
    finally:
        told.unlink()


def _write_secret(file: Path, text: str) -> None:
    file.unlink(missing_ok=True)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
        opened.write(text)


def _call(command: Sequence[str | Path], user: str | None, *, may_fail: bool = False) -> None:
    """Carry out a program of PostgreSQL, out of reach of Ctrl-C.

    Raises:
        Unusable: It failed.
    """
    done = subprocess.run(
        command, user=user, group=user, extra_groups=user and [], cwd="/", start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    if done.returncode and not may_fail:
        said = " ".join(done.stderr.split())
        hint = f"; PostgreSQL runs as user {user}, who has to reach this folder" if user else ""
        raise Unusable(f"{Path(command[0]).name} failed ({said}){hint}")


def _settings(folder: Path, database: str) -> Mapping[str, str]:
    """What the server is told. Not as arguments: everybody can read those."""
    port = database.rpartition(":")[2].partition("/")[0]
    password = _secret(folder / "database_password")
    _write_secret(folder / "pgpass", f"127.0.0.1:{port}:postgres:{DATABASE_USER}:{password}\n")
    (folder / "auth.ini").write_text(AUTH.format(users=folder / "users.db"))
    return {
        "MLFLOW_BACKEND_STORE_URI": database,
        "PGPASSFILE": str(folder / "pgpass"),
        "MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"),
        "MLFLOW_AUTH_ADMIN_PASSWORD": _secret(folder / "password"),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": _secret(folder / "session_key"),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }


def _wait(server: "subprocess.Popen[bytes]", port: int, folder: Path) -> None:
    """Wait until the server answers.

    Raises:
        Unusable: It does not.
    """
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and server.poll() is None:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).close()
            return
        except OSError:
            time.sleep(0.2)
    raise Unusable(f"the server did not start; see {folder / 'mlflow.log'}")


def _end(server: "subprocess.Popen[bytes]") -> None:
    server.terminate()
    try:
        server.wait(10)
    except subprocess.TimeoutExpired:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


if __name__ == "__main__":
    main()

"""Recording on a real MLflow server that fails: away, killed, slow, refusing; a proxy before it does what it cannot."""

import base64
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from http.client import HTTPConnection
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import pytest

from experiments.tracking.lookup import Answer, Question
from experiments.tracking.process import spawn
from tests.prepared import Started
from tests.sweeps.processes import wait_until
from tests.tracking import journals

ForkStart = Callable[..., Started]
RunCli = Callable[..., subprocess.CompletedProcess[str]]
RUN = ("data=digits", "epochs=15", "batch_size=8", "model.layer_sizes=[16]", "runtime.xla=false")


class Server:
    """A real ``mlflow server`` on loopback, which can be stopped, killed and started again."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [
            sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1",
            "--backend-store-uri", f"sqlite:///{self.folder / 'server.db'}",
            "--artifacts-destination", str(self.folder / "artifacts"), "--serve-artifacts",
        ]  # fmt: skip
        environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        self._process = subprocess.Popen(
            command, cwd=self.folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        wait_until(self._answers, 90)

    def _answers(self) -> bool:
        try:
            return bool(urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=2).status == 200)
        except OSError:
            return False

    def kill(self) -> None:
        if self._process:
            os.killpg(self._process.pid, 9)
            self._process.wait()
            self._process = None


class Proxy:
    """Hands requests to a server; `answer` may answer in its place, or end the connection."""

    def __init__(self, port: int) -> None:
        self.answer: Callable[[str, str], int | str | None] = lambda method, path: None
        self.credentials = ""  # that are asked for, with a colon
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                self.raw_requestline = self.rfile.readline(65537)
                if not self.raw_requestline or not self.parse_request():
                    self.close_connection = True
                    return
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                said = proxy.answer(self.command, self.path)
                wanted = f"Basic {base64.b64encode(proxy.credentials.encode()).decode()}"
                if proxy.credentials and self.headers.get("Authorization") != wanted:
                    said = 401
                if said == "drop":
                    self.close_connection = True
                    return
                if isinstance(said, int):
                    self._send(said, {"Content-Type": "text/plain"}, b"it says no")
                    return
                with closing(HTTPConnection("127.0.0.1", port, timeout=60)) as server:
                    try:
                        server.request(self.command, self.path, body, dict(self.headers))
                        answered = server.getresponse()
                        content = answered.read()
                    except OSError:
                        self.close_connection = True
                        return
                if said == "lose":
                    self.close_connection = True
                    return
                self._send(answered.status, dict(answered.getheaders()), content)

            def _send(self, status: int, headers: dict[str, str], content: bytes) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.uri = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("server"), free_port())
    made.start()
    yield made
    made.kill()


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    made = Proxy(server.port)
    yield made
    made.close()


def runs(server: Server, experiment: str) -> list[dict[str, Any]]:
    """The runs of an experiment, as the server's own interface shows them."""
    found = _ask(server, f"experiments/get-by-name?experiment_name={experiment}")
    ids = [found["experiment"]["experiment_id"]]
    return list(_ask(server, "runs/search", {"experiment_ids": ids, "max_results": 100}).get("runs", []))


def _ask(server: Server, what: str, body: Any = None) -> Any:
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.port}/api/2.0/mlflow/{what}",
        json.dumps(body).encode() if body else None,
        {"Content-Type": "application/json"},
    )
    return json.load(urllib.request.urlopen(request, timeout=30))


def is_complete(server: Server, experiment: str, count: int = 1) -> None:
    """Whether the server has all of so many runs of 15 epochs, once."""
    found = runs(server, experiment)
    assert [run["info"]["status"] for run in found] == ["FINISHED"] * count
    for run in found:
        run_id = run["info"]["run_id"]
        history = _ask(server, f"metrics/get-history?run_id={run_id}&metric_key=loss")["metrics"]
        assert [int(point.get("step", 0)) for point in history] == list(range(15))
        models = run["outputs"]["model_outputs"]
        assert len(models) == 1
        files = {item["path"] for item in _ask(server, f"artifacts/list?run_id={run_id}")["files"]}
        assert {"config", "figures", "report.json", "environment.txt"} <= files


def said(folder: Path) -> str:
    return (folder / "out").read_text() if (folder / "out").exists() else ""


def started(folder: Path, fork_start: ForkStart, *more: str) -> Started:
    process = fork_start(*RUN, *more)
    wait_until(lambda: "epoch  3/" in said(folder) or process.poll() is not None)
    assert process.poll() is None, said(folder)
    return process


def test_the_server_is_away_for_a_while(
    tmp_path: Path, server: Server, proxy: Proxy, fork_start: ForkStart, fork_cli: RunCli
) -> None:
    process = started(tmp_path, fork_start, f"tracking.uri={proxy.uri}", "tracking.experiment=while", "epochs=15")
    proxy.answer = lambda method, path: "drop"
    time.sleep(1)
    proxy.answer = lambda method, path: None
    assert process.wait() == 0, said(tmp_path)
    if "recorded as run" not in said(tmp_path):
        assert fork_cli(f"tracking.uri={proxy.uri}", module="sync").returncode == 0
    is_complete(server, "while")


@pytest.mark.parametrize("answer", ["drop", 404])
def test_the_server_is_gone_for_good(
    answer: int | str, tmp_path: Path, server: Server, proxy: Proxy, fork_start: ForkStart, fork_cli: RunCli
) -> None:
    """Of one that is away, a proxy before it says 404."""
    name = f"gone{answer}"
    process = started(tmp_path, fork_start, f"tracking.uri={proxy.uri}", f"tracking.experiment={name}")
    proxy.answer = lambda method, path: answer
    wait_until(lambda: "test_loss" in said(tmp_path) or "epoch 15/" in said(tmp_path))
    began = time.monotonic()
    assert process.wait() == 0, said(tmp_path)
    assert time.monotonic() - began < 20
    assert "but not sent (" in said(tmp_path)
    assert "send it:  python -m experiments.sync" in said(tmp_path)
    again = fork_cli(f"tracking.uri={proxy.uri}", module="sync")
    assert again.returncode == 1
    assert "not sent: " in again.stdout
    proxy.answer = lambda method, path: None
    assert fork_cli(f"tracking.uri={proxy.uri}", module="sync").returncode == 0
    is_complete(server, name)


def test_the_server_is_killed_before_it_answers(tmp_path: Path, server: Server, proxy: Proxy, fork_cli: RunCli) -> None:
    """Every answer to a call that changes something is lost the first time."""
    seen = set[str]()

    def lose(method: str, path: str) -> str | None:
        kind = path.partition("?")[0].rpartition("/")[2] if "/artifacts/" not in path else path
        if method == "GET" or "search" in kind or kind in seen:
            return None
        seen.add(kind)
        return "lose"

    assert fork_cli(*RUN, "tracking=offline", "tracking.experiment=lost").returncode == 0
    proxy.answer = lose
    for _ in range(40):
        done = fork_cli(f"tracking.uri={proxy.uri}", module="sync")
        if done.returncode == 0:
            break
    assert done.returncode == 0, done.stdout
    assert {"create", "log-batch", "log-inputs"} <= seen
    is_complete(server, "lost")


def test_a_question_is_answered_while_a_delivery_waits(
    tmp_path: Path, server: Server, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search asks before each trial, while the one before is delivered."""
    monkeypatch.chdir(tmp_path)
    delivers, goes_on = threading.Event(), threading.Event()

    def wait(method: str, path: str) -> None:
        if path.endswith("/runs/log-batch"):
            delivers.set()
            goes_on.wait(60)

    proxy.answer = wait
    ours, theirs = Pipe()
    command = [sys.executable, "-m", "experiments.tracking.process", str(theirs.fileno())]
    with spawn(command, theirs.fileno()) as process, ours:
        theirs.close()
        ours.send(proxy.uri)
        ours.send(Question())
        assert [ours.recv(), ours.recv()] == [True, Answer()]
        ours.send(journals.write(tmp_path / "a run", experiment="asked", store=proxy.uri))
        assert delivers.wait(60)
        ours.send(Question(["asked"], fingerprint="f"))
        assert ours.poll(20)
        [run] = ours.recv().runs
        assert run.status == "RUNNING"
        goes_on.set()
        ours.send((1, "all"))
        assert ours.recv() == (1, "")
        ours.close()
        assert process.wait(60) == 0


@pytest.mark.parametrize("answer", [429, "drop"])
def test_a_server_that_takes_nothing_now(
    answer: int | str, tmp_path: Path, server: Server, proxy: Proxy, fork_cli: RunCli
) -> None:
    proxy.answer = lambda method, path: answer
    name = f"tracking.experiment=now{answer}"
    done = fork_cli(*RUN, f"tracking.uri={proxy.uri}", name)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("the store takes nothing now (") == 1
    assert "but not sent (" in done.stdout
    proxy.answer = lambda method, path: None
    assert fork_cli(f"tracking.uri={proxy.uri}", module="sync").returncode == 0
    is_complete(server, f"now{answer}")


@pytest.mark.parametrize("answer", [401, 404])
def test_a_server_that_will_take_nothing(answer: int, tmp_path: Path, proxy: Proxy, fork_cli: RunCli) -> None:
    proxy.answer = lambda method, path: answer
    done = fork_cli(*RUN, f"tracking.uri={proxy.uri}")
    assert done.returncode == 2, done.stdout
    assert f"{proxy.uri} cannot be used (" in done.stderr
    assert "try  tracking=offline" in done.stderr
    assert not list(tmp_path.rglob("journal.jsonl"))


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "http://no-such-host.invalid:5000"])
def test_no_server_at_all_is_refused_at_once(uri: str, tmp_path: Path, fork_cli: RunCli) -> None:
    done = fork_cli(*RUN, f"tracking.uri={uri}")
    assert done.returncode == 2
    assert "cannot be reached" in done.stderr
    assert "try  tracking=offline" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_on_a_server(tmp_path: Path, server: Server, fork_cli: RunCli) -> None:
    uri = f"tracking.uri=http://127.0.0.1:{server.port}"
    done = fork_cli("-m", *RUN, uri, "tracking.experiment=sweep", "seed=0,1")
    assert done.returncode == 0, done.stderr
    found = runs(server, "sweep")
    assert [run["info"]["status"] for run in found] == ["FINISHED"] * 3
    again = fork_cli("-m", *RUN, uri, "tracking.experiment=sweep", "seed=0,1", "resume=true")
    assert again.stdout.startswith("resume: 2 kept\n"), again.stdout + again.stderr
    assert len(runs(server, "sweep")) == 3


@pytest.mark.parametrize("in_address", [True, False])
def test_a_server_that_wants_a_password(
    in_address: bool, tmp_path: Path, server: Server, proxy: Proxy, fork_cli: RunCli
) -> None:
    """It gets it, and no file has it."""
    proxy.credentials = "me:seKret42"
    named = {"MLFLOW_TRACKING_USERNAME": "me", "MLFLOW_TRACKING_PASSWORD": "seKret42"}
    address = proxy.uri.replace("//", f"//{proxy.credentials}@") if in_address else proxy.uri
    command = (*RUN, f"tracking.uri={address}", f"tracking.experiment=password{in_address}")
    wrong = fork_cli(*RUN, f"tracking.uri={proxy.uri.replace('//', '//me:wRong42@')}")
    assert wrong.returncode == 2
    assert "401" in wrong.stderr
    assert "wRong42" not in wrong.stderr
    done = fork_cli(*command, **({} if in_address else named))
    assert done.returncode == 0, done.stderr
    assert "recorded as run" in done.stdout
    is_complete(server, f"password{in_address}")
    written = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert b"seKret42" not in written
    assert "seKret42" not in done.stdout + done.stderr

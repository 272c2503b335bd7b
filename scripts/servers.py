"""Records on servers that fail or have much to do: `python scripts/servers.py NAME [N]`.

    away      a server is gone for 60 s during a sweep with 4 workers
    answers   200 (or N) answers are lost after the server did what it was asked for, each tenth as it is killed
    many      16 writers deliver 200 journals at once to `make server`

Results, what is lost or there twice, go to scripts/results/, with machine and versions.
"""

import http.client
import http.server
import importlib.metadata
import json
import multiprocessing
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from experiments.tracking import journal
from experiments.tracking.delivered import Delivered
from experiments.tracking.failures import Unavailable
from experiments.tracking.provenance import hardware
from experiments.tracking.writer import Writer

HERE = Path(__file__).resolve().parent
RUN = [sys.executable, "-m", "experiments.run"]
SHORT = ["data=digits", "data.limit=300", "model.layer_sizes=[8]"]
# Adds up what the trainers spend in calls of the journal; each writes its sum as it closes it.
TIMED = """
import os, sys, time
if "experiments.run" in " ".join(sys.orig_argv) or "forkserver" in " ".join(sys.orig_argv):
    from experiments.tracking.journal import Journal
    spent = {}
    def timed(name):
        function = getattr(Journal, name)
        def call(self, *arguments, **options):
            began = time.perf_counter()
            try:
                return function(self, *arguments, **options)
            finally:
                spent[os.getpid()] = spent.get(os.getpid(), 0.0) + time.perf_counter() - began
                if arguments and arguments[0] == "closed":
                    with open(os.path.join(os.environ["SPENT"], str(os.getpid())), "w") as file:
                        file.write(str(spent[os.getpid()]))
        return call
    for name in ("append", "write"):
        setattr(Journal, name, timed(name))
"""


def main() -> None:
    """Run what the first argument names, and write down what came of it."""
    name = sys.argv[1] if len(sys.argv) > 1 else "away"
    with tempfile.TemporaryDirectory(prefix="servers") as folder:
        Path(folder).chmod(0o755)  # PostgreSQL may run as a user of its own
        found = {"away": away, "answers": answers, "many": many}[name](Path(folder))
    versions = {item: importlib.metadata.version(item) for item in ("mlflow", "sqlalchemy", "tensorflow")}
    machine = f"{hardware()['hardware.processor']}, {os.cpu_count()} cores"
    result = {"benchmark": name, "machine": machine, "versions": versions, **found}
    (HERE / "results" / f"server_{name}.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


class Server:
    """MLflow's server on a SQLite file, which can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self._folder, self.port = folder, free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [
            sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1",
            "--backend-store-uri", f"sqlite:///{self._folder / 'server.db'}",
            "--artifacts-destination", str(self._folder / "artifacts"), "--serve-artifacts",
        ]  # fmt: skip
        settings = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        self._process = subprocess.Popen(
            command, cwd=self._folder, env={**os.environ, **settings}, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        end = time.monotonic() + 120
        while time.monotonic() < end:
            with suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=2).close()
                return
            time.sleep(0.1)
        raise SystemExit("the server does not start")

    def kill(self) -> None:
        if self._process:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def __enter__(self) -> "Server":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


def free_port() -> int:
    """A port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def runs_of(uri: str) -> list[Any]:
    """All runs of a store, with the points of each metric."""
    from experiments.tracking.client import open_store

    client = open_store(uri)
    experiments = [each.experiment_id for each in client.search_experiments()]
    found, token = list[Any](), None
    while True:
        page = client.search_runs(experiments, max_results=1000, page_token=token)
        found += page
        if not (token := page.token):
            return found


def what_is_wrong(uri: str, runs: int, epochs: int) -> list[str]:
    """What a store lacks, or has twice, of so many runs with so many epochs."""
    from experiments.tracking.client import open_store

    client, wrong = open_store(uri), list[str]()
    found = [run for run in runs_of(uri) if "sweep" not in run.data.tags]
    if len(found) != runs:
        wrong.append(f"{len(found)} of {runs} runs")
    for run in found:
        run_id = run.info.run_id
        steps = [point.step for point in client.get_metric_history(run_id, "loss") if point.model_id is None]
        if sorted(steps) != list(range(epochs)):
            wrong.append(f"{run_id}: {len(steps)} of {epochs} epochs, {len(set(steps))} different ones")
        models = client.search_logged_models([run.info.experiment_id], f"source_run_id = '{run_id}'")
        if [str(model.status) for model in models] != ["READY"] or len(run.outputs.model_outputs) != 1:
            wrong.append(f"{run_id}: {len(models)} models")
        if run.info.status != "FINISHED":
            wrong.append(f"{run_id}: {run.info.status}")
        files = {item.path for item in client.list_artifacts(run_id)}
        if missing := {"config", "figures", "report.json", "environment.txt"} - files:
            wrong.append(f"{run_id}: without {missing}")
    return wrong


def away(folder: Path) -> dict[str, Any]:
    """A sweep whose server is killed, and started again a minute later."""
    runs, epochs = 8, 600
    (folder / "code").mkdir()
    (folder / "code" / "sitecustomize.py").write_text(TIMED)
    (folder / "spent").mkdir()
    path = os.pathsep.join(filter(None, (str(folder / "code"), os.environ.get("PYTHONPATH"))))
    settings = {**os.environ, "PYTHONPATH": path, "SPENT": str(folder / "spent")}
    with Server(folder) as server:
        uri = f"http://127.0.0.1:{server.port}"
        more = [f"tracking.uri={uri}", f"epochs={epochs}", f"seed=range({runs})", "hydra.launcher.workers=4"]
        sweep = subprocess.Popen([*RUN, "-m", *SHORT, *more], cwd=folder, env=settings)
        while not any("epoch" in file.read_text() for file in folder.glob("mlruns/multirun/*/*/*/run.log")):
            time.sleep(0.1)
        time.sleep(2)
        under_way = sweep.poll() is None
        server.kill()
        time.sleep(60)
        still = sweep.poll() is None
        server.start()
        status = sweep.wait()
        synced = subprocess.run(
            [sys.executable, "-m", "experiments.sync", f"tracking.uri={uri}"], cwd=folder, check=False
        )
        wrong = what_is_wrong(uri, runs, epochs)
    spent = [float(file.read_text()) for file in (folder / "spent").iterdir()]
    return {
        "runs": runs, "epochs": epochs, "workers": 4, "seconds away": 60,
        "sweep under way as the server was killed, and as it came back": [under_way, still],
        "exit status of the sweep, and of sync": [status, synced.returncode], "wrong": wrong,
        "seconds in calls of the journal, all trainers": round(sum(spent), 3), "trainers": len(spent),
    }  # fmt: skip


class Losing:
    """Hands requests to a server, and loses the answers to some calls that change something."""

    def __init__(self, server: Server, lose: Callable[[str], bool]) -> None:
        def handle(handler: http.server.BaseHTTPRequestHandler) -> None:
            body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
            try:
                connection.request(handler.command, handler.path, body, dict(handler.headers))
                answer = connection.getresponse()
                content = answer.read()
            except OSError:
                handler.close_connection = True
                return
            finally:
                connection.close()
            changes = handler.command != "GET" and "search" not in handler.path
            if changes and lose(handler.path):
                handler.close_connection = True
                return
            handler.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                    handler.send_header(name, value)
            handler.send_header("Content-Length", str(len(content)))
            handler.end_headers()
            handler.wfile.write(content)

        methods = dict.fromkeys(("do_GET", "do_POST", "do_PUT", "do_PATCH", "do_DELETE"), handle)
        quiet = {"protocol_version": "HTTP/1.1", "log_message": lambda *_: None}
        made = type("Handler", (http.server.BaseHTTPRequestHandler,), {**methods, **quiet})
        proxy = http.server.ThreadingHTTPServer(("127.0.0.1", 0), made)
        proxy.daemon_threads = True
        self.uri = f"http://127.0.0.1:{proxy.server_address[1]}"
        threading.Thread(target=proxy.serve_forever, daemon=True).start()


def answers(folder: Path) -> dict[str, Any]:
    """Deliver copies of a run again and again, until so many answers were lost."""
    wanted = int(sys.argv[2]) if len(sys.argv) > 2 else 200
    kills, epochs, chance = wanted // 10, 3, random.Random(0)  # noqa: S311
    copies = list(offline_copies(folder, wanted // 5, epochs))
    lost = Counter[str]()
    alone = threading.Lock()
    with Server(folder) as server:

        def lose(path: str) -> bool:
            with alone:
                if sum(lost.values()) >= wanted or chance.random() > 0.3:
                    return False
                kind = path.partition("?")[0]
                lost[kind.rpartition("/")[2] if "/artifacts/" not in kind else "artifacts"] += 1
                if sum(lost.values()) % (wanted // kills) == 0:
                    server.kill()
                    server.start()
                return True

        proxy, attempts, rejected = Losing(server, lose), 0, list[str]()
        writer = Writer(proxy.uri)
        for place in copies:
            state = Delivered()
            while not state.complete:
                attempts += 1
                with suppress(Unavailable):
                    state = writer.deliver(place)
            rejected += state.rejected
        wrong = what_is_wrong(f"http://127.0.0.1:{server.port}", len(copies), epochs)
    return {"journals": len(copies), "answers lost": dict(lost), "of these, by a kill": kills, "attempts": attempts,
            "rejected": rejected, "wrong": wrong}  # fmt: skip


def offline_copies(folder: Path, count: int, epochs: int) -> Iterator[Path]:
    """Train a run that is not sent, and make copies of its record, each another run, which wait to be sent."""
    subprocess.run([*RUN, *SHORT, f"epochs={epochs}", "tracking=offline"], cwd=folder, check=True, capture_output=True)
    (first,) = (folder / "mlruns" / "outputs").rglob(journal.JOURNAL)
    waiting = folder / "mlruns" / "waiting"
    own = str(journal.opening(first.parent)["uuid"])
    for number in range(count):
        uuid = journal.new_uuid()
        place = folder / "mlruns" / "copies" / str(number)
        shutil.copytree(first.parent, place)
        (place / journal.JOURNAL).write_text((place / journal.JOURNAL).read_text().replace(own, uuid))
        (waiting / uuid).write_text(str(place))
        yield place
    (waiting / own).unlink()


@contextmanager
def team_server(folder: Path) -> Iterator[dict[str, str]]:
    """`make server`; yields what names it to MLflow."""
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, HERE / "server.py", str(port)], cwd=folder, stdout=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    assert server.stdout
    if not any("PASSWORD" in line for line in server.stdout):
        raise SystemExit("make server does not start")
    try:
        yield {
            "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}",
            "MLFLOW_TRACKING_USERNAME": "admin",
            "MLFLOW_TRACKING_PASSWORD": (folder / "mlruns/server/password").read_text(),
        }
    finally:
        server.send_signal(signal.SIGINT)
        server.wait()


def many(folder: Path) -> dict[str, Any]:
    """Deliver 200 journals by 16 processes, each its share."""
    writers, journals, epochs = 16, 200, 3
    copies = list(offline_copies(folder, journals, epochs))
    with team_server(folder) as settings:
        os.environ |= settings
        os.chdir(folder)
        began = time.perf_counter()
        context = multiprocessing.get_context("spawn")
        with context.Pool(writers) as pool:
            said = pool.map(deliver, [(settings["MLFLOW_TRACKING_URI"], copies[n::writers]) for n in range(writers)], 1)
        seconds = time.perf_counter() - began
        wrong = what_is_wrong(settings["MLFLOW_TRACKING_URI"], journals, epochs)
    errors = [error for errors in said for error in errors]
    return {"writers": writers, "journals": journals, "seconds": round(seconds, 1), "errors": errors, "wrong": wrong}


def deliver(share: tuple[str, list[Path]]) -> list[str]:
    """Deliver journals; return what went wrong."""
    from experiments.tracking.client import import_what_is_used_late

    uri, folders = share
    import_what_is_used_late()
    writer, errors = Writer(uri), list[str]()
    for folder in folders:
        try:
            state = writer.deliver(folder)
            errors += [*state.rejected, *([state.trouble] if state.trouble else [])]
        except Unavailable as error:
            errors.append(str(error))
    return errors


if __name__ == "__main__":
    main()

"""A Ray cluster of two nodes on this machine, reachable from this machine only."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import psutil

from tests.sweeps.processes import wait_until

RAY = str(Path(sys.executable).with_name("ray"))
WAIT = """
import sys, time
from ray._raylet import GcsClient
while True:
    try:
        nodes = GcsClient(address=sys.argv[1]).get_all_node_info().values()
        if sum(node.state == 0 for node in nodes) == int(sys.argv[2]):
            break
    except Exception:  # there is none yet
        pass
    time.sleep(0.2)
"""


class Cluster:
    """Two nodes with a core each, in a folder of their own, which is not that of a sweep.

    Ray listens on all interfaces. So the nodes get a network namespace of their own, where only loopback is, wherever
    the system lets us make one; whoever talks to them has to be started there: `command`.

    Attributes:
        env: What `ray start` and whoever joins the cluster need in their environment. NODE tells the nodes apart.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))  # the paths of Unix sockets have to be short
        self._namespace, self._enter = _namespace()
        self._nodes: list[subprocess.Popen[bytes]] = []
        self._seen: dict[int, psutil.Process] = {}
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        self.env = {
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),  # or Ray keeps one in the home folder
            "NODE": "launcher",
        }

    @property
    def isolated(self) -> bool:
        """Whether namespaces could be made."""
        return self._namespace is not None

    def command(self, *arguments: str) -> list[str]:
        """A command where the cluster can be reached."""
        return [*self._enter, *arguments]

    def start(self) -> None:
        head = ["--head", f"--port={self.address.partition(':')[2]}", f"--temp-dir={self.folder}/ray"]
        self._start("head", *head, "--include-dashboard=false")
        self._wait_for(1)
        self._start("other", f"--address={self.address}")
        self._wait_for(2)

    def _start(self, name: str, *arguments: str) -> None:
        options = ["--num-cpus=1", "--num-gpus=0", "--object-store-memory=80000000", "--node-ip-address=127.0.0.1"]
        ports = ["--min-worker-port=0", "--max-worker-port=0", "--dashboard-agent-listen-port=0"]
        env = {**os.environ, **self.env, "NODE": name}
        command = self.command(*_dies_with_parent(), RAY, "start", *arguments, *options, *ports, "--block")
        with (self.folder / "cluster.log").open("ab") as log:
            self._nodes.append(subprocess.Popen(command, cwd=self.folder, env=env, stdout=log, stderr=log))

    def _wait_for(self, nodes: int) -> None:
        """Until there are so many: in one process, as to import Ray takes a second."""
        command = self.command(sys.executable, "-c", WAIT, self.address, str(nodes))
        with subprocess.Popen(command, env={**os.environ, **self.env}, stderr=subprocess.DEVNULL) as asking:
            try:
                wait_until(lambda: asking.poll() is not None or any(node.poll() is not None for node in self._nodes))
            finally:
                asking.kill()
        assert asking.returncode == 0, (self.folder / "cluster.log").read_text()

    def processes(self) -> list[psutil.Process]:
        """All that live; those seen before are remembered, for an orphan is nobody's child."""
        for node in self._nodes:
            with suppress(psutil.NoSuchProcess):
                own = psutil.Process(node.pid)
                self._seen |= {process.pid: process for process in (own, *own.children(recursive=True))}
        return [process for process in self._seen.values() if process.is_running()]

    def stop(self) -> list[psutil.Process]:
        """End all; return the processes that had to be killed."""
        self.processes()
        for node in reversed(self._nodes):
            node.send_signal(signal.SIGTERM)  # it then ends what it has started
        for node in self._nodes:
            with suppress(subprocess.TimeoutExpired):
                node.wait(20)
        _, left = psutil.wait_procs(self.processes(), timeout=5)
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        for node in self._nodes:
            node.wait(10)
        if self._namespace:
            self._namespace.communicate()
        shutil.rmtree(self.folder, ignore_errors=True)
        return left


def _namespace() -> "tuple[subprocess.Popen[bytes] | None, list[str]]":
    """A process in a new network namespace, and how to start others there; nothing if that is not allowed."""
    script = "ip link set lo up && echo up && exec cat"
    if not all(map(shutil.which, ("unshare", "nsenter", "ip"))):
        return None, []
    command = ["unshare", "--map-root-user", "--net", "sh", "-c", script]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout
    if process.stdout.readline() == b"up\n":
        return process, ["nsenter", f"--target={process.pid}", "--user", "--net", "--preserve-credentials"]
    process.communicate()
    return None, []


def _dies_with_parent() -> list[str]:
    """For a test process that is shot, and cannot stop anything."""
    return ["setpriv", "--pdeathsig=TERM"] if shutil.which("setpriv") else []

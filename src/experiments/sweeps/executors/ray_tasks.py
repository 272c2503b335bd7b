"""Runs jobs on the nodes of a Ray cluster, each in a process of its own, as soon as a node has room."""

import asyncio
import os
import signal
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Annotated, Any

from experiments.config import Problem, Refused, RunFailed
from experiments.config.schema import Count, NotNegative, matching
from experiments.sweeps import executors
from experiments.sweeps.executors import Ended, Epoch
from experiments.sweeps.executors.pool import GRACE, Pool, task_of
from experiments.sweeps.jobs import Job, Outcome

try:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
except ImportError as missing:  # it is no dependency: this module is imported only where it is chosen
    raise Refused(Problem("hydra/launcher", "got ray_tasks, but Ray is not installed", "make launchers")) from missing

if TYPE_CHECKING:
    from hydra_plugins.experiments_sweeps import ExecutorLauncher

# How long an answer of Ray may take, in seconds.
PATIENCE = 60.0
# Between two looks at whether a job was cancelled, in seconds: that does not wake a process that waits.
CANCELLED_SECONDS = 0.5


class Settings(executors.Settings):
    """Keys of ``hydra.launcher``; ``conf/hydra/launcher/ray_tasks.yaml`` says what they mean."""

    address: Annotated[str, matching(r"[^/\s]+:\d{1,5}", "HOST:PORT of the cluster's head, here or as RAY_ADDRESS")]
    cpus: Count = 1
    gpus: NotNegative = 0


def executor(settings: Settings, launcher: "ExecutorLauncher") -> "RayTasks":
    """The executor of a launcher."""
    return RayTasks(settings, task_of(launcher), launcher.hydra_context)


class Mailbox:
    """An actor between the launcher and the jobs: epochs go one way, answers the other."""

    def __init__(self) -> None:
        self._epochs = asyncio.Queue[tuple[Any, ...]]()
        self._answers = dict[int, asyncio.Future[bool]]()

    async def tell(self, asks: bool, job: int, *epoch: Any) -> bool:
        """Take an epoch of a job; if it asks, wait for the answer."""
        if asks:
            self._answers[job] = asyncio.get_running_loop().create_future()
        self._epochs.put_nowait((job, *epoch))
        return await self._answers[job] if asks else False

    async def take(self) -> list[tuple[Any, ...]]:
        """Wait for epochs, and hand all over that have come."""
        first = await self._epochs.get()
        return [first, *(self._epochs.get_nowait() for _ in range(self._epochs.qsize()))]

    async def answer(self, job: int, stop: bool) -> None:
        """Answer a job that waits."""
        if waiting := self._answers.pop(job, None):
            waiting.set_result(stop)


def work(task: str, job: Job, context: Any, settings: Mapping[str, Any], mailbox: Any) -> Ended:
    """Carry out a job in a process of its own.

    This process of Ray carries out many jobs one after the other; the one that they are forked from is its child, and
    so has TensorFlow imported once. Whoever kills this process ends the job.
    """
    os.chdir(settings["folder"])
    if not settings["gpus"]:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    pool = Pool(1, task, context)
    pool.threads = settings["threads"]
    try:
        pool.prepare([job])
        pool.wait_until_ready()
        pool.start(job, settings["parent"])
        while True:
            for news in pool.news(CANCELLED_SECONDS):
                if isinstance(news, Ended):
                    return news
                epoch = news.number, news.of, news.metrics
                stop = ray.get(mailbox.tell.remote(job.asks, job.number, *epoch))
                if job.asks:
                    pool.answer(job, stop)
    finally:
        pool.stop()


class RayTasks:
    """An executor.

    Args:
        settings: Of the launcher.
        task: The function that jobs call, as ``module:name``.
        context: Hydra's.
    """

    def __init__(self, settings: Settings, task: str, context: Any) -> None:
        self._settings, self._task, self._context = settings, task, context
        self.size, self.threads = 0, settings.cpus
        self._running = dict[Any, tuple[Job, float]]()

    def prepare(self, jobs: Sequence[Job]) -> None:
        """Nothing takes time that could be spent now."""

    def wait_until_ready(self) -> None:
        """Join the cluster.

        Raises:
            Refused: There is none, it is too small, or a node does not see the folder that the sweep writes into.
        """
        if ray.is_initialized():  # by an earlier batch of another package's sweeper
            return
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        address = self._settings.address
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host, int(port)), PATIENCE).close()  # Ray itself tries for minutes
            with _same_handlers():
                ray.init(address, log_to_driver=False, logging_level="ERROR")
        except Exception as error:  # of many kinds
            what = f"got {address}, where no Ray cluster can be joined: {_first_sentence(error)}"
            raise Refused(Problem("hydra.launcher.address", what)) from error
        nodes = _nodes()
        self.size = sum(map(self._room, nodes.values()))
        if not self.size:
            cpus, gpus = self._settings.cpus, self._settings.gpus
            what = f"got cpus={cpus} and gpus={gpus:g} for a run, which is more than any node of the cluster has"
            raise Refused(Problem("hydra.launcher", what, "hydra.launcher.cpus=1 hydra.launcher.gpus=0"))
        _refuse_blind([node for node, resources in nodes.items() if self._room(resources)])
        here = _on(ray.get_runtime_context().get_node_id())
        self._mailbox = ray.remote(num_cpus=0, scheduling_strategy=here)(Mailbox).remote()
        self._epochs = self._mailbox.take.remote()
        self._work = ray.remote(
            num_cpus=self._settings.cpus,
            num_gpus=self._settings.gpus,
            max_retries=0,
            scheduling_strategy="SPREAD",
        )(work)

    def _room(self, resources: Mapping[str, float]) -> int:
        """How many runs a node has resources for."""
        wanted = {"CPU": self._settings.cpus, "GPU": self._settings.gpus}
        return int(min(resources.get(name, 0) // count for name, count in wanted.items() if count))

    def has_room(self) -> bool:
        """Whether fewer runs are under way than the nodes that are up have room for."""
        return len(self._running) < max(sum(map(self._room, _nodes().values())), 1)

    def start(self, job: Job, parent: str) -> None:
        """Hand a job to the cluster."""
        own = self._settings
        settings = {"parent": parent, "threads": self.threads, "gpus": own.gpus, "folder": os.getcwd()}
        task = self._work.remote(self._task, job, self._context, settings, self._mailbox)
        self._running[task] = job, time.monotonic()

    def news(self, seconds: float | None) -> list[Epoch | Ended]:
        """Wait for epochs, and for jobs that end."""
        ready, _ = ray.wait([self._epochs, *self._running], timeout=seconds)
        news: list[Epoch | Ended] = []
        if self._epochs in ready:
            jobs = {job.number: job for job, _ in self._running.values()}
            try:
                news += [Epoch(jobs[number], *epoch) for number, *epoch in ray.get(self._epochs) if number in jobs]
            except ray.exceptions.RayError as error:
                raise RunFailed(f"Ray has lost the process that passes epochs on: {_first_sentence(error)}") from error
            self._epochs = self._mailbox.take.remote()
        return news + [self._ended(task) for task in ready if task in self._running]

    def _ended(self, task: Any) -> Ended:
        job, started = self._running.pop(task)
        try:
            ended: Ended = ray.get(task, timeout=PATIENCE)
            return replace(ended, job=job)
        except ray.exceptions.RayError as error:  # the process of Ray, or its node, is gone
            reason = f"Ray: {_first_sentence(getattr(error, 'cause', None) or error)}"
            return Ended(job, time.monotonic() - started, 0, Outcome(reason=reason), reported=False)

    def answer(self, job: Job, stop: bool) -> None:
        """Send a job the answer that it waits for."""
        self._mailbox.answer.remote(job.number, stop)

    def stop(self) -> list[Ended]:
        """Interrupt all jobs, which ends their runs as KILLED; end by force those that take too long."""
        left = list(self._running)
        for force in (False, True):
            for task in left:
                ray.cancel(task, force=force)
            _, left = ray.wait(left, num_returns=len(left), timeout=2 * GRACE) if left else ([], [])
        return [self._ended(task) for task in list(self._running)]

    def close(self) -> None:
        """Leave the cluster."""
        ray.shutdown()


@contextmanager
def _same_handlers() -> Iterator[None]:
    """Keep the handlers of signals: those that Ray sets end the process before the record is closed."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _nodes() -> dict[str, Mapping[str, float]]:
    """The resources of the nodes that are up, by their ids."""
    return {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}


def _on(node: str) -> Any:
    """The way to start something on a node."""
    return NodeAffinitySchedulingStrategy(node, soft=False)


def _refuse_blind(nodes: Sequence[str]) -> None:
    """Refuse a cluster with nodes that do not see our folder: what they write there would be lost."""
    look = ray.remote(num_cpus=0, max_retries=0)(os.path.exists)
    with NamedTemporaryFile(dir=Path.cwd(), prefix=".ray_tasks.") as file:
        seen = {node: look.options(scheduling_strategy=_on(node)).remote(file.name) for node in nodes}
        ready, _ = ray.wait(list(seen.values()), num_returns=len(seen), timeout=PATIENCE)
        blind = [node for node, looked in seen.items() if looked not in ready or not ray.get(looked)]
    if blind:
        addresses = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes()}
        names = ", ".join(addresses[node] for node in blind)
        what = (
            f"runs write into {Path.cwd()}, which these nodes do not share, or do not answer: {names}; mount it there"
        )
        raise Refused(Problem("hydra.launcher.address", what))


def _first_sentence(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].partition(". ")[0]

"""How many runs the pool starts at a time, and what it says of a worker that died. No process is started for it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import joblib
import pytest

from experiments.sweeps.executors import Ended
from experiments.sweeps.executors.pool import Pool, cause_of_death
from experiments.sweeps.jobs import Outcome
from experiments.sweeps.schedule import Schedule
from experiments.system import resources
from experiments.system.resources import available_cores, visible_gpus


@pytest.mark.parametrize(
    ("exitcode", "expected"),
    [
        (-signal.SIGKILL, "its process was killed by SIGKILL: by hand, or because memory ran out"),
        (-signal.SIGSEGV, "its process was killed by SIGSEGV"),
        (-(signal.SIGRTMIN + 3), f"its process was killed by signal {signal.SIGRTMIN + 3}"),
        (3, "its process ended with exit status 3"),
    ],
)
def test_the_cause_of_death_is_named_for_every_signal(exitcode: int, expected: str) -> None:
    assert cause_of_death(exitcode).startswith(expected)


def test_cores_are_those_that_a_container_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Joblib reads the limits of control groups and the affinity."""
    assert available_cores() <= len(os.sched_getaffinity(0))
    monkeypatch.setattr(joblib, "cpu_count", lambda: 3)
    assert available_cores() == 3


@pytest.mark.parametrize("cuda", [True, False])
def test_a_gpu_counts_only_where_tensorflow_finds_cuda(
    cuda: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With TensorFlow's build for processors, one GPU would make the sweep run one at a time."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA X (UUID: a)'\necho 'GPU 1: NVIDIA X (UUID: b)'\n")
    tool.chmod(0o755)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    packages = tmp_path / "nvidia"
    (packages / "cuda_runtime").mkdir(parents=True)
    found = SimpleNamespace(submodule_search_locations=[str(packages)]) if cuda else None
    monkeypatch.setattr(resources, "find_spec", lambda name: found)
    monkeypatch.setattr(resources, "find_library", lambda name: None)
    assert visible_gpus() == (["0", "1"] if cuda else [])
    assert Pool("auto", "task", None).size == (2 if cuda else available_cores())
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert visible_gpus() == (["1"] if cuda else [])


@pytest.fixture
def _handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("_handlers")
def test_a_second_signal_does_not_break_the_orderly_end(monkeypatch: pytest.MonkeyPatch) -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    job: Any = SimpleNamespace(number=0, fingerprint="f", config=SimpleNamespace(resume=False))
    settled: list[Ended] = []

    def interrupted(seconds: float | None) -> list[Ended]:
        raise KeyboardInterrupt

    def stop() -> list[Ended]:
        for number in (signal.SIGTERM, signal.SIGINT):
            os.kill(os.getpid(), number)
        return [Ended(job, 1.0, 1, Outcome(reason="killed"))]

    room = iter((True, False))
    executor: Any = SimpleNamespace(has_room=lambda: next(room), start=lambda *_: None, news=interrupted, stop=stop)
    proposer: Any = SimpleNamespace(next=lambda: job, follows_results=False)
    kept: Any = SimpleNamespace(outcome=lambda _: None, is_begun=lambda _: False)
    recorder: Any = SimpleNamespace(parent="", settle=lambda *_: None)
    settings: Any = SimpleNamespace(retries=0, max_failures=None)
    view: Any = SimpleNamespace(started=lambda _: None)
    schedule = Schedule(proposer, executor, recorder, kept, settings)
    monkeypatch.setattr(schedule, "_settle", lambda ended, *_: settled.append(ended))
    monkeypatch.setattr("experiments.sweeps.schedule.replace", lambda found, **_: found)
    with pytest.raises(KeyboardInterrupt):
        schedule.carry_out(view)
    assert [ended.outcome.reason for ended in settled] == ["killed"]
    assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler


def test_a_worker_writes_its_log_where_the_launcher_has_no_output(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from types import SimpleNamespace\n"
        "from experiments.sweeps.worker import redirect_output\n"
        "sys.stdout = sys.stderr = None\n"
        "redirect_output(SimpleNamespace(folder=Path('here')))\n"
        "print('é trained'); print('warned', file=sys.stderr)\n"
    )
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)
    assert (tmp_path / "here" / "run.log").read_text(encoding="utf-8") == "é trained\nwarned\n"

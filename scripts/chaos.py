"""Kill runs and sweeps with `kill -9` at random moments: `python scripts/chaos.py [moments] [seed] [victims]`.

Each time a run or a sweep is started in an empty folder, one of its processes is killed, and one further command is
given: the same with resume=true. Then every config must have finished exactly once, with all of its epochs and one
model, no run may be RUNNING, and nothing may wait to be sent. What happened goes to scripts/results/chaos.json.
"""

import importlib.metadata
import json
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from pathlib import Path

import psutil

RUNS, EPOCHS = 4, 40
RUN = ["data=digits", f"epochs={EPOCHS}", "model.layer_sizes=[16]", "runtime.xla=false", "resume=true"]
SWEEP = ["-m", *RUN, f"seed=range({RUNS})", "hydra.launcher.workers=2"]


def is_worker(process: psutil.Process) -> bool:
    """Whether a process writes the log of a run of a sweep."""
    with suppress(OSError):  # it is gone
        return os.readlink(f"/proc/{process.pid}/fd/1").endswith("/run.log")
    return False


def is_writer(process: psutil.Process) -> bool:
    """Whether it is the writer process."""
    return "experiments.tracking.process" in process.cmdline()


def is_server(process: psutil.Process) -> bool:
    """Whether it is the process that workers are forked from."""
    return "forkserver" in " ".join(process.cmdline()) and not is_worker(process)


def is_first(process: psutil.Process) -> bool:
    """Whether it is the command itself."""
    return "experiments.run" in process.cmdline()


Kind = Callable[[psutil.Process], bool]
VICTIMS: Mapping[str, tuple[list[str], tuple[Kind, ...]]] = {
    "trainer": (RUN, (is_first,)),
    "writer": (RUN, (is_writer,)),
    "both": (RUN, (is_first, is_writer)),
    "launcher": (SWEEP, (is_first,)),
    "worker": (SWEEP, (is_worker,)),
    "server": (SWEEP, (is_server,)),
    "writer of a sweep": (SWEEP, (is_writer,)),
}


def main() -> None:
    """Kill and resume as often as the first argument says, for each victim, and write down what came of it."""
    moments = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    chance = random.Random(seed := int(sys.argv[2]) if len(sys.argv) > 2 else 0)  # noqa: S311
    victims = sys.argv[3].split(",") if len(sys.argv) > 3 else list(VICTIMS)
    events = []
    versions = {name: importlib.metadata.version(name) for name in ("mlflow", "tensorflow", "hydra-core")}
    for moment in range(moments):
        for victim in victims:
            with tempfile.TemporaryDirectory() as folder:
                events.append(kill_and_resume(Path(folder), victim, chance))
            print(json.dumps(events[-1]), flush=True)
        good = sum(bool(event["right"]) for event in events)
        result = {"moments": moment + 1, "right": good, "of": len(events), "seed": seed, "versions": versions}
        file = Path(__file__).parent / "results" / "chaos.json"
        file.write_text(json.dumps({**result, "events": events}, indent=1) + "\n")
    sys.exit(f"{len(events) - good} of {len(events)} went wrong" if good < len(events) else None)


def start(folder: Path, arguments: list[str]) -> "subprocess.Popen[bytes]":
    """Start a command."""
    with (folder / "output.txt").open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "experiments.run", *arguments], cwd=folder, stdout=output, stderr=output
        )


def kill_and_resume(folder: Path, victim: str, chance: random.Random) -> dict[str, object]:
    """Kill processes of a command at some moment, give it again, and look at the record."""
    arguments, kinds = VICTIMS[victim]
    command = start(folder, arguments)
    began, moment = time.monotonic(), chance.uniform(0.5, 16 if arguments is RUN else 22)
    own = psutil.Process(command.pid)
    members = [own]
    while command.poll() is None and time.monotonic() - began < moment:
        time.sleep(0.05)
    with suppress(psutil.NoSuchProcess):
        members += own.children(recursive=True)
    killed = 0
    for member in members:
        with suppress(psutil.NoSuchProcess):
            if any(kind(member) for kind in kinds):
                member.kill()
                killed += 1
    command.wait()
    _, left = psutil.wait_procs(members, timeout=90)
    before = statuses(folder)
    again = start(folder, arguments).wait()
    after = statuses(folder)
    runs = RUNS if arguments is SWEEP else 1
    right = again == 0 and is_complete(folder, runs) and not left
    return {
        "victim": victim,
        "second": round(moment, 1),
        "killed": killed,
        "before": before,
        "after": after,
        "right": right,
        **({} if right else {"output": (folder / "output.txt").read_text().splitlines(), "left": len(left)}),
    }


def query(folder: Path, statement: str) -> list[tuple[object, ...]]:
    """Read from the store; nothing, if there is none yet."""
    with suppress(sqlite3.OperationalError), closing(_store(folder)) as connection:
        return connection.execute(statement).fetchall()
    return []


def _store(folder: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{folder}/mlruns/mlflow.db?mode=rw", uri=True, timeout=60)


def statuses(folder: Path) -> dict[str, int]:
    """How many runs have each status, sweeps included."""
    return dict(Counter(str(row[0]) for row in query(folder, "SELECT status FROM runs")))


def is_complete(folder: Path, runs: int) -> bool:
    """Whether so many configs have finished, each once, and nothing is lost, there twice, or left."""
    finished = query(
        folder,
        "SELECT f.value, count(*), (SELECT count(*) FROM metrics m WHERE m.run_uuid = r.run_uuid AND m.key = 'loss'), "
        "(SELECT count(*) FROM logged_models l WHERE l.source_run_id = r.run_uuid) FROM runs r JOIN tags f "
        "ON f.run_uuid = r.run_uuid AND f.key = 'fingerprint' WHERE r.status = 'FINISHED' GROUP BY 1",
    )
    waiting = list((folder / "mlruns").glob("waiting/*"))
    whole = [row[1:] for row in finished] == [(1, EPOCHS, 1)] * runs
    return whole and not waiting and "RUNNING" not in statuses(folder)


if __name__ == "__main__":
    main()

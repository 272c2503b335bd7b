"""Kill sweeps with `kill -9` at random moments and resume them: `python scripts/chaos.py [moments] [seed]`.

Each time a new sweep is started in an empty folder, its launcher or one of its workers is shot, and the same command is
given again with resume=true. Then every config must have finished exactly once, and no run may be RUNNING. What
happened goes to scripts/results/chaos.json.
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
from contextlib import closing
from pathlib import Path

import psutil

RUNS = 6
SWEEP = ["data=digits", "data.limit=300", "epochs=5", "model.layer_sizes=[8]", f"seed=range({RUNS})"]


def main() -> None:
    """Shoot and resume as often as the first argument says, and write down what came of it."""
    moments = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    chance = random.Random(seed := int(sys.argv[2]) if len(sys.argv) > 2 else 0)  # noqa: S311
    events = []
    for number in range(moments):
        victim = "launcher" if number % 2 == 0 else "worker"
        with tempfile.TemporaryDirectory() as folder:
            events.append(shoot_and_resume(Path(folder), victim, chance))
        print(f"{number + 1:3}/{moments}  {json.dumps(events[-1])}", flush=True)
    good = sum(bool(event["right"]) for event in events)
    versions = {name: importlib.metadata.version(name) for name in ("mlflow", "tensorflow", "hydra-core")}
    result = {"moments": moments, "right": good, "seed": seed, "runs": RUNS, "versions": versions, "events": events}
    (Path(__file__).parent / "results" / "chaos.json").write_text(json.dumps(result, indent=1) + "\n")
    sys.exit(f"{moments - good} of {moments} went wrong" if good < moments else None)


def start(folder: Path) -> "subprocess.Popen[bytes]":
    """Start the sweep; the first time there is nothing to resume."""
    command = [sys.executable, "-m", "experiments.run", "-m", *SWEEP, "resume=true"]
    with (folder / "output.txt").open("ab") as output:
        return subprocess.Popen(command, cwd=folder, stdout=output, stderr=output)


def shoot_and_resume(folder: Path, victim: str, chance: random.Random) -> dict[str, object]:
    """Shoot a process of a sweep at some moment, resume the sweep, and look at the record."""
    began, sweep = time.monotonic(), start(folder)
    launcher, workers = psutil.Process(sweep.pid), list[psutil.Process]()
    enough, further = chance.randrange(RUNS), chance.uniform(0, 2)
    while sweep.poll() is None and statuses(folder)["all"]["FINISHED"] < enough:
        time.sleep(0.1)
    time.sleep(further)
    while sweep.poll() is None and victim == "worker" and not workers:
        workers = [member for member in launcher.children(recursive=True) if is_worker(member)]
    moment = time.monotonic() - began
    members = launcher.children(recursive=True) if sweep.poll() is None else []
    if sweep.poll() is None:
        (launcher if victim == "launcher" else chance.choice(workers)).kill()
    sweep.wait()
    psutil.wait_procs(members, timeout=60)
    orphans = [member.pid for member in members if member.is_running()]
    before = statuses(folder)
    again = start(folder).wait()
    after = statuses(folder)
    finished = list(after["finished"].values())
    right = again == 0 and finished == [1] * RUNS and not after["all"]["RUNNING"] and not orphans
    output = (folder / "output.txt").read_text().splitlines()
    return {
        "victim": victim,
        "second": round(moment, 1),
        "before": dict(before["all"]),
        "after": dict(after["all"]),
        "told": [line for line in output if line.startswith("resume:")][-1:],
        "orphans": orphans,
        "right": right,
        **({} if right else {"output": output}),
    }


def is_worker(process: psutil.Process) -> bool:
    """Whether a process writes the log of a run."""
    try:
        return os.readlink(f"/proc/{process.pid}/fd/1").endswith("/run.log")
    except OSError:  # it is gone
        return False


def statuses(folder: Path) -> dict[str, Counter[str]]:
    """How many runs have each status, and how often each fingerprint has finished."""
    file = folder / "mlruns" / "mlflow.db"
    if not file.exists():
        return {"all": Counter(), "finished": Counter()}
    query = (
        "SELECT f.value, r.status FROM runs r JOIN tags p ON p.run_uuid = r.run_uuid AND p.key = 'mlflow.parentRunId' "
        "LEFT JOIN tags f ON f.run_uuid = r.run_uuid AND f.key = 'fingerprint'"
    )
    with closing(sqlite3.connect(file, timeout=60)) as connection:
        runs = connection.execute(query).fetchall()
    return {
        "all": Counter(status for _, status in runs),
        "finished": Counter(fingerprint for fingerprint, status in runs if status == "FINISHED"),
    }


if __name__ == "__main__":
    main()

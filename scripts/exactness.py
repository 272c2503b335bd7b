"""Hold resumed and reproduced runs against the ones that they should equal, to the last bit.

    python scripts/exactness.py resume [count] [seed]      shoot runs at random moments and resume them
    python scripts/exactness.py reproduce                  train varied runs again

What happened goes to scripts/results/.
"""

import importlib.metadata
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmark import machine

EPOCHS = 8
DIGITS = ["data=digits", f"epochs={EPOCHS}", "batch_size=16", "data.validation_size=0.2"]
RESUMED = [
    [*DIGITS, "model.layer_sizes=[600]", "model.dropout=0.2", "optimizer=adam"],
    [*DIGITS, "model.layer_sizes=[600,300]", "optimizer=sgd", "optimizer/schedule=cosine", "optimizer.momentum=0.9"],
    [*DIGITS, "model.batch_normalization=true", "callbacks=[early_stopping,reduce_lr_on_plateau,csv_log]"],
    [*DIGITS, "optimizer=adamw", "optimizer.use_ema=true", "callbacks=swap_ema_weights", "precision=mixed_bfloat16"],
    ["data.limit=5000", f"epochs={EPOCHS}", "model=convnet", "batch_size=64"],
]
REPRODUCED = [
    *RESUMED,
    *([*DIGITS, f"optimizer={name}"] for name in ("rmsprop", "adam", "lion", "muon", "nadam", "schedule_free_adamw")),
    *([*DIGITS, f"loss={name}"] for name in ("categorical_crossentropy", "mean_squared_error", "categorical_hinge")),
    [*DIGITS, "runtime.xla=true"],
    [*DIGITS, "runtime.threads=1", "seed=7"],
    [*DIGITS, "precision=mixed_float16"],
    ["data.limit=3000", "model=lenet5", "epochs=3"],
    ["epochs=2"],
    [],
]
TIMINGS = ("fit_seconds", "seconds_per_epoch", "samples_per_second")


def main() -> None:
    """Do what the first argument says."""
    name = sys.argv[1]
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else 0
    cases = resume(int(sys.argv[2]) if len(sys.argv) > 2 else 50, seed) if name == "resume" else reproduce()
    good = sum(bool(case["identical"]) for case in cases)
    versions = {item: importlib.metadata.version(item) for item in ("tensorflow", "keras", "mlflow", "numpy")}
    result = {"runs": len(cases), "identical": good, "seed": seed, "machine": machine(), "versions": versions}
    (Path(__file__).parent / "results" / f"{name}.json").write_text(
        json.dumps(result | {"cases": cases}, indent=1) + "\n"
    )
    sys.exit(f"{len(cases) - good} of {len(cases)} differ" if good < len(cases) else None)


def resume(count: int, seed: int) -> list[dict[str, Any]]:
    """Shoot each run once, some time after some epoch, and hold what came of it against one in peace."""
    chance, cases = random.Random(seed), list[dict[str, Any]]()  # noqa: S311
    expected = [in_folder(in_peace, arguments) for arguments in RESUMED]
    for number in range(count):
        which = number % len(RESUMED)
        whole, (seconds, outcome) = number % 2 == 0, expected[which]
        epochs = chance.randrange(EPOCHS)
        further = chance.uniform(0, 0.3) if epochs else chance.uniform(0, seconds / 2)  # also while it starts
        case = in_folder(lambda folder, args: shot(folder, args, epochs, further, whole), RESUMED[which])  # noqa: B023
        found = case.pop("outcome")
        cases.append({**case, "identical": found == outcome and case["runs"] == ["FINISHED"]})
        print(f"{number + 1:3}/{count}  {json.dumps(cases[-1])}", flush=True)
    return cases


def in_folder(measure: Callable[[Path, list[str]], Any], arguments: list[str]) -> Any:
    """Call a function with an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        return measure(Path(folder), arguments)


def in_peace(folder: Path, arguments: list[str]) -> tuple[float, Any]:
    """Seconds and outcome of a run that nobody shoots."""
    began = time.monotonic()
    assert start(folder, arguments).wait() == 0
    return time.monotonic() - began, outcome_of(folder)


def shot(folder: Path, arguments: list[str], epochs: int, further: float, whole: bool) -> dict[str, Any]:
    """Shoot a run some seconds after some epochs, alone or with the process that keeps its record, and resume it."""
    process = start(folder, arguments)
    while process.poll() is None and (folder / "output.txt").read_text().count("epoch ") < epochs:
        time.sleep(0.01)
    time.sleep(further)
    (os.killpg if whole else os.kill)(process.pid, signal.SIGKILL)
    process.wait()
    status = start(folder, [*arguments, "resume=true"]).wait()
    told = [line for line in (folder / "output.txt").read_text().splitlines() if line.startswith("resume:")]
    return {
        "arguments": " ".join(arguments),
        "after epochs": epochs,
        "and seconds": round(further, 2),
        "shot": "all processes" if whole else "the trainer",
        "told": told[0].rpartition(": run")[0] if told else "began anew",
        "exit status": status,
        "runs": [value for (value,) in query(folder, "SELECT status FROM runs")],
        "outcome": outcome_of(folder),
    }


def start(folder: Path, arguments: list[str]) -> "subprocess.Popen[bytes]":
    """Start a run as the leader of a group of processes."""
    command = [sys.executable, "-m", "experiments.run", *arguments]
    with (folder / "output.txt").open("ab") as output:
        return subprocess.Popen(command, cwd=folder, stdout=output, stderr=output, start_new_session=True)


def outcome_of(folder: Path) -> Any:
    """Every point of every metric but the timings, and the digest of the weights."""
    points = query(folder, f"SELECT key, step, value FROM metrics WHERE key NOT IN {TIMINGS} ORDER BY key, step")  # noqa: S608
    return points, query(folder, "SELECT value FROM tags WHERE key = 'weights.digest'")


def query(folder: Path, statement: str) -> list[Any]:
    """Ask a store."""
    file = folder / "mlruns" / "mlflow.db"
    if not file.exists():
        return []
    with closing(sqlite3.connect(file, timeout=60)) as connection:
        return connection.execute(statement).fetchall()


def reproduce() -> list[dict[str, Any]]:
    """Train runs of all kinds, and each of them again."""
    cases = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for number, arguments in enumerate(REPRODUCED, start=1):
            assert start(folder, arguments).wait() == 0, (folder / "output.txt").read_text()
            command = [sys.executable, "-m", "experiments.reproduce", "run=latest"]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
            told = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()[-1]
            cases.append({"arguments": " ".join(arguments), "told": told, "identical": done.returncode == 0})
            print(f"{number:3}/{len(REPRODUCED)}  {json.dumps(cases[-1])}", flush=True)
    return cases


if __name__ == "__main__":
    main()

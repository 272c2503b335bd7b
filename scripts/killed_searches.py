"""Kill searches with `kill -9` at random moments, and resume them: `python scripts/killed_searches.py KIND [moments]`.

KIND is `one` or `two`, the number of workers, or `ray`. Each time a search is started in an empty folder, its command
is killed at a random moment, and the same command goes on with resume=true. Then each trial must have one finished run
and no run may be RUNNING; with one worker, all trials must equal those of a search that was not killed. What happened
goes to scripts/results/killed_searches_KIND.json.
"""

import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
from benchmark import machine
from chaos import query, start, statuses

TRIALS = 10
SEARCH = ["-m", "hydra/sweeper=optuna", f"hydra.sweeper.n_trials={TRIALS}", "optimizer=adam,sgd"]
SEARCH += ["optimizer.learning_rate=tag(log,interval(1e-4,1))", "data=digits", "data.limit=600", "epochs=5"]
SEARCH += ["data.validation_size=0.25", "model.layer_sizes=[16]"]
KINDS = {
    "one": ["hydra.launcher.workers=1"],
    "two": ["hydra.launcher.workers=2"],
    "ray": ["hydra/launcher=ray_tasks"],
}


def main() -> None:
    """Kill and resume as often as the second argument says, and write down what came of it."""
    kind, moments = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 20
    chance, command = random.Random(0), [*SEARCH, *KINDS[kind]]  # noqa: S311
    began = time.monotonic()
    whole = trials_after(command, [])
    seconds = time.monotonic() - began
    events = []
    for _ in range(moments):
        moment = round(chance.uniform(0.5, seconds), 1)
        found = trials_after(command, [moment])
        right = found["complete"] and (kind != "one" or found["trials"] == whole["trials"])
        events.append({"second": moment, "killed with": found["killed with"], "right": right})
        print(json.dumps(events[-1] | ({} if right else found)), flush=True)
    good = sum(event["right"] for event in events)
    result = {"kind": kind, "right": good, "of": moments, "seconds without": round(seconds, 1), "machine": machine()}
    file = Path(__file__).parent / "results" / f"killed_searches_{kind}.json"
    file.write_text(json.dumps(result | {"events": events}, indent=1) + "\n")
    sys.exit(f"{moments - good} of {moments} went wrong" if good < moments else None)


def trials_after(command: Sequence[str], kills: Sequence[float]) -> dict[str, Any]:
    """Carry out a search that is killed after so many seconds, and resumed.

    Returns:
        Its trials; whether each has one finished run, and nothing is left or waits; how many runs there were when it
        was killed.
    """
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    before = []
    for second in kills:
        process = start(folder, [*command, "resume=true"])
        try:
            process.wait(second)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        before.append(statuses(folder))
    status = start(folder, [*command, "resume=true"]).wait()
    of_trials = (
        "SELECT t.value FROM runs r JOIN tags t USING (run_uuid) WHERE t.key = 'trial' AND r.status = 'FINISHED'"
    )
    finished = sorted(int(str(number)) for [number] in query(folder, of_trials))
    studies = list(folder.glob("mlruns/multirun/*/*/study.sqlite"))
    trials = optuna.load_study(study_name="search", storage=f"sqlite:///{studies[0]}").trials if studies else []
    is_complete = len(studies) == 1 and finished == list(range(TRIALS)) == [each.number for each in trials]
    is_complete &= status == 0 and "RUNNING" not in statuses(folder) and not list(folder.glob("mlruns/waiting/*"))
    facts = [[each.number, each.state.name, each.params, each.values, each.intermediate_values] for each in trials]
    found = {"trials": facts, "complete": is_complete, "killed with": before, "output": ""}
    if not is_complete:
        found["output"] = (folder / "output.txt").read_text()
    shutil.rmtree(folder)
    return found


if __name__ == "__main__":
    main()

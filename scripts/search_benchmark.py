"""Measure what searches find, and what they cost: `python scripts/search_benchmark.py METHODS [SEEDS]`.

METHODS are samplers and pruners with commas between them, as `tpe+median,random+off`, or `grid`, or `keras_tuner`. Each
search has a folder and a store of its own, one worker, and 40 trials of 10 epochs on MNIST with 10,000 validation
images. KerasTuner's Hyperband runs beside TPE with successive halving, each on a core of its own, until that one ends.
Results are added to `scripts/results/search.json`; `--table` prints what is there, `--figure FILE` draws it.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import psutil
from benchmark import machine
from matplotlib.figure import Figure
from optuna.trial import TrialState

FILE = Path(__file__).resolve().parent / "results" / "search.json"
VERSIONS = ("tensorflow", "keras", "optuna", "numpy")
DEFAULT, BESIDE = "tpe+percentile", "tpe+successive_halving"
EPOCHS = 10
# Random search is given about as many epochs as a search spends that stops trials early.
TRIALS = {"tpe": 40, "random": 20}
COMMON = [f"epochs={EPOCHS}", "batch_size=1024", "data.validation_size=10000", "hydra.launcher.workers=1"]
COMMON += ["runtime.threads=1"]
SPACE = [
    "optimizer=choice(adam,rmsprop,sgd)",
    "optimizer.learning_rate=tag(log,interval(1e-4,1))",
    "model.layer_sizes=choice([64],[128],[256],[128,64],[256,128])",
    "model.dropout=interval(0,0.5)",
]
GRID = [
    "optimizer=adam,rmsprop,sgd",
    "optimizer.learning_rate=1e-4,1e-3,1e-2,1e-1,1",
    "model.layer_sizes=[128],[256,128]",
    "model.dropout=0,0.25",
]
# Of the random order in which a grid is tried: what it has found after so many epochs is a mean over orders.
ORDERS = 200


def main() -> None:
    """Carry out the searches that are named, and those only that have no result yet."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("methods", nargs="?", default="")
    parser.add_argument("seeds", nargs="?", default="0,1,2,3,4")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--figure", type=Path)
    arguments = parser.parse_args()
    for seed in map(int, arguments.seeds.split(",")):
        for method in filter(None, arguments.methods.split(",")):
            if not any((each["method"], each["seed"]) == (method, seed) for each in read()["searches"]):
                add(carry_out(method, seed))
    if arguments.table:
        table(read()["searches"])
    if arguments.figure:
        figure(read()["searches"], arguments.figure)


def read() -> dict[str, Any]:
    """The results so far."""
    found: dict[str, Any] = json.loads(FILE.read_text()) if FILE.is_file() else {"searches": []}
    return found


def add(result: dict[str, Any]) -> None:
    """Add the result of a search to the file."""
    versions = {item: importlib.metadata.version(item) for item in VERSIONS} | {"python": platform.python_version()}
    searches = sorted([*read()["searches"], result], key=lambda each: (each["method"], each["seed"]))
    head = {"machine": machine(), "versions": versions, "space": SPACE, "grid": GRID, "common": COMMON}
    lines = ",\n  ".join(map(json.dumps, searches))
    FILE.write_text(f'{json.dumps(head, indent=1)[:-2]},\n "searches": [\n  {lines}\n ]\n}}\n')
    print(
        result["method"],
        result["seed"],
        f"{result['best']:.4f}",
        result["epochs"],
        f"{result['seconds']:.0f} s",
        flush=True,
    )


def carry_out(method: str, seed: int) -> dict[str, Any]:
    """Run a search in a folder of its own.

    Returns:
        Best validation accuracy, epochs trained, seconds of the command, seconds between the end of a trial and the
        start of the next one (mean, without the first trial), and for each trial its epochs and value.
    """
    if method == "keras_tuner":
        return _beside_a_search(seed)
    return _search(method, seed)


def _search(method: str, seed: int, core: int | None = None) -> dict[str, Any]:
    common = [*COMMON, f"seed={seed}"]
    if method == "grid":
        command = [*GRID, *common]
    else:
        sampler, pruner = method.split("+")
        chosen = ["hydra/sweeper=optuna", f"hydra/sweeper/sampler={sampler}", f"hydra/sweeper/pruner={pruner}"]
        command = [*chosen, f"hydra.sweeper.n_trials={TRIALS[sampler]}", f"hydra.sweeper.seed={seed}", *SPACE, *common]
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        command, environment = ["-m", "experiments.run", "-m", *command], {**os.environ, "COLUMNS": "200"}
        process = _started(command, core, cwd=folder, env=environment, stdout=subprocess.PIPE)
        output, _ = process.communicate()
        seconds = time.monotonic() - began
        if process.returncode not in (0, 1):  # 1: a learning rate of 1 makes some losses NaN
            raise SystemExit(output)
        files = list(Path(folder).glob("mlruns/multirun/*/*/study.sqlite"))
        trials = _of_study(files[0]) if files else _of_output(output)
        idle = _idle(files[0], output) if files else None
    best = max(value for _, value in trials if value is not None)
    return {
        "method": method,
        "seed": seed,
        "best": best,
        "epochs": sum(epochs for epochs, _ in trials),
        "seconds": round(seconds, 1),
        "idle": idle,
        "trials": trials,
    }


def _started(arguments: Sequence[str], core: int | None, **keywords: Any) -> "subprocess.Popen[str]":
    """Start Python, on one core if it is given."""
    process = subprocess.Popen([sys.executable, *arguments], stderr=subprocess.STDOUT, text=True, **keywords)
    if core is not None:
        psutil.Process(process.pid).cpu_affinity([core])
    return process


def _beside_a_search(seed: int) -> dict[str, Any]:
    """What KerasTuner's Hyperband has found when a search beside it ends."""
    first, second, *_ = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryFile("w+") as output:
        script = Path(__file__).with_name("keras_tuner_search.py")
        tuner = _started([str(script), str(seed)], first, stdout=output)
        beside = _search(BESIDE, seed, second)
        tuner.terminate()
        tuner.wait()
        output.seek(0)
        *_, last = (json.loads(line) for line in output if line.startswith("{"))
    return {"method": "keras_tuner", "seed": seed, **last, "seconds": beside["seconds"], "beside": beside, "trials": []}


Trials = list[tuple[int, float | None]]
"""Of each trial, its epochs, and its value if it was trained to the end."""


def _of_study(file: Path) -> Trials:
    study = optuna.load_study(study_name="search", storage=f"sqlite:///{file}")
    trials: Trials = []
    for trial in study.trials:
        value = trial.value if trial.state == TrialState.COMPLETE else None
        stopped = trial.user_attrs.get("pruned")
        trials.append((stopped or (0 if trial.state == TrialState.FAIL else EPOCHS), value))
    return trials


def _idle(file: Path, output: str) -> float:
    study = optuna.load_study(study_name="search", storage=f"sqlite:///{file}")
    ends = sorted(trial.datetime_complete for trial in study.trials if trial.datetime_complete)
    busy = [float(seconds) for seconds in re.findall(r"^\[ *\d+/\d+\] +([\d.]+) s", output, re.MULTILINE)]
    return round(((ends[-1] - ends[0]).total_seconds() - sum(busy[1:])) / (len(ends) - 1), 3)


def _of_output(text: str) -> Trials:
    found = re.findall(r"^\[.*\] .* s  val_accuracy (\S+)", text, re.MULTILINE)
    return [(EPOCHS, float(value)) for value in found]


def table(searches: Sequence[dict[str, Any]]) -> None:
    """Print, by method, the epochs and the best accuracy: mean, and spread over seeds."""
    by_method = defaultdict[str, list[dict[str, Any]]](list)
    for each in searches:
        by_method[each["method"]].append(each)
    whole = statistics.fmean(each["epochs"] for each in by_method.get("tpe+off", searches))
    for method, found in by_method.items():
        best, epochs = [each["best"] for each in found], [each["epochs"] for each in found]
        share = statistics.fmean(epochs) / whole
        print(
            f"{method:26} {len(found)} seeds  best {statistics.fmean(best):.4f} ({min(best):.4f} to {max(best):.4f})"
            f"  epochs {statistics.fmean(epochs):5.0f} ({min(epochs)} to {max(epochs)})  {share:.2f} of tpe+off"
        )


def best_after(trials: Trials, epochs: int) -> float:
    """The best value of the trials that had ended after so many epochs; NaN: none had."""
    ends = accumulate(each for each, _ in trials)
    values = [value for end, (_, value) in zip(ends, trials, strict=True) if end <= epochs and value is not None]
    return max(values, default=float("nan"))


def figure(searches: Sequence[dict[str, Any]], file: Path) -> None:
    """Draw the best accuracy against the epochs spent: means over seeds, and of a grid over orders of its runs."""
    order = np.random.default_rng(0)
    shown = {"grid": "grid, in random order", "random+off": "random search", DEFAULT: "search, with early stops"}
    drawn = Figure(figsize=(7, 3.6), layout="constrained")
    axes = drawn.subplots()
    for method, label in shown.items():
        found = [each["trials"] for each in searches if each["method"] == method]
        if method == "grid":
            found = [[found[0][place] for place in order.permutation(len(found[0]))] for _ in range(ORDERS)]
        longest = max(sum(spent for spent, _ in trials) for trials in found)
        epochs = np.arange(EPOCHS, longest + 1)
        best = 100 * np.mean([[best_after(trials, int(spent)) for spent in epochs] for trials in found], axis=0)
        [line] = axes.plot(epochs, best, label=label)  # one that has ended keeps its best
        axes.plot(epochs[-1], best[-1], "o", color=line.get_color())
        where = (epochs[-1], best[-1])
        axes.annotate(f"{best[-1]:.2f} %", where, (0, 6), textcoords="offset points", ha="center", va="bottom")
    axes.set(xlabel="epochs spent", ylabel="best validation accuracy, %", ylim=(96.5, 98), xlim=(0, None))
    axes.legend(frameon=False, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)
    drawn.savefig(file, dpi=110)


if __name__ == "__main__":
    main()

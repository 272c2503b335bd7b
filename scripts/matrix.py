"""Train every pair of choices on scikit-learn's digits, and check each record: `python scripts/matrix.py [SEED]`.

Each run has a choice of every group, and each pair of choices that may be made together is in some run. What is
recorded is checked by `matrices/oracle.py`, which shares no code with the project; `predict` has to agree with it; and
one run in ten is killed and resumed, and has to equal its twin. `--count N` takes N of the rows, `--only N` one.
"""

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from glob import glob
from pathlib import Path
from random import Random

import numpy as np
from forks import become, forked, import_everything
from matrices.choices import EPOCHS, Row, pairs, pairs_of, rows
from matrices.oracle import TIES, Recorded, differences, problems, recorded_metrics

TRAINED, TESTED = 240, 160  # images
RESUMED = 10  # one run in so many is killed and resumed
PATIENCE = 300.0  # seconds that one command may take


def main() -> None:
    """Run the rows, and say which went wrong; exit status 1 if any did."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("seed", type=int, nargs="?", default=0)
    parser.add_argument("--count", type=int, help="so many rows, drawn by the seed; else all")
    parser.add_argument("--only", type=int, help="only this row; its folder is kept")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="runs at a time")
    arguments = parser.parse_args()
    everything = list(enumerate(rows(arguments.seed)))
    chosen = everything if arguments.count is None else drawn(everything, arguments)
    if arguments.only is not None:
        chosen = [everything[arguments.only]]
    covered = set().union(*(pairs_of(row._asdict()) for _, row in chosen))
    print(f"{len(chosen)} runs with {len(covered & pairs().keys())} of {len(pairs())} pairs of choices", flush=True)
    began, failed = time.monotonic(), 0
    for number, row, wrong in carry_out(chosen, arguments.jobs, keep=arguments.only is not None):
        if wrong:
            failed += 1
            print(f"row {number}: {row}", *(f"  wrong: {what}" for what in wrong), sep="\n")
            print(f"  repeat: python scripts/matrix.py {arguments.seed} --only {number}", flush=True)
    print(f"{len(chosen)} runs in {time.monotonic() - began:.0f} s; {failed} went wrong")
    sys.exit(1 if failed else 0)


def drawn(everything: Sequence[tuple[int, Row]], arguments: argparse.Namespace) -> list[tuple[int, Row]]:
    """Draw so many rows."""
    return Random(arguments.seed).sample(everything, arguments.count)  # noqa: S311 - for no secret


def carry_out(chosen: Sequence[tuple[int, Row]], jobs: int, keep: bool = False) -> Iterator[tuple[int, Row, list[str]]]:
    """Run rows, so many at a time; give back what is wrong with each when it has ended."""
    folder = Path(tempfile.mkdtemp(prefix="matrix-"))
    import_everything()
    write_data(folder)
    waiting, running = list(chosen), dict[int, tuple[int, Row]]()
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                number, row = waiting.pop(0)
                running[forked(check, row, number, folder)] = number, row
            pid, status = os.wait()
            number, row = running.pop(pid)
            place = folder / str(number)
            found = json.loads((place / "wrong.json").read_text()) if status == 0 else [f"the check failed: {status}"]
            yield number, row, found
            if keep:
                print(f"  folder: {place}")
            else:
                shutil.rmtree(place)
    finally:
        if not keep:
            shutil.rmtree(folder)


def write_data(folder: Path) -> None:
    """Write digits as arrays of one's own: as they are (8 x 8), and three times as large, for convolutions."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    order = np.random.default_rng(0).permutation(len(bunch.target))
    train, test = order[:TRAINED], order[TRAINED : TRAINED + TESTED]
    for name, times in (("small", 1), ("large", 3)):
        images = bunch.images.repeat(times, axis=1).repeat(times, axis=2).astype(np.uint8)
        parts = {"train": train, "test": test}
        arrays = {f"x_{part}": images[rows] for part, rows in parts.items()}
        arrays |= {f"y_{part}": bunch.target[rows] for part, rows in parts.items()}
        np.savez(folder / f"{name}.npz", **arrays)


def check(row: Row, number: int, folder: Path) -> None:
    """Run a row, and write down what is wrong with it."""
    place = folder / str(number)
    place.mkdir()
    data = folder / f"{row.model.keras['images']}.npz"
    words = ["data=npz", f"data.path={data}", "data.scale=16", f"epochs={EPOCHS}", "runtime.threads=1", *row.overrides]
    wrong: list[str] = []
    try:
        wrong += _run(row, place / "whole", words, data)
        if not wrong and number % RESUMED == 0:
            wrong += _resumed(place, words)
    except Exception:
        wrong.append(traceback.format_exc())
    (place / "wrong.json").write_text(json.dumps(wrong))


def _run(row: Row, folder: Path, words: Sequence[str], data: Path) -> list[str]:
    status, output = command("run", folder, words)
    if status:
        return [f"exit status {status}: {output[-1500:]}"]
    wrong = in_fork(lambda: list(problems(row, folder / "mlruns/mlflow.db", data)))
    return wrong or _predicted(row, folder, data)


def _predicted(row: Row, folder: Path, data: Path) -> list[str]:
    """What `predict` says has to be what the record says."""
    status, output = command("predict", folder, ["run=latest", f"test=0:{TESTED}", "format=json"])
    if status:
        return [f"predict: exit status {status}: {output[-1500:]}"]
    said = json.loads(output[output.index("{") :])
    with np.load(data) as arrays:
        right = np.mean([each["guess"] for each in said["predictions"]] == arrays["y_test"])
    recorded = Recorded(folder / "mlruns/mlflow.db")
    if said["run"] != recorded.id or abs(right - recorded.last["test_accuracy"]) > TIES[row.precision.name] + 1e-6:
        return [f"predict guesses {right} right, recorded is {recorded.last['test_accuracy']}"]
    return []


def _resumed(place: Path, words: Sequence[str]) -> list[str]:
    """Kill the run after its first epoch, resume it, and compare it with its twin."""
    folder = place / "resumed"

    def reached() -> bool:
        """Whether the first epoch is on the disk, and in the record: until then a run begins anew."""
        saved = glob(f"{folder}/mlruns/outputs/*/*/record/checkpoints/epoch_*.npz")
        return bool(saved) and "loss" in recorded_metrics(folder / "mlruns/mlflow.db")

    killed, _ = command("run", folder, words, until=reached)
    status, output = command("run", folder, [*words, "resume=true"])
    if status or (killed == -signal.SIGKILL and "resume: " not in output):
        return [f"resumed: exit status {status} after {killed}: {output[-1500:]}"]
    stores = [place / name / "mlruns/mlflow.db" for name in ("whole", "resumed")]
    return [f"resumed: {what}" for what in differences(*stores)]


def command(
    module: str, folder: Path, words: Sequence[str], until: Callable[[], bool] = lambda: False
) -> tuple[int, str]:
    """Run a command in a fork; return its exit status and what it wrote. `until`: when it is killed."""
    folder.mkdir(exist_ok=True)
    output = folder / f"{module}.txt"
    pid = forked(_become, module, folder, words, output)
    end = time.monotonic() + PATIENCE
    while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
        if until() or time.monotonic() > end:
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        time.sleep(0.005)
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(ended[1]), output.read_text()


def _become(module: str, folder: Path, words: Sequence[str], output: Path) -> None:
    os.setsid()
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    environment = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    become(f"experiments.{module}", words, folder, environment)


def in_fork(function: Callable[[], list[str]]) -> list[str]:
    """Call a function in a fork, as what it runs of TensorFlow would not survive the next one."""
    with tempfile.NamedTemporaryFile("r") as file:
        pid = forked(lambda: Path(file.name).write_text(json.dumps(function())))
        status = os.waitpid(pid, 0)[1]
        return json.loads(file.read()) if status == 0 else [f"the oracle failed: {status}"]


if __name__ == "__main__":
    main()

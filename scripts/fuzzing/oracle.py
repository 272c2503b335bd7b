"""What is expected of every case, read with nothing of the project's: sqlite3, json, zipfile, h5py."""

import csv
import errno
import io
import json
import math
import re
import unicodedata
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import h5py
import numpy as np

from fuzzing.case import FOLDER, Case
from fuzzing.records import Rows, rows_below
from fuzzing.runner import Outcome, State, state

REFUSAL_SECONDS, REFUSAL_LINES, MEMORY = 20.0, 40, 2e9
SECRET = "s3kr1tPW"  # noqa: S105 - stands in cases as a password
# Commands that look, and options that show something in place of a run.
SHOWN = ("--cfg", "--help", "-h", "--hydra-help", "--version", "--info", "-i", "-c", "--shell-completion", "-sc")
# What libraries keep in the user's folder.
CACHES = ("home/.keras", "home/.cache", "home/.config", "home/.mlflow")
REGISTRY = {
    "registered_models",
    "model_versions",
    "registered_model_aliases",
    "registered_model_tags",
    "model_version_tags",
}
REGISTRY |= {"logged_model_tags"}  # where MLflow notes the version
COSTS = {"parameters", "seconds_per_epoch", "model_bytes", "fit_seconds", "samples_per_second"}
AT_THE_END = ("test_", "final_val_", "objective", "system/", *COSTS)
BIGGEST = 1.79e308  # MLflow's SQL store keeps infinity as a number above it


def judge(case: Case, outcome: Outcome) -> list[str]:
    """What is wrong with the outcome of a case; nothing, if all is well."""
    after, rows = state(outcome.place), rows_below(outcome.place)
    return [
        *_in_general(case, outcome),
        *_on_terminal(case, outcome),
        *_on_disk(case, outcome, after),
        *_in_store(case, outcome, rows),
    ]


def _in_general(case: Case, outcome: Outcome) -> Iterator[str]:
    if outcome.stopped:
        yield outcome.stopped
    elif outcome.status not in (0, 1, 2):
        yield f"exit status {outcome.status}"
    if outcome.status == 2 and outcome.seconds > REFUSAL_SECONDS * outcome.pace:
        yield f"refused after {outcome.seconds:.0f} s"
    if outcome.memory > MEMORY:
        yield f"took {outcome.memory / 1e9:.1f} GB"
    if outcome.canary.exists() and not any(word.startswith("trust=") for word in case.arguments):
        yield f"foreign code was run: {outcome.canary.read_text().split()}"
    if outcome.left:
        yield f"{outcome.left} processes are left"


def _on_terminal(case: Case, outcome: Outcome) -> Iterator[str]:
    written = outcome.stdout + outcome.stderr
    if "Traceback" in written:
        yield "a traceback: " + (written[written.index("Traceback") :].strip().splitlines() or [""])[-1][:300]
    # Hydra's own launchers name the overrides of a job, which only a terminal gets with escapes.
    ours = re.sub(r"^\[.*\]\[HYDRA\] \t#\d+ : .*$", "", written, flags=re.MULTILINE)
    if found := {sign for sign in ours if unicodedata.category(sign) == "Cc" and sign not in "\n\t"}:
        yield f"control characters are written: {sorted(found)!r}"
    if SECRET in written and not set(SHOWN) & set(case.arguments):
        yield "a password is shown"
    if outcome.status == 2:
        expected = "" if set(SHOWN) & set(case.arguments) else "error: "  # Hydra's own message has no such word
        if 2 not in case.closed and (expected not in outcome.stderr or not outcome.stderr.strip()):
            yield "refused without a message"
        if len(written.splitlines()) > REFUSAL_LINES:
            yield f"a refusal of {len(written.splitlines())} lines"
        if len(written) > 20_000:
            yield f"a refusal of {len(written)} characters"
    if outcome.status == 0 and 1 not in case.closed and not set(SHOWN) & set(case.arguments):
        yield from _readable(case, outcome.stdout)


def _readable(case: Case, text: str) -> Iterator[str]:
    """Whether output that programs read is what they expect."""
    form = next((word for word in reversed(case.arguments) if word.startswith("format=")), "format=text")
    if form == "format=json" and case.command in ("predict", "compare"):
        try:
            json.loads(text, parse_constant=_refuse)
        except ValueError as error:
            yield f"not JSON: {error}"
    elif form == "format=csv" and case.command == "compare":
        if len({len(row) for row in csv.reader(io.StringIO(text))}) != 1:
            yield "CSV with lines of several lengths"
    elif not text.strip():
        yield "exit status 0, but nothing is said"


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no JSON")


def _on_disk(case: Case, outcome: Outcome, after: State) -> Iterator[str]:
    new = sorted(path for path, what in after.items() if outcome.before.get(path) != what)
    gone = sorted(path for path in outcome.before if path not in after and not path.endswith(("-wal", "-shm")))
    base = outcome.place / "a" / "b"
    for path in new:
        short = str(Path(path).relative_to(base)) if Path(path).is_relative_to(base) else path
        if not _may_be_written(case, outcome, short):
            yield f"a file outside of the output folders, or of a refused command: {short!r}"
        said = SECRET in Path(path).name or (after[path][0] == "file" and _holds(Path(path), SECRET))
        if said and SECRET not in case.folder:  # in the name of a folder, which is recorded, it is none
            yield f"a password is in {short!r}"
    for path in gone:
        if case.command != "run" or outcome.status == 2:
            yield f"a file is gone: {path!r}"


def _may_be_written(case: Case, outcome: Outcome, short: str) -> bool:
    name = short.removeprefix(f"{case.folder}/")
    if short.startswith("tmp/"):
        return False
    home = case.environment.get("KERAS_HOME") or f"{case.environment.get('HOME')}/.keras"
    settings = Path(home.replace(f"{FOLDER}/", ""), "keras.json")
    if short.startswith(CACHES) or settings.is_relative_to(name):  # Keras writes its own, and makes their folders
        return True
    if short.removesuffix("-wal").removesuffix("-shm") in _relative(outcome.before, outcome):
        return name.endswith((".db", "-wal", "-shm", ".lock")) or case.command == "run"  # its rows are looked at
    if outcome.status == 2:
        return False
    if case.command == "run":
        where = ("hydra.", "sqlite:", "hydra:")  # the user says where
        return name == "mlruns" or name.startswith("mlruns/") or case.mentions(*where)
    asked = [word.removeprefix("report=").strip("'") for word in case.arguments if word.startswith("report=")]
    return any(path.endswith(name) for path in asked) or name == "mlruns/mlflow.lock" or case.mentions("sqlite:")


def _relative(found: State, outcome: Outcome) -> set[str]:
    return {str(Path(path).relative_to(outcome.place / "a" / "b")) for path in found if f"{outcome.place}/a/b/" in path}


def _holds(path: Path, text: str) -> bool:
    with suppress(OSError):
        return path.is_file() and text.encode() in path.read_bytes()
    return False


# Words of cases whose runs may be recorded elsewhere, or not at all.
ELSEWHERE = ("tracking", "resume", "enabled", "mlflow", "MLFLOW")


def _in_store(case: Case, outcome: Outcome, after: dict[Path, Rows]) -> Iterator[str]:
    if case.command != "run" or outcome.status == 2:
        for file in sorted({*outcome.rows, *after}):
            before, now = outcome.rows.get(file, {}), after.get(file, {})
            changed = {table for table in {*before, *now} if before.get(table) != now.get(table)}
            if not before.get("experiments"):
                changed -= {"experiments"}  # MLflow adds the one that it calls Default
            if case.command == "promote" and outcome.status == 0:
                changed -= REGISTRY
            if changed:
                yield f"the records changed: {file.name}: {', '.join(sorted(changed))}"
        if case.command == "run" or outcome.status == 0 or outcome.stopped:
            return
        if "error: " not in outcome.stderr and 2 not in case.closed and outcome.status == 1:
            yield "exit status 1 without a cause"
        return
    earlier = {run[0]: run for rows in outcome.rows.values() for run in rows.get("runs", [])}
    found = [(row, rows) for rows in after.values() for row in rows.get("runs", []) if earlier.get(row[0]) != row]
    if "but not sent" not in outcome.stdout:  # else it is on disk, as the store is spoiled
        yield from _runs(case, outcome, found)


def _runs(case: Case, outcome: Outcome, found: list[tuple[tuple[Any, ...], Rows]]) -> Iterator[str]:
    """Whether the runs that a command has recorded, or gone on with, say what has happened."""
    statuses = sorted(str(row[6]) for row, _ in found)
    if not set(statuses) <= {"FINISHED", "FAILED"} and not outcome.stopped:
        yield f"runs are left as {', '.join(sorted(set(statuses)))}"
    if outcome.status == 0:
        if set(statuses) - {"FINISHED"}:
            yield f"exit status 0, but runs are {', '.join(statuses)}"
        shown = set(SHOWN) & set(case.arguments)
        if not found and not shown and not case.mentions(*ELSEWHERE):
            yield "exit status 0, but nothing is recorded"
        for row, rows in found:
            if row[6] == "FINISHED":
                yield from _incomplete(str(row[0]), str(row[11]), rows)
    elif outcome.status == 1:
        if "error: " not in outcome.stderr and 2 not in case.closed:
            yield "exit status 1 without a cause"
        if found and "FAILED" not in statuses:
            yield f"exit status 1, but runs are {', '.join(statuses)}"
        for row, rows in found:
            if row[6] == "FAILED":
                yield from _unexplained(str(row[0]), str(row[11]), rows)
    elif found and not outcome.stopped:
        yield f"exit status {outcome.status}, and {len(found)} runs are recorded"


def _of(rows: Rows, table: str, run: str) -> dict[str, str]:
    return {str(row[0]): str(row[1]) for row in rows.get(table, []) if row[2] == run}


def _path(address: str) -> Path:
    path = unquote(urlsplit(address).path, errors="surrogateescape") if address.startswith("file:") else address
    return Path(path)


def _unexplained(run: str, artifacts: str, rows: Rows) -> Iterator[str]:
    tags = _of(rows, "tags", run)
    if "sweep" in tags:
        return
    if not tags.get("failure", "").strip():
        yield f"run {run[:8]} is FAILED without the tag failure"
    try:
        if (_path(artifacts) / "traceback.txt").read_text().strip():
            return
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:  # the store says to write where nothing can be written
            return
    yield f"run {run[:8]} is FAILED without traceback.txt"


def _incomplete(run: str, artifacts: str, rows: Rows) -> Iterator[str]:
    """What a finished run lacks."""
    tags, parameters = _of(rows, "tags", run), _of(rows, "params", run)
    if "sweep" in tags:
        if not any(row[:2] == ("mlflow.parentRunId", run) for row in rows["tags"]) and "resume" not in str(tags):
            yield f"sweep {run[:8]} has no runs"
        return
    metrics: dict[str, dict[int, float]] = {}
    for key, value, _, owner, step, is_nan in rows.get("metrics", []):
        if owner == run:
            metrics.setdefault(key, {})[step] = math.nan if is_nan or value is None else float(value)
    for key, points in metrics.items():
        if not all(abs(value) < BIGGEST for value in points.values()):
            yield f"run {run[:8]}: {key} is not finite: {list(points.values())[:3]}"
    epochs = len(metrics.get("loss", {}))
    wanted = int(parameters.get("epochs", "0"))
    if not epochs or (epochs != wanted and "callbacks" in parameters and parameters["callbacks"] == "{}"):
        yield f"run {run[:8]} has {epochs} epochs of {wanted}"
    for key, points in metrics.items():
        if not key.startswith(AT_THE_END) and sorted(points) != list(range(epochs)):
            yield f"run {run[:8]}: {key} has epochs {sorted(points)} of {epochs}"
    missing = {"objective", "test_loss", *COSTS} - metrics.keys()
    missing |= {"fingerprint", "dataset.digest", "weights.digest", "objective"} - tags.keys()
    if missing:
        yield f"run {run[:8]} lacks {', '.join(sorted(missing))}"
    yield from _report(run, _path(artifacts) / "report.json", metrics)
    models = [row for row in rows.get("logged_models", []) if row[9] == run]
    if len(models) != 1:
        yield f"run {run[:8]} has {len(models)} models"
    for row in models:
        yield from _model(run, _path(str(row[3])) / "data" / "model.keras", parameters)


def _report(run: str, file: Path, metrics: dict[str, dict[int, float]]) -> Iterator[str]:
    try:
        report = json.loads(file.read_text(), parse_constant=_refuse)
        measures = report["measures"]
        for key, value in measures.items():
            recorded = list(metrics.get(key, {}).values())[-1:]
            if not recorded or not math.isclose(recorded[0], value, rel_tol=1e-6, abs_tol=1e-12):
                yield f"run {run[:8]}: report.json says {key} {value}, the metrics say {recorded}"
        if np.asarray(report["confusion_matrix"]).ndim != 2:
            yield f"run {run[:8]}: no confusion matrix"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        yield f"run {run[:8]}: report.json: {error}"


def _model(run: str, file: Path, parameters: dict[str, str]) -> Iterator[str]:
    try:
        with zipfile.ZipFile(file) as archive:
            json.loads(archive.read("config.json"))
            with h5py.File(io.BytesIO(archive.read("model.weights.h5")), "r") as weights:
                arrays: list[Any] = []
                weights.visititems(lambda _, item: arrays.append(item[()]) if isinstance(item, h5py.Dataset) else None)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        yield f"run {run[:8]}: the model: {error}"
        return
    if parameters.get("model.name") == "mlp" and not arrays:
        yield f"run {run[:8]}: the model has no weights"
    if not all(np.isfinite(np.asarray(array, "float64")).all() for array in arrays):
        yield f"run {run[:8]}: weights are not finite"

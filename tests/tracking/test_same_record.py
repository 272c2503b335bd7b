"""The record of a run and of a sweep is, field by field, what it was before runs wrote journals."""

import json
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

BEFORE = Path(__file__).parent / "records_before_journals.json"
DEBUG = ("experiment=debug", "+tracking.tags.team=vision", "tracking.system_metrics=true")
SWEEP = ("-m", "experiment=debug", "optimizer=adam,sgd", "seed=0,1")
# What is measured of the machine, or follows from the moment, the place and the code; and what is recorded since.
DIFFERS = re.compile(
    r"fit_seconds|samples_per_second|parameters|seconds_per_epoch|model_bytes|system/.*|hardware\..*|host|process|output_folder|mlflow\.user|user_id|version\..*"
    r"|fingerprint(\.code|\.config)?|git\..*|mlflow\.source\.git\.commit|runtime\.threads|weights\.digest|experiments\.uuid|task\..*|sweep\..*"
)
NUMBERS = 0.05  # how far values may be apart on another processor


def dump(folder: Path) -> dict[str, Any]:
    """All that a store has of its runs, by their names, without what differs from one time to the next."""
    with closing(sqlite3.connect(folder / "mlruns" / "mlflow.db")) as connection:
        connection.row_factory = sqlite3.Row
        return {run["name"]: dict(_run(connection, run)) for run in connection.execute("SELECT * FROM runs")}


def _run(connection: sqlite3.Connection, run: sqlite3.Row) -> Iterator[tuple[str, Any]]:
    run_id = run["run_uuid"]

    def rows(statement: str) -> list[list[Any]]:
        found = connection.execute(statement, (run_id,)).fetchall()
        return [[_plain(value) for value in row] for row in found if not DIFFERS.fullmatch(str(row[0]))]

    yield "run", [run["status"], run["lifecycle_stage"], run["source_type"], run["end_time"] >= run["start_time"]]
    yield "params", rows("SELECT key, value FROM params WHERE run_uuid = ? ORDER BY key")
    yield "tags", rows("SELECT key, value FROM tags WHERE run_uuid = ? ORDER BY key")
    yield "metrics", rows("SELECT key, step, is_nan, value FROM metrics WHERE run_uuid = ? ORDER BY key, step")
    yield "latest", rows("SELECT key, step, is_nan, value FROM latest_metrics WHERE run_uuid = ? ORDER BY key")
    yield (
        "system",
        sorted(
            {
                row[0]
                for row in connection.execute("SELECT key FROM metrics WHERE run_uuid = ?", (run_id,))
                if "/" in row[0]
            }
        ),
    )
    inputs = "SELECT d.name, d.digest, d.dataset_source_type, d.dataset_source, d.dataset_profile FROM inputs i"
    yield "inputs", rows(f"{inputs} JOIN datasets d ON d.dataset_uuid = i.source_id WHERE i.destination_id = ?")
    yield "outputs", rows("SELECT source_type, destination_type, step FROM inputs WHERE source_id = ?")
    files = _local(run["artifact_uri"])
    yield "files", sorted(str(file.relative_to(files)) for file in files.rglob("*") if file.is_file())
    config = re.sub("^task:\n(  .*\n)+", "", _text(files / "config" / "config.yaml"), flags=re.MULTILINE).splitlines()
    yield "config", [line for line in config if not re.match(" *(checkpoint_every|threads):", line)]
    yield "overrides", _text(files / "config" / "overrides.txt")
    report = json.loads(_text(files / "report.json") or "{}")
    yield "report", [sorted(report), sorted(report.get("measures", ())), sorted(report.get("classes", ()))]
    yield "table", sorted(line.split(",")[:2] for line in _text(files / "results.csv").splitlines())
    for model in connection.execute("SELECT * FROM logged_models WHERE source_run_id = ?", (run_id,)):
        yield "model", dict(_model(connection, model))


def _model(connection: sqlite3.Connection, model: sqlite3.Row) -> Iterator[tuple[str, Any]]:
    def rows(table: str, what: str) -> list[list[Any]]:
        found = connection.execute(f"SELECT {what} FROM {table} WHERE model_id = ? ORDER BY 1, 2", (model["model_id"],))
        return [[_plain(value) for value in row] for row in found if not DIFFERS.fullmatch(str(row[0]))]

    yield "model", [model["name"], model["status"], model["lifecycle_stage"], model["model_type"]]
    yield "params", rows("logged_model_params", "param_key, param_value")
    yield "metrics", rows("logged_model_metrics", "metric_name, metric_step, metric_value")
    files = _local(model["artifact_location"])
    yield "files", sorted(str(file.relative_to(files)) for file in files.rglob("*") if file.is_file())
    lines = (_plain(line) for line in _text(files / "MLmodel").splitlines())
    yield (
        "MLmodel",
        [line for line in lines if not re.match("model_size|utc_time|  *(keras|python)_version|mlflow_v", line)],
    )
    for name in ("conda.yaml", "python_env.yaml", "requirements.txt"):
        yield name, re.sub(r"\d+(\.\d+)+", "VERSION", _text(files / name))
    yield "input_example.json", json.loads(_text(files / "input_example.json"))
    yield "serving_input_example.json", json.loads(_text(files / "serving_input_example.json"))


def _plain(value: Any) -> Any:
    """A value without ids, times and seconds."""
    if not isinstance(value, str):
        return value
    value = re.sub(r"\bm-[0-9a-f]{32}|\b[0-9a-f]{32}\b", "ID", value)
    value = re.sub(r"file:///\S*/mlruns", "file:///mlruns", value)
    if value.startswith("| "):  # the table of a sweep, which is ranked
        value = "\n".join(sorted(re.sub(r"\d+\.\d+", "NUMBER", value).splitlines()))
    return value


def _local(address: str) -> Path:
    return Path(address.removeprefix("file://"))


def _text(file: Path) -> str:
    return file.read_text() if file.is_file() else ""


def compared(before: Any, after: Any, where: str = "") -> Iterator[str]:
    """Differences between two records; numbers may be a little apart."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in before.keys() | after.keys():
            yield from compared(before.get(key), after.get(key), f"{where}/{key}")
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for number, pair in enumerate(zip(before, after, strict=True)):
            yield from compared(*pair, f"{where}/{number}")
    elif isinstance(before, float) and isinstance(after, int | float):
        if abs(before - after) > NUMBERS:
            yield f"{where}: {before} then, {after} now"
    elif before != after:
        yield f"{where}: {before!r} then, {after!r} now"


@pytest.mark.parametrize(("name", "command"), [("run", DEBUG), ("sweep", SWEEP)])
def test_a_record_is_what_it_was(
    name: str, command: tuple[str, ...], tmp_path: Path, fork_cli: Callable[..., Any]
) -> None:
    done = fork_cli(*command)
    assert done.returncode == 0, done.stderr
    expected = json.loads(BEFORE.read_text())[name]
    found = json.loads(json.dumps(dump(tmp_path)))
    assert list(compared(expected, found)) == []


def test_differences_are_found() -> None:
    expected = json.loads(BEFORE.read_text())["run"]
    changed = json.loads(BEFORE.read_text())["run"]
    (run,) = changed.values()
    run["tags"][0][1] += "x"
    run["metrics"][0][3] += 0.1
    del run["params"][0]
    assert len(list(compared(expected, changed))) == 3

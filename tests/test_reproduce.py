"""`python -m experiments.reproduce`: identical, different, or cannot."""

import contextlib
import importlib.metadata
import math
import re
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import mlflow.keras
import pytest
from rich.console import Console

from experiments.config import Refused, RunFailed
from experiments.config.schema import Tracking
from experiments.data import load
from experiments.reproduce import compile_as_recorded, conditions, judge
from experiments.run import Trained
from experiments.tracking.client import experiment, open_store
from experiments.tracking.provenance import environment
from experiments.tracking.rerun import checked_config, trusted_then
from experiments.tracking.runs import finished, look_up
from experiments.tracking.search import measured, measures
from tests.composed import keras

RunCli = Callable[..., Any]
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's own
SMALL = ["data=digits", "data.limit=200", "epochs=2", "model.layer_sizes=[16]", "data.validation_size=0.2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reproduce")


@pytest.fixture
def run_id(folder: Path, run_cli: RunCli) -> str:
    """A run of a changed working tree; made once."""
    kept = folder / "run_id"
    if not kept.exists():
        for arguments in (["init", "-q"], ["add", "."], [*AUTHOR, "commit", "-qm", "first", "--allow-empty"]):
            subprocess.run(["git", *arguments], cwd=folder, check=True)
        (folder / "new.py").write_text("x = 1\n")
        done = run_cli(*SMALL, "model.dropout=0.2", "callbacks=csv_log", cwd=folder)
        assert (done.returncode, done.stderr) == (0, "")
        kept.write_text(re.findall(r"recorded as run (\w+)", done.stdout)[0])
    return kept.read_text()


AUTHOR = ["-c", "user.name=Somebody", "-c", "user.email=somebody@example.com"]


@contextmanager
def changed(folder: Path, statement: str, back: str) -> Iterator[None]:
    """Change the store, for a while."""

    def execute(what: str) -> None:
        with closing(sqlite3.connect(folder / "mlruns" / "mlflow.db")) as connection:
            assert connection.execute(what).rowcount == 1
            connection.commit()

    execute(statement)
    try:
        yield
    finally:
        execute(back)


def test_identical(folder: Path, run_id: str, fork_cli: RunCli) -> None:
    done = fork_cli(f"run={run_id}", module="reproduce", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"^  code +the same: commit \w{12} with code/uncommitted.patch", done.stdout, re.MULTILINE)
    assert re.search(r"^  data +the same: digits, sha256", done.stdout, re.MULTILINE)
    assert re.search(r"^  versions +the same: tensorflow", done.stdout, re.MULTILINE)
    assert re.search(r"^  processor +the same: .", done.stdout, re.MULTILINE)
    # loss, accuracy and both of validation in each epoch; at the end test and validation again, and the objective
    assert re.search(r"^identical: all 13 values; weights the same, sha256 \w{12}…$", done.stdout, re.MULTILINE)
    with closing(sqlite3.connect(folder / "mlruns" / "mlflow.db")) as connection:
        assert connection.execute("SELECT count(*) FROM runs").fetchone() == (1,)


def test_uncommitted_changes_are_kept(folder: Path, run_id: str) -> None:
    (patch,) = (folder / "mlruns" / "artifacts" / run_id).rglob("uncommitted.patch")
    assert "+x = 1" in patch.read_text()


def test_different(capsys: pytest.CaptureFixture[str]) -> None:
    points = {"loss": [(0, 0.5), (1, 0.25)], "val_loss": [(0, math.nan)], "gone": [(1, 1.0)], "objective": [(1, 0.9)]}
    trained = Trained({"loss": [0.5, 0.125], "val_loss": [math.nan, 0.1]}, {"objective": 0.9}, "2")
    with pytest.raises(RunFailed, match="it differs: 3 of 6 values, and the weights are different"):
        judge(Console(width=80), points, "1", trained)
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[1:] == [
        ["loss", "2", "0.25", "0.125", "-0.12"],
        ["val_loss", "2", "none", "0.1"],
        ["gone", "2", "1.0", "none"],
    ]
    identical = Trained({"loss": [0.5, 0.25]}, {}, "1")
    with pytest.raises(RunFailed, match="and the weights are the same"):
        judge(Console(), points, "1", identical)
    judge(Console(), {"loss": points["loss"]}, "1", identical)
    assert "identical: all 2 values; weights the same" in capsys.readouterr().out


def test_without_a_digest_of_the_weights_it_is_not_identical() -> None:
    with pytest.raises(RunFailed, match="all 1 values are the same, but the weights cannot be compared"):
        judge(Console(), {"loss": [(0, 0.5)]}, None, Trained({"loss": [0.5]}, {}, "1"))


def test_infinity_is_recorded_and_reproduced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """SQL stores keep the largest number instead."""
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = open_store(uri)
    run = client.create_run(experiment(client, "x", uri), tags={"weights.digest": "1"})
    values = {"val_loss": math.inf, "objective": -math.inf, "loss": math.nan}
    for name, value in values.items():
        client.log_metric(run.info.run_id, name, value, step=0)
    client.set_terminated(run.info.run_id)
    found = measures(client.get_run(run.info.run_id))
    assert (found["val_loss"], found["objective"]) == (math.inf, -math.inf)
    points = {
        name: [(point.step, measured(point.value)) for point in client.get_metric_history(run.info.run_id, name)]
        for name in values
    }
    judge(
        Console(),
        points,
        "1",
        Trained({key: [values[key]] for key in ("loss", "val_loss")}, {"objective": -math.inf}, "1"),
    )
    assert "identical: all 3 values" in capsys.readouterr().out
    with pytest.raises(RunFailed, match="it differs: 2 of 3 values"):
        judge(Console(), points, "1", Trained({"loss": [math.nan], "val_loss": [1.0]}, {"objective": math.inf}, "1"))


def test_other_data_cannot_reproduce_it(folder: Path, run_id: str, fork_cli: RunCli) -> None:
    with closing(sqlite3.connect(folder / "mlruns" / "mlflow.db")) as connection:
        digest = connection.execute("SELECT value FROM tags WHERE key = 'dataset.digest'").fetchone()[0]
    where = "UPDATE tags SET value = '{}' WHERE key = 'dataset.digest'"
    with changed(folder, where.format("0123"), where.format(digest)):
        done = fork_cli(f"run={run_id}", module="reproduce", cwd=folder)
    assert done.returncode == 2
    assert "error: data: digits of scikit-learn is not what the run was trained on" in done.stderr


def test_what_differs_is_told() -> None:
    tags = {
        "fingerprint.code": "0",
        "git.commit": "0123456789abcdef",
        "git.dirty": "true",
        "dataset": "digits",
        "dataset.digest": "0123",
        "hardware.processor": "Abacus",
        "flags": "TF_ENABLE_ONEDNN_OPTS=0",
        "version.keras": "2.0.0",
        "version.numpy": importlib.metadata.version("numpy"),
    }
    packages = f"# Python 2\nkeras==2.0.0\nold==1\n{environment()}"
    told = dict(conditions(tags, packages, []))
    assert told["code"].startswith("differs from that of the run, which was of commit 0123456789ab with code/")
    assert re.fullmatch(r"keras 2.0.0 then, 3\S+ now; 1 other packages differ", told["versions"])
    assert told["processor"].startswith("Abacus then, ")
    assert told["flags"] == "TF_ENABLE_ONEDNN_OPTS=0 then, none now"


def tampered(folder: Path, run_id: str, was: str, becomes: str) -> Any:
    """Change the stored config, for a while."""
    file = folder / "mlruns" / "artifacts" / run_id / "artifacts" / "config" / "config.yaml"
    text = file.read_text()
    assert was in text
    restored = contextlib.ExitStack()
    restored.callback(file.write_text, text)
    file.write_text(text.replace(was, becomes))
    return restored


@pytest.mark.parametrize(
    ("was", "becomes", "told"),
    [
        ("activation: relu", "activation: {_target_: os.system}", "config/config.yaml: model.activation"),
        ("epochs: 2", "epochs: 0", "config/config.yaml: epochs: got 0, expected a whole number of at least 1"),
        ("epochs: 2", "epochs: [", "has no readable config/config.yaml: not a run of ours"),
        ("epochs: 2", "epochs: !!python/name:os.system", "has no readable config/config.yaml: not a run of ours"),
        ("trust: []", "trust: [os]\nunknown: 1", "config/config.yaml: unknown"),
    ],
)
def test_a_stored_config_is_data(folder: Path, run_id: str, was: str, becomes: str, told: str) -> None:
    store = Tracking(enabled=True, uri=f"sqlite:///{folder / 'mlruns' / 'mlflow.db'}")
    with tampered(folder, run_id, was, becomes), pytest.raises(Refused, match=re.escape(told)):
        checked_config(look_up(run_id, store))


def test_a_stored_config_grants_no_trust(folder: Path, run_id: str) -> None:
    store = Tracking(enabled=True, uri=f"sqlite:///{folder / 'mlruns' / 'mlflow.db'}")
    with tampered(folder, run_id, "trust: []", "trust: [os]"):
        assert checked_config(look_up(run_id, store)).trust == []
        assert checked_config(look_up(run_id, store, trust=["mine"])).trust == ["mine"]


def test_the_logged_model_evaluates_as_recorded(folder: Path, run_id: str) -> None:
    """Without code of ours it is compiled already; `compile_as_recorded` compiles any."""
    uri = f"sqlite:///{folder / 'mlruns' / 'mlflow.db'}"
    stored = look_up(run_id, Tracking(enabled=True, uri=uri))
    recorded = checked_config(stored)
    mlflow.set_tracking_uri(uri)
    model = mlflow.keras.load_model(f"runs:/{run_id}/model")
    test = load(recorded.data, recorded.seed).test
    expected = {name: stored.metrics[f"test_{name}"] for name in ("loss", "accuracy")}
    for _ in range(2):
        assert model.evaluate(test.x, test.y, verbose=0, return_dict=True) == pytest.approx(expected, rel=1e-5)
        model = keras.Sequential([keras.Input(model.input_shape[1:]), *model.layers])
        compile_as_recorded(model, run_id, uri)


def test_a_run_that_needs_trust_says_so(folder: Path, run_id: str) -> None:
    store = Tracking(enabled=True, uri=f"sqlite:///{folder / 'mlruns' / 'mlflow.db'}")
    metrics, trust = (
        tampered(folder, run_id, "- accuracy", "- accuracy\n- mine.more.M"),
        ("trust: []", "trust: [mine.more, other]"),
    )
    with metrics, tampered(folder, run_id, *trust):
        told = f"run {run_id[:8]}: config/config.yaml: metrics[1]: mine.more.M is not one of Keras's own; if you trust"
        with pytest.raises(Refused, match=re.escape(told)) as refused:
            checked_config(look_up(run_id, store, trust=["other"]))
        assert refused.value.problems[0].remedy == "trust=[other,mine]"
        assert trusted_then(look_up(run_id, store, trust=["mine"])) == ["mine.more", "other"]


def test_a_run_that_did_not_finish_cannot_be_reproduced(folder: Path, run_id: str) -> None:
    store = Tracking(enabled=True, uri=f"sqlite:///{folder / 'mlruns' / 'mlflow.db'}")
    killed = changed(folder, "UPDATE runs SET status = 'KILLED'", "UPDATE runs SET status = 'FINISHED'")
    with killed, pytest.raises(Refused, match=f"{run_id} is KILLED: there is no result to compare with"):
        finished(look_up(run_id, store))

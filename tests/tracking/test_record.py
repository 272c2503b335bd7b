"""What a run leaves in MLflow, looked at through MLflow."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient

from experiments.tracking.provenance import environment
from experiments.tracking.record import LONGEST_PARAMETER, as_parameter, flatten, run_name
from experiments.tracking.store import redact

# MLflow itself, in this process, uses what SQLAlchemy has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
DEBUG = ["experiment=debug", "+tracking.tags.team=vision", "tracking.system_metrics=true"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which one debug run was recorded."""
    place = tmp_path_factory.mktemp("recorded")
    command = [sys.executable, "-m", "experiments.run", *DEBUG]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "test_accuracy" in done.stdout
    return place


@pytest.fixture
def client(folder: Path) -> Iterator[MlflowClient]:
    uri = f"sqlite:///{folder / 'mlruns' / 'mlflow.db'}"
    mlflow.set_tracking_uri(uri)
    yield MlflowClient(uri)
    mlflow.set_tracking_uri(None)


@pytest.fixture
def run(client: MlflowClient) -> Any:
    (experiment,) = [item for item in client.search_experiments() if item.name == "digits"]
    (found,) = client.search_runs([experiment.experiment_id])
    return found


def test_parameters_are_the_resolved_config(run: Any) -> None:
    wanted = {
        "optimizer.name": "adam",
        "optimizer.learning_rate": "0.001",
        "model.layer_sizes": "[32,16]",
        "model.output_activation": "softmax",
        "data.validation_size": "0.2",
        "callbacks.early_stopping.monitor": "val_loss",
        "epochs": "2",
        "seed": "0",
        "runtime.xla": "false",
    }
    assert wanted.items() <= run.data.params.items()
    assert run.data.params["runtime.threads"].isdigit()


def test_metrics_by_epoch_and_at_the_end(client: MlflowClient, run: Any) -> None:
    for name in ("loss", "accuracy", "val_loss", "val_accuracy", "f1_score"):
        history = client.get_metric_history(run.info.run_id, name)
        assert [entry.step for entry in history] == [0, 1], name
    ends = {"test_loss", "test_accuracy", "fit_seconds", "samples_per_second", "objective", "final_val_accuracy"}
    assert ends <= run.data.metrics.keys()
    assert run.data.metrics["parameters"] == 2922  # as Keras counts them
    assert run.data.metrics["seconds_per_epoch"] == pytest.approx(run.data.metrics["fit_seconds"] / 2)
    [model] = client.search_logged_models([run.info.experiment_id])
    size = (Path(model.artifact_location.removeprefix("file://")) / "data" / "model.keras").stat().st_size
    assert run.data.metrics["model_bytes"] == size
    assert run.data.metrics["objective"] == run.data.metrics["final_val_accuracy"]
    assert any(name.startswith("system/") for name in run.data.metrics)


def test_tags_name_and_status(run: Any) -> None:
    tags = run.data.tags
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "experiment=debug"
    assert (tags["team"], tags["objective"], tags["dataset"]) == ("vision", "val_accuracy", "digits")
    assert len(tags["dataset.digest"]) == 64
    assert {"version.tensorflow", "version.keras", "version.mlflow", "version.python", "host"} <= tags.keys()
    assert "git.commit" not in tags  # the folder is no repository


def test_data_set_is_an_input(run: Any) -> None:
    (entry,) = run.inputs.dataset_inputs
    assert entry.dataset.name == "digits"
    profile = json.loads(entry.dataset.profile)
    assert (profile["train"], profile["validation"], profile["classes"]) == (400, 100, 10)


def test_artifacts(client: MlflowClient, run: Any, folder: Path) -> None:
    top = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert {"config", "figures", "report.json", "environment.txt"} <= top
    figures = {Path(item.path).name for item in client.list_artifacts(run.info.run_id, "figures")}
    assert figures == {"learning_curves.png", "confusion_matrix.png", "worst_mistakes.png"}
    report = json.loads(mlflow.artifacts.load_text(f"runs:/{run.info.run_id}/report.json"))
    assert np.sum(report["confusion_matrix"]) == 359
    assert "uri" not in mlflow.artifacts.load_text(f"runs:/{run.info.run_id}/config/config.yaml")
    assert str(folder / "mlruns" / "artifacts") in run.info.artifact_uri


def test_model_loads_and_gives_what_was_measured(run: Any) -> None:
    from sklearn.datasets import load_digits

    model = mlflow.keras.load_model(f"runs:/{run.info.run_id}/model")
    bunch = load_digits()
    x, y = bunch.images[4::5, ..., None].astype("float32") / 16, bunch.target[4::5]
    measured = float((model.predict(x, verbose=0).argmax(axis=1) == y).mean())
    assert measured == pytest.approx(run.data.metrics["test_accuracy"], abs=1e-6)
    info = mlflow.models.get_model_info(f"runs:/{run.info.run_id}/model")
    assert info.signature.inputs.inputs[0].shape == (-1, 8, 8, 1)
    assert info.flavors["keras"]["keras_backend"] == "tensorflow"


def test_predict_shows_the_latest_and_the_best(folder: Path, fork_cli: Callable[..., Any]) -> None:
    latest = fork_cli(module="predict", cwd=folder)
    assert (latest.returncode, latest.stderr) == (0, "")
    assert len(latest.stdout.splitlines()) == 12
    best = fork_cli("run=best", "test=5:8", "format=json", module="predict", cwd=folder)
    answer = json.loads(best.stdout)
    assert [guess["image"] for guess in answer["predictions"]] == ["5", "6", "7"]
    first = answer["predictions"][0]
    assert first["probability"] >= first["runner_up_probability"]
    assert {path.name for path in folder.iterdir()} == {"mlruns"}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["run=0123456789abcdef0123456789abcdef"], "there is no run"),
        (["test=350:400"], "359 test images"),
        (["tracking.uri=http://127.0.0.1:9"], "cannot be reached"),
        (["rum=latest"], "did you mean 'run'"),
        (
            ["test=10", "format=xml"],
            "error: test: got '10', expected FROM:TO, counted from 0, without the last\n       try  \"test='0:10'\"\n"
            "error: format: got xml, expected text or json\n       try  format=text\n",
        ),
    ],
)
def test_predict_refuses(folder: Path, fork_cli: Callable[..., Any], args: list[str], message: str) -> None:
    done = fork_cli(*args, module="predict", cwd=folder)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_model_with_code_of_ones_own_needs_trust_anew(fork_cli: Callable[..., Any], tmp_path: Path) -> None:
    """The stored run grants nothing: trust comes from the command line only."""
    (tmp_path / "mypackage.py").write_text(
        "import keras\n\n\nclass Same(keras.layers.Layer):\n    def call(self, x):\n        return x\n"
    )
    layers = "model.layers=[Flatten,mypackage.Same,{Dense:{units:classes,activation:softmax}}]"
    training = ["data=digits", "epochs=1", "model=sequential", layers]
    trained = fork_cli(*training, "trust=[mypackage]")
    assert (trained.returncode, trained.stderr) == (0, "")
    refused = fork_cli("test=0:3", module="predict")
    assert refused.returncode == 2
    assert "try  trust=[mypackage]" in refused.stderr
    done = fork_cli("test=0:3", "trust=[mypackage]", module="predict")
    assert (done.returncode, done.stderr) == (0, "")


def test_run_names_tell_runs_apart() -> None:
    assert run_name([]) == "reference"
    assert run_name(["optimizer=adam", "+x=1", "tracking.uri=http://a"]) == "optimizer=adam x=1"
    assert len(run_name(["a=" + "b" * 500])) == 120


def test_flatten() -> None:
    assert flatten({"a": {"b": 1, "c": {}}, "d": [1]}) == {"a.b": 1, "a.c": {}, "d": [1]}


def test_environment_has_versions_and_no_addresses() -> None:
    text = environment()
    assert f"mlflow=={mlflow.__version__}" in text
    assert "://" not in text


@pytest.mark.parametrize(
    "text", ["http://me:secret@host/x", "postgresql+psycopg2://me:secret@host/db", "a b://u:secret@h"]
)
def test_credentials_are_taken_out(text: str) -> None:
    assert "secret" not in redact(text)


def test_models_that_differ_late_are_recorded_as_two() -> None:
    """MLflow cuts a parameter at 6,000 characters; `compare` would take both for one config."""
    layers = [["Flatten", *({"Dense": {"units": 64, "activation": "relu"}} for _ in range(200)), last] for last in "ab"]
    texts = [as_parameter(each) for each in layers]
    assert texts[0] != texts[1]
    assert all(len(text) == LONGEST_PARAMETER for text in texts)
    assert texts[0].startswith('["Flatten",{"Dense":{"units":64')
    assert (
        as_parameter(layers[0][:3])
        == '["Flatten",{"Dense":{"units":64,"activation":"relu"}},{"Dense":{"units":64,"activation":"relu"}}]'
    )
    assert as_parameter("text") == "text"

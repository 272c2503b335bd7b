"""The commands as functions of Python. The examples of docs/python.md are run by test_readme.py."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.datasets import load_digits

import experiments
from experiments import RecordedRun, Refused, RunFailed
from tests.prepared import environment

SHORT = ("data=digits", "epochs=2", "model.layer_sizes=[8]")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's own


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("EXPERIMENTS_DATA_DIR", raising=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("python")


@pytest.fixture(scope="module")
def trained(folder: Path) -> RecordedRun:
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        for name in ("MLFLOW_TRACKING_URI", "EXPERIMENTS_DATA_DIR"):
            patched.delenv(name, raising=False)
        return experiments.train(*SHORT)


@pytest.fixture
def run(trained: RecordedRun, folder: Path, here: None, monkeypatch: pytest.MonkeyPatch) -> RecordedRun:
    monkeypatch.chdir(folder)
    return trained


def test_a_run_is_what_the_command_records(run: RecordedRun, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "experiments.run", *SHORT]
    subprocess.run(command, cwd=tmp_path, env=environment(), check=True, capture_output=True)
    again = experiments.load(uri=f"sqlite:///{tmp_path}/mlruns/mlflow.db")
    assert again.tags["weights.digest"] == run.tags["weights.digest"]
    assert again.histories == run.histories
    assert run.status == "FINISHED"
    assert run.config["model"]["layer_sizes"] == [8]
    assert list(run.curves.index) == [1, 2]
    assert list(run.curves["loss"]) == [value for _, value in run.histories["loss"]]
    assert run == experiments.load("latest") == experiments.load(run.run_id[:8])
    assert repr(run).startswith(f"<run {run.run_id} 'data=digits epochs=2 model.layer_sizes=[8]': FINISHED, test_loss=")


def test_a_run_classifies_images_as_it_was_measured(run: RecordedRun, tmp_path: Path) -> None:
    digits = load_digits()
    images, labels = digits.images[4::5], digits.target[4::5]
    probabilities = run.predict(images)
    assert probabilities.shape == (len(images), 10)
    assert np.mean(probabilities.argmax(axis=1) == labels) == pytest.approx(run.metrics["test_accuracy"], abs=1e-6)
    pictures = [Image.fromarray((16 * image).clip(0, 255).astype(np.uint8)) for image in images[:3]]
    file = tmp_path / "digit.png"
    pictures[0].save(file)
    both = run.predict([file, pictures[1], str(file)])
    assert both.shape == (3, 10)
    assert np.array_equal(both[0], both[2])
    with pytest.raises(Refused, match="there is no such file"):
        run.predict(["no.png"])
    with pytest.raises(Refused, match="images: the model takes inputs of"):
        run.predict(np.zeros((2, 5, 5)))
    assert np.array_equal(run.predict(images[:2].tolist()), probabilities[:2])
    assert np.array_equal(run.predict(str(file)), both[:1])
    odd: list[tuple[Any, str]] = [
        (np.full((2, 8, 8), np.nan), "images: holds NaN or infinity, in 2 of 2"),
        (images[:2] * 1e300, "divided by data.scale=16 are beyond float32|beyond float32|ends at"),
        (images[:2] * 1j, "got type complex128, expected real numbers"),
        ([[None] * 8] * 8, "got type object, expected numbers"),
        (3, r"got shape \(\)"),
    ]
    for inputs, message in odd:
        with pytest.raises(Refused, match=message):
            run.predict(inputs)
    assert run.model().count_params() == 64 * 8 + 8 + 8 * 10 + 10


def test_a_run_shows_itself_in_a_notebook(run: RecordedRun) -> None:
    page = run._repr_html_()
    assert page.count("data:image/png;base64,") == len(run.figures()) == 3
    assert run.run_id in page
    assert "test_accuracy" in page
    assert all(png.startswith(b"\x89PNG") for png in run.figures().values())


def test_a_sweep_is_a_frame(run: RecordedRun, capfd: pytest.CaptureFixture[str]) -> None:
    validated = ("data.validation_size=0.2", "data.limit=200", "epochs=1")
    runs = experiments.sweep(*SHORT[:1], *SHORT[2:], *validated, "optimizer=adam,sgd", "seed=0,1")
    assert "2 at a time" in capfd.readouterr().out or len(runs) == 4
    assert isinstance(runs, pd.DataFrame)
    assert list(runs.columns[:2]) == ["optimizer.name", "seed"]
    assert sorted(zip(runs["optimizer.name"], runs["seed"], strict=True)) == [
        (name, seed) for name in ("adam", "sgd") for seed in (0, 1)
    ]
    assert list(runs["objective"]) == sorted(runs["objective"], reverse=True)
    assert (runs["status"] == "FINISHED").all()
    same = experiments.table(sweep="latest")
    pd.testing.assert_frame_equal(runs, same)
    only = experiments.table(filter=["optimizer=sgd", "seed=1"])
    assert list(only.index) == [run_id for run_id in runs.index if tuple(runs.loc[run_id][:2]) == ("sgd", 1)]
    assert len(experiments.table(experiment="digits")) == 5
    assert list(experiments.table(runs=list(runs.index[1:3])).index) == list(runs.index[1:3])
    best = experiments.load("best")
    assert best.run_id in runs.index
    assert best.tags["objective"] == "val_accuracy"


def test_what_cannot_be_is_refused(run: RecordedRun) -> None:
    with pytest.raises(Refused, match="there is no adma; did you mean 'adam'"):
        experiments.train("optimizer=adma")
    with pytest.raises(Refused, match="is an option of the command"):
        experiments.train("-m", "seed=0,1")
    with pytest.raises(Refused, match="there is no run 'zzzz'"):
        experiments.load("zzzz")
    wrong: Any = 3.5
    with pytest.raises(Refused, match=r"sweep: got 3\.5, expected text"):
        experiments.table(sweep=wrong)
    for overrides in ([["epochs=1"]], [3], [None], [Path("x")], ["a=\0"]):
        with pytest.raises(Refused, match=r"overrides\[0\]: got"):
            experiments.train(*overrides)  # type: ignore[arg-type]
    for unusable in (None, 3, b"seed=0"):
        wrong = unusable
        with pytest.raises(Refused, match=r"filter\[0\]: got"):
            experiments.table(filter=wrong)
    wrong = Path("mlruns")
    with pytest.raises(Refused, match="uri: got PosixPath"):
        experiments.load(uri=wrong)
    with pytest.raises(RunFailed, match="is tracking off"):
        experiments.train(*SHORT, "tracking=off")
    with pytest.raises(RunFailed, match="the loss became"):
        experiments.train(*SHORT, "optimizer=sgd", "optimizer.learning_rate=1e30")


def test_tensorflow_is_imported_to_train_only(run: RecordedRun) -> None:
    code = (
        "import sys, experiments; assert not {'hydra', 'numpy', 'mlflow'} & set(sys.modules);"
        "experiments.load().metrics; experiments.table(experiment='digits'); assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], env=environment(), check=True)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        _ = experiments.trian

"""Regression, from targets that are checked to a recorded run that predicts."""

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_diabetes

import experiments
from experiments.config import Refused
from experiments.config.schema import Data
from experiments.data import Split, describe, load
from experiments.task import names, of, regression
from experiments.task.measuring import keep
from tests.composed import config, train
from tests.prepared import Prepared, environment

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's own
SMALL = ("data=diabetes", "data.limit=null", "model.layer_sizes=[16]", "batch_size=16", "epochs=3")


def data(**changes: Any) -> Data:
    return Data(**{"name": "npz", "scale": 1.0, "path": None, "validation_size": 0, "limit": None, **changes})


def save(folder: Path, **changes: Any) -> str:
    random = np.random.default_rng(0)
    x, y = random.random((40, 3)), random.random(40) * 100 - 50
    arrays = {"x_train": x[:30], "y_train": y[:30], "x_test": x[30:], "y_test": y[30:], **changes}
    np.savez(folder / "my.npz", **arrays)
    return str(folder / "my.npz")


def test_the_tasks_are_found() -> None:
    assert names() == ["classification", "regression"]


def test_numbers_are_read_and_described(tmp_path: Path) -> None:
    dataset = load(data(path=save(tmp_path), validation_size=0.2), 0, task="regression")
    assert (dataset.sizes, dataset.outputs, dataset.train.y.dtype) == ((24, 6, 10), 1, np.float32)
    assert re.match(r"npz: 24 \+ 6 \+ 10 rows of 3 values, targets -\d+.* to \d+.*, values 0", describe(dataset))
    with pytest.raises(Refused, match=r"y_train: got float64 that are not all whole, .*task=regression"):
        load(data(path=save(tmp_path)), 0)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"y_train": np.full(30, 2.0)}, "y_train: holds one value only"),
        ({"y_train": np.r_[np.nan, np.zeros(29)]}, "y_train: holds NaN or infinity, in 1 of 30"),
        ({"y_train": np.zeros((30, 2))}, r"y_train: got shape \(30, 2\), expected \(n,\): one number"),
        ({"y_train": np.zeros(29)}, "y_train: got 29 targets for 30 inputs"),
        ({"y_test": np.array(list("abcdefghij"))}, "y_test: got type <U1, expected numbers"),
        ({"y_test": np.full(10, 1e300)}, "y_test: holds values of up to 1e.300, but training is done in float32"),
        ({"y_test": np.array([{}] * 10)}, "y_test: holds Python objects"),
    ],
)
def test_targets_that_cannot_be_learned_are_refused(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(Refused, match=told):
        load(data(path=save(tmp_path, **changes)), 0, task="regression")


def test_the_data_is_that_of_scikit_learn() -> None:
    whole = load(config("data=diabetes", "data.limit=null").data, 0, task="regression")
    assert whole.sizes == (354, 0, 88)
    np.testing.assert_allclose(whole.test.y, load_diabetes().target[4::5])
    assert whole.train.x.std() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
    ("overrides", "told", "remedy"),
    [
        (["loss=categorical_crossentropy"], "loss: categorical_crossentropy reads classes", "loss=mean_squared_error"),
        (
            ["metrics=[accuracy]"],
            "accuracy compares classes, but the targets are numbers",
            "metrics=[mean_absolute_error]",
        ),
        (["metrics=[auc]"], "auc compares classes", "metrics=[mean_absolute_error]"),
        (["loss.labels=one_hot"], "loss.labels: got one_hot, but the targets are numbers", "loss.labels=values"),
        (
            ["task=classification", "loss=huber", "loss.labels=values"],
            "got values, but the targets are classes",
            "one_hot",
        ),
    ],
)
def test_what_does_not_fit_is_refused(overrides: list[str], told: str, remedy: str) -> None:
    with pytest.raises(Refused, match=told) as refused:
        config("data=diabetes", *overrides)
    assert remedy in str(refused.value)


def test_the_network_has_one_output() -> None:
    with pytest.raises(Refused, match=r"the last layer gives \(2,\), expected \(1,\): one number"):
        train("data=diabetes", "model=sequential", "model.layers=[{Dense:{units:2}}]")


@pytest.mark.parametrize("standardize", [False, True])
def test_measures_are_in_the_units_of_the_targets(standardize: bool) -> None:
    extra = (
        "metrics=[mean_absolute_error,root_mean_squared_error,r2_score]",
        "data.validation_size=0.2",
        "optimizer=adam",
    )
    run = train(*SMALL, *extra, f"task.standardize={str(standardize).lower()}")
    test = run.dataset.test
    guess = np.asarray(run.model(test.x))[:, 0]
    off = guess.astype(np.float64) - test.y
    measures = run.report.measures
    assert measures["test_loss"] == pytest.approx(np.mean(off**2), rel=1e-5)
    assert measures["test_mean_absolute_error"] == pytest.approx(np.abs(off).mean(), rel=1e-5)
    assert measures["test_root_mean_squared_error"] == pytest.approx(np.sqrt(np.mean(off**2)), rel=1e-5)
    assert measures["test_r2_score"] == pytest.approx(
        1 - (off**2).sum() / ((test.y - test.y.mean()) ** 2).sum(), abs=1e-4
    )
    told = run.report.as_json()
    assert told["regression"]["mean_absolute_error"] == pytest.approx(np.abs(off).mean(), rel=1e-5)
    assert told["residuals"]["mean"] == pytest.approx(off.mean(), rel=1e-4)
    assert told["residuals"]["quantiles"]["0.5"] == pytest.approx(np.median(off), rel=1e-4)
    if standardize:  # it starts near the mean of the targets
        assert (
            run.history["mean_absolute_error"][0]
            < 1.5 * np.abs(run.dataset.train.y - run.dataset.train.y.mean()).mean()
        )


def test_the_worst_predictions_come_first() -> None:
    truth, guess = np.array([1.0, 2.0, 3.0], np.float32), np.array([[1.5], [0.0], [3.1]], np.float32)
    test = Split(np.zeros((3, 2), np.float32), truth, np.array([5, 6, 7]))
    kept = keep(of("regression"), test, guess, "linear")
    assert kept["worst.index"].tolist() == [6, 5, 7]
    assert regression.guesses(kept["guess"], ["a", "b", "c"])[0] == {"image": "a", "prediction": 1.5}
    with pytest.raises(ValueError, match="expected one number"):
        of("regression").predictions(np.zeros((3, 2), np.float32), "linear")


def test_a_recorded_run_predicts_and_is_reproduced(tmp_path: Path, prepared: Prepared) -> None:
    def call(module: str, *words: str) -> str:
        done = prepared(f"experiments.{module}", *words, cwd=tmp_path, env=environment())
        assert (done.returncode, done.stderr) == (0, ""), done.stdout
        return done.stdout

    words = ("data=diabetes", "model.layer_sizes=[16]", "epochs=2", "data.validation_size=0.2", "task.standardize=true")
    assert "targets 25 to 341" in call("run", *words)
    told = json.loads(call("predict", "run=latest", "format=json"))["predictions"]
    truth = load_diabetes().target[4::5]
    assert [guess["truth"] for guess in told] == truth[:10].tolist()
    assert call("predict", "run=latest", "test=0:2").splitlines()[1].split() == [
        "input",
        "prediction",
        "truth",
        "difference",
    ]
    assert "identical: all " in call("reproduce", "run=latest")
    assert "1 run" in call("compare", "tracking.experiment=diabetes", "report=page.html")
    assert "diabetes@champion is version 1" in call("promote", "run=best")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(tmp_path)
        for name in ("MLFLOW_TRACKING_URI", "EXPERIMENTS_DATA_DIR"):
            patched.delenv(name, raising=False)
        run = experiments.load("best")
        assert run.task == "regression"
        assert set(run.figures()) == {"learning_curves", "parity", "residuals"}
        predicted = run.predict(load_diabetes().data[4::5])
        assert predicted.shape == (88,)
        np.testing.assert_allclose(predicted[:10], [guess["prediction"] for guess in told], rtol=1e-5)
        assert np.abs(predicted - truth).mean() == pytest.approx(run.metrics["test_mean_absolute_error"], rel=1e-5)
    assert os.path.getsize(tmp_path / "page.html") > 10_000

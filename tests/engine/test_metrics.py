# ruff: noqa: I001 (tests.composed comes first: it starts Keras)
"""Metrics are handed what they read, those that cannot be computed are refused, and saved models need Keras alone."""

import json
import re
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as sklearn

from experiments.config import Refused
from tests.composed import Run, build, config, digits, keras, names, train
from experiments.engine.models import compile_as, encode_targets, for_keras_alone

pytestmark = [
    pytest.mark.one_version,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # Keras's own
]
LOGITS = ("loss.from_logits=true", "loss.output_activation=linear")
QUICK = ("epochs=2", "optimizer=adam", "optimizer.learning_rate=0.01", "model.layer_sizes=[16]", "data.limit=200")


def softmax(logits: Any) -> Any:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def sigmoid(logits: Any) -> Any:
    return 1 / (1 + np.exp(-logits))


@pytest.mark.parametrize(
    ("loss", "activation"),
    [
        ("categorical_crossentropy", softmax),
        ("sparse_categorical_crossentropy", softmax),
        ("categorical_focal_crossentropy", softmax),
        ("binary_crossentropy", sigmoid),
        ("binary_focal_crossentropy", sigmoid),
    ],
)
def test_metrics_that_need_probabilities_get_them(loss: str, activation: Any) -> None:
    named = "[accuracy,auc,precision,recall,categorical_crossentropy,crossentropy,{f1_score:{threshold:0.3}}]"
    run = train(*QUICK, *LOGITS, f"loss={loss}", f"metrics={named}", eager=True)
    test, measured = run.dataset.test, run.report.measures
    logits = run.model.predict(test.x, verbose=0)
    assert logits.min() < 0
    outputs, truth = activation(logits), np.eye(10)[test.y]
    assert measured["test_auc"] == pytest.approx(sklearn.roc_auc_score(truth.ravel(), outputs.ravel()), abs=2e-3)
    given = {"average": "micro", "zero_division": 0.0}
    assert measured["test_precision"] == pytest.approx(sklearn.precision_score(truth, outputs > 0.5, **given), abs=1e-6)
    assert measured["test_recall"] == pytest.approx(sklearn.recall_score(truth, outputs > 0.5, **given), abs=1e-6)
    f1 = sklearn.f1_score(truth, outputs > 0.3, average="macro", zero_division=0.0)
    assert measured["test_f1_score"] == pytest.approx(f1, abs=1e-5)
    shares = outputs / outputs.sum(axis=1, keepdims=True)
    for name in ("test_crossentropy", "test_categorical_crossentropy"):
        assert measured[name] == pytest.approx(sklearn.log_loss(test.y, shares, labels=range(10)), rel=1e-4)
    assert measured["test_accuracy"] == pytest.approx(np.mean(outputs.argmax(1) == test.y))


def test_intersections_are_those_of_classes() -> None:
    for loss in ("sparse_categorical_crossentropy", "categorical_crossentropy"):
        run = train(
            *QUICK, f"loss={loss}", "metrics=[{mean_io_u:{num_classes:classes}},{one_hot_mean_io_u:{num_classes:10}}]"
        )
        guess = run.model.predict(run.dataset.test.x, verbose=0).argmax(1)
        iou = sklearn.jaccard_score(run.dataset.test.y, guess, average="macro", zero_division=0.0)
        assert run.report.measures["test_mean_io_u"] == pytest.approx(iou, abs=1e-6)
        assert run.report.measures["test_one_hot_mean_io_u"] == pytest.approx(iou, abs=1e-6)


def refusal(*overrides: str) -> list[tuple[str, str, str]]:
    with pytest.raises(Refused) as caught:
        config(*overrides)
    return [(problem.where, problem.what, problem.remedy) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("overrides", "where", "what", "remedy"),
    [
        (
            ["loss=hinge", "metrics=[accuracy,auc]"],
            "metrics[1]",
            "auc needs probabilities, but the last layer's activation is tanh",
            "metrics=[accuracy]",
        ),
        (
            ["loss=categorical_hinge", "metrics=[recall]"],
            "metrics[0]",
            "recall needs probabilities, but the last layer's activation is linear",
            "loss.output_activation=softmax",
        ),
        (
            ["loss=huber", "model.output_activation=relu", "metrics=[accuracy,kl_divergence]"],
            "metrics[1]",
            "kl_divergence needs",
            "metrics=[accuracy]",
        ),
        (
            ["loss=hinge", "metrics=[{f1_score:{threshold:0.5}}]"],
            "metrics[0]",
            "f1_score needs probabilities",
            "metrics=[]",
        ),
        (
            ["metrics=[{f1_score:{average:null}}]"],
            "metrics[0].average",
            "got null, which is one value for each class",
            "'metrics=[{f1_score:{average:macro}}]'",
        ),
        (
            ["+loss.reduction=none"],
            "loss.reduction",
            "got none, which is one loss for each image",
            "loss.reduction=sum_over_batch_size",
        ),
        (
            ["metrics=[accuracy,{mine.M:{labels:whole}}]", "trust=[mine]"],
            "metrics[1].labels",
            "got 'whole', expected sparse",
            "",
        ),
    ],
)
def test_what_a_metric_cannot_read_is_refused(overrides: list[str], where: str, what: str, remedy: str) -> None:
    [problem] = refusal(*overrides)
    assert (problem[0], problem[2]) == (where, remedy)
    assert what in problem[1]


def test_one_remedy_mends_all_metrics() -> None:
    found = refusal("loss=hinge", "metrics=[auc,accuracy,recall,{f1_score:{average:null}}]")
    assert [problem[0] for problem in found] == ["metrics[0]", "metrics[2]", "metrics[3].average"]
    assert {problem[2] for problem in found} == {"'metrics=[accuracy,{f1_score:{average:macro}}]'"}
    config("loss=hinge", *shlex.split(found[0][2]))


@pytest.mark.parametrize(
    "overrides",
    [
        ["loss=hinge", "metrics=[accuracy,f1_score,categorical_hinge]"],
        ["loss=huber", "metrics=[auc]"],
        ["loss=hinge", "metrics=[{auc:{from_logits:true}}]"],
    ],
)
def test_what_a_metric_can_read_is_not_refused(overrides: list[str]) -> None:
    build(config(*overrides), digits())


OWN = """
import keras

class Sparse(keras.metrics.Metric):
    def __init__(self, name="sparse", weight=1.0):
        super().__init__(name=name)
        self.weight = weight
        self.right = self.add_weight(name="right", initializer="zeros")
        self.count = self.add_weight(name="count", initializer="zeros")
    def update_state(self, y_true, y_pred, sample_weight=None):
        assert len(y_true.shape) == 1, "expected whole numbers"
        right = keras.ops.equal(keras.ops.cast(y_true, "int64"), keras.ops.cast(keras.ops.argmax(y_pred, -1), "int64"))
        self.right.assign_add(self.weight * keras.ops.sum(keras.ops.cast(right, "float32")))
        self.count.assign_add(keras.ops.shape(y_true)[0])
    def result(self):
        return self.right / self.count

class OneHot(Sparse):
    def update_state(self, y_true, y_pred, sample_weight=None):
        assert y_true.shape[-1] == y_pred.shape[-1], "expected one-hot rows"
        super().update_state(keras.ops.argmax(y_true, -1), y_pred)

class NumPy(Sparse):
    def update_state(self, y_true, y_pred, sample_weight=None):
        self.count.assign_add(float(y_true.numpy().sum()))

class Length(Sparse):
    def update_state(self, y_true, y_pred, sample_weight=None):
        self.count.assign_add(len(y_true))

class Vector(Sparse):
    def result(self):
        return keras.ops.stack([self.right + 0, self.count + 0])

class Several(Sparse):
    def result(self):
        return {"right": self.right, "count": self.count}
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ownmetrics.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.usefixtures("own")
def test_a_metric_of_ones_own_gets_labels_as_the_loss_reads_them_or_as_its_entry_says() -> None:
    for loss, plain, translated in (
        ("sparse_categorical_crossentropy", "Sparse", "{ownmetrics.OneHot:{labels:one_hot}}"),
        ("categorical_crossentropy", "OneHot", "{ownmetrics.Sparse:{labels:sparse,name:other,weight:2}}"),
    ):
        named = f"metrics=[accuracy,ownmetrics.{plain},{translated}]"
        measured = train(*QUICK, f"loss={loss}", "trust=[ownmetrics]", named, "objective=test_accuracy").report.measures
        assert measured[f"test_{plain}"] == pytest.approx(measured["test_accuracy"])
    assert measured["test_other"] == pytest.approx(2 * measured["test_accuracy"])


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("spec", "told", "remedy"),
    [
        (
            "ownmetrics.OneHot",
            "ownmetrics.OneHot fails on a few samples with sparse labels: AssertionError: expected one-hot rows",
            "'metrics=[accuracy,{ownmetrics.OneHot:{labels:one_hot}}]'",
        ),
        ("{ownmetrics.Sparse:{labels:one_hot}}", "with one_hot labels: AssertionError: expected whole numbers", ""),
        ("ownmetrics.NumPy", "AttributeError: ", "'metrics=[accuracy,{ownmetrics.NumPy:{labels:one_hot}}]'"),
        ("ownmetrics.Length", "TypeError: len is not", "'metrics=[accuracy,{ownmetrics.Length:{labels:one_hot}}]'"),
        ("ownmetrics.Vector", "ownmetrics.Vector gives values of shape (2,), expected one number", ""),
        ("ownmetrics.Several", "ownmetrics.Several gives several values, expected one number", ""),
        ("{r2_score:{class_aggregation:null}}", "r2_score gives values of shape (10,), expected one number", ""),
    ],
)
def test_a_metric_that_cannot_be_computed_is_refused_before_training(spec: str, told: str, remedy: str) -> None:
    with pytest.raises(Refused) as caught:
        build(config(f"metrics=[accuracy,{spec}]", "trust=[ownmetrics]"), digits())
    [problem] = caught.value.problems
    assert (problem.where, problem.remedy) == ("metrics[1]", remedy)
    assert told in problem.what
    assert len(str(caught.value).splitlines()) <= 2


def test_a_number_of_classes_that_is_not_that_of_the_data_is_refused() -> None:
    with pytest.raises(Refused, match=re.escape("metrics[0].num_classes: got 3, but there are 10 classes")):
        build(config("metrics=[{mean_io_u:{num_classes:3}}]"), digits())


ARGUMENTS = [
    *([f"loss={name}"] for name in names("loss")),
    ["loss=categorical_crossentropy", *LOGITS, "loss.label_smoothing=0.2"],
    ["loss=binary_crossentropy", *LOGITS, "loss.label_smoothing=0.2"],
    ["loss=sparse_categorical_crossentropy", *LOGITS, "metrics=[accuracy,auc]"],
    ["loss=sparse_categorical_crossentropy", "metrics=[accuracy,f1_score,top_k_categorical_accuracy]"],
    ["loss=categorical_crossentropy", "metrics=[acc,sparse_top_k_categorical_accuracy,crossentropy]"],
    ["loss=huber", "loss.delta=0.1"],
    ["loss=categorical_focal_crossentropy", "loss.alpha=0.5", "loss.gamma=1"],
    ["loss=tversky", "loss.alpha=0.2", "loss.beta=0.9"],
    ["loss=mean_squared_error", "+loss.reduction=sum"],
    ["loss=sparse_categorical_crossentropy", "loss.ignore_class=3"],
    ["loss=categorical_generalized_cross_entropy", "loss.q=0.2"],
]


def test_a_loss_that_cannot_be_computed_is_refused_before_training() -> None:
    with pytest.raises(Refused, match=r"loss: sparse_categorical_crossentropy cannot be computed: "):
        build(config("loss.ignore_class=."), digits())


@pytest.mark.parametrize("overrides", ARGUMENTS, ids=str)
def test_the_saved_model_gives_the_recorded_measures(overrides: list[str], tmp_path: Path) -> None:
    run = train(*QUICK, "epochs=1", *overrides, eager=True)
    for_keras_alone(run.model, run.config).save(tmp_path / "model.keras")
    model = keras.models.load_model(tmp_path / "model.keras")
    x = run.dataset.test.x  # one of the models is compiled for graphs: with AVX-512 the last bits differ
    np.testing.assert_allclose(model.predict(x, verbose=0), run.model.predict(x, verbose=0), rtol=1e-5, atol=1e-6)
    ours = any(word in str(overrides) for word in ("auc", "f1_score", "sparse_top_k", "delta=0.1"))
    assert model.compiled != ours
    if ours:
        compile_as(run.config, model)
    check_measures(model, run)


def check_measures(model: Any, run: Run) -> None:
    test = run.dataset.test
    labels = encode_targets(test.y, run.config, 10)
    found = model.evaluate(test.x, labels, batch_size=1000, verbose=0, return_dict=True)
    assert {f"test_{name}": value for name, value in found.items()} == pytest.approx(
        dict(run.report.measures), rel=1e-5
    )


@pytest.mark.usefixtures("own")
def test_saved_models_load_and_predict_with_keras_alone(tmp_path: Path) -> None:
    """Also those with metrics that need code of ours, or of the user's own."""
    cases = [
        ["metrics=[accuracy]"],
        [*LOGITS, "metrics=[accuracy,auc,f1_score]", "optimizer/schedule=cosine"],
        ["trust=[ownmetrics]", "metrics=[accuracy,ownmetrics.Sparse]", "model.dropout=0.1"],
    ]
    expected = []
    for number, overrides in enumerate(cases):
        checked = config(*QUICK, *overrides)
        model = build(checked, digits())
        for_keras_alone(model, checked).save(tmp_path / f"{number}.keras")
        expected.append(model.predict(digits().test.x[:3], verbose=0).tolist())
        with zipfile.ZipFile(tmp_path / f"{number}.keras") as archive:
            text = archive.read("config.json").decode()
        assert "experiments" not in text
        assert "ownmetrics" not in text
    np.save(tmp_path / "x.npy", digits().test.x[:3])
    script = """
import json, sys
sys.modules["experiments"] = sys.modules["ownmetrics"] = None
import keras, numpy as np
x = np.load("x.npy")
print(json.dumps([keras.models.load_model(f"{number}.keras").predict(x, verbose=0).tolist() for number in range(3)]))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(json.loads(done.stdout), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("loss", "activation"),
    [
        (("loss=binary_crossentropy",), "sigmoid"),
        (("loss=binary_crossentropy", "loss.from_logits=true", "loss.output_activation=linear"), "sigmoid"),
        (("loss=sparse_categorical_crossentropy",), "softmax"),
        (("loss.from_logits=true", "loss.output_activation=linear"), "softmax"),
    ],
)
def test_every_crossentropy_is_that_of_the_probabilities(loss: tuple[str, ...], activation: str) -> None:
    """Keras's own would compute them from the logits, each with the activation that it takes for granted."""
    run = train("metrics=[crossentropy,binary_crossentropy]", *loss, "epochs=1", "model.layer_sizes=[8]")
    outputs, truth = run.model.predict(run.dataset.test.x, verbose=0).astype(np.float64), run.dataset.test.y
    if "loss.from_logits=true" in loss:
        powers = np.exp(outputs)
        outputs = powers / (1 + powers) if activation == "sigmoid" else powers / powers.sum(axis=1, keepdims=True)
    one_hot = np.eye(10)[truth]
    shares = (outputs / outputs.sum(axis=1, keepdims=True))[np.arange(len(truth)), truth]
    binary = -(one_hot * np.log(outputs) + (1 - one_hot) * np.log(1 - outputs)).mean()
    assert run.report.measures["test_crossentropy"] == pytest.approx(-np.log(shares).mean(), rel=1e-4)
    assert run.report.measures["test_binary_crossentropy"] == pytest.approx(binary, rel=1e-4)

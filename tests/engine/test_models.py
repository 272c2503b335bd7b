# ruff: noqa: I001 (tests.composed comes first: it starts Keras)
import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from experiments.config import Refused
from tests.composed import CONF, build, config, digits, images, keras, names, train
from experiments.engine.models import encode_targets

pytestmark = pytest.mark.one_version

OPTIMIZER_WRAPPERS = {"LossScaleOptimizer", "MultiOptimizer"}  # they take optimizers; Keras adds the first by itself
LOSSES_LEFT_OUT = {
    "CTC": "for sequences",
    "Circle": "for embeddings",
    "MeanAbsolutePercentageError": "divides by the zeros of one-hot labels",
}


def plain(name: str) -> str:
    return name.lower().replace("_", "")


def of_keras(module: Any, base: type) -> dict[str, type]:
    found = {name: value for name, value in vars(module).items() if inspect.isclass(value) and value is not base}
    return {name: value for name, value in found.items() if issubclass(value, base)}


def refusal(*overrides: str, **changes: Any) -> str:
    with pytest.raises(Refused) as caught:
        build(config(*overrides), **{"dataset": digits(), **changes})
    message = str(caught.value)
    assert len(message.splitlines()) <= 2 * len(caught.value.problems)
    return message


def test_every_optimizer_of_keras_has_a_file() -> None:
    known = set(of_keras(keras.optimizers, keras.optimizers.Optimizer)) - OPTIMIZER_WRAPPERS
    assert {plain(name) for name in names("optimizer")} == {plain(name) for name in known}


@pytest.mark.parametrize("name", names("optimizer"))
def test_an_optimizers_file_has_keras_arguments_and_defaults(name: str) -> None:
    known = {plain(key): value for key, value in of_keras(keras.optimizers, keras.optimizers.Optimizer).items()}
    parameters = inspect.signature(known[plain(name)].__init__).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.name not in ("self", "name", "kwargs")}
    file = yaml.safe_load((CONF / "optimizer" / f"{name}.yaml").read_text())
    assert file.pop("name") == name
    assert file == defaults


@pytest.mark.parametrize("name", names("optimizer"))
def test_every_optimizer_trains(name: str) -> None:
    run = train(f"optimizer={name}", "data.limit=40", "epochs=1", "model.layer_sizes=[4]", eager=True)
    before = build(run.config, run.dataset).get_weights()
    assert all(np.isfinite(weight).all() for weight in run.weights)
    assert any((old != new).any() for old, new in zip(before, run.weights, strict=True))


def test_every_loss_of_keras_has_a_file() -> None:
    known = set(of_keras(keras.losses, keras.losses.Loss)) - set(LOSSES_LEFT_OUT)
    assert {plain(name) for name in names("loss")} == {plain(name) for name in known}


@pytest.mark.parametrize("name", names("loss"))
def test_a_losss_file_has_keras_arguments_and_defaults(name: str) -> None:
    known = {plain(key): value for key, value in of_keras(keras.losses, keras.losses.Loss).items()}
    parameters = inspect.signature(known[plain(name)].__init__).parameters.values()
    ours = ("self", "name", "reduction", "dtype", "axis", "kwargs")
    file = yaml.safe_load((CONF / "loss" / f"{name}.yaml").read_text())
    assert (file.pop("name"), file.pop("labels") in ("sparse", "one_hot")) == (name, True)
    assert file.pop("output_activation") in ("softmax", "sigmoid", "tanh", "linear")
    assert file == {p.name: p.default for p in parameters if p.name not in ours}


@pytest.mark.parametrize("name", names("loss"))
def test_every_loss_learns(name: str) -> None:
    run = train(f"loss={name}", "optimizer=adam", "epochs=4", "model.layer_sizes=[16]", eager=True)
    assert run.history["loss"][-1] < run.history["loss"][0]


@pytest.mark.parametrize(
    "overrides",
    [
        ["loss.from_logits=true", "loss.output_activation=linear"],
        ["loss=categorical_crossentropy", "loss.label_smoothing=0.1"],
        ["model.batch_normalization=true", "model.dropout=0.2", "model.regularizer=l2"],
        ["model.regularizer={L2: {l2: 0.001}}"],
        ["model=sequential", "model.layers=[Flatten,{Dense: {units: classes, activation: softmax}}]"],
        ["batch_size=1000"],
    ],
    ids=str,
)
def test_variants_train(overrides: list[str]) -> None:
    run = train("data.limit=40", *overrides, eager=True)
    assert np.isfinite(run.history["loss"]).all()


@pytest.mark.parametrize(("name", "channels"), [("convnet", 1), ("convnet", 3), ("lenet5", 1), ("sequential", 3)])
def test_networks_take_images_of_any_size_and_colour(name: str, channels: int) -> None:
    run = train(f"model={name}", dataset=images(channels=channels), eager=True)
    assert run.model.output_shape == (None, 3)


def test_the_mlp_is_built_as_it_says() -> None:
    model = build(config("model.layer_sizes=[6,5]", "model.batch_normalization=true", "model.dropout=0.5"), digits())
    block = ["Dense", "BatchNormalization", "Activation", "Dropout"]
    assert [type(layer).__name__ for layer in model.layers] == ["Flatten", *block, *block, "Dense"]
    assert [w.shape for w in build(config("model.layer_sizes=[6]"), digits()).weights] == [
        (64, 6),
        (6,),
        (6, 10),
        (10,),
    ]
    regular = build(config("model.regularizer={L2: {l2: 0.5}}"), digits())
    assert [layer.kernel_regularizer.l2 for layer in regular.layers[1:]] == [0.5, 0.5]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["model=lenet5"], "model.layers[2]: does not fit what comes before it, (None, 4, 4, 6): Computed output size"),
        (
            ["model=convnet"],
            "model.layers[3]: does not fit what comes before it, (None, 1, 1, 64): Computed output size",
        ),
        (["model=sequential", "model.layers=[{LSTM: {units: 3}}]"], "model.layers[0]: does not fit"),
        (["model=sequential", "model.layers=[Flaten]"], "model.layers[0]: Keras has no layer 'Flaten'; did you mean"),
        (
            ["model=sequential", "model.layers=[{Dense: {unit: 3}},Softmax]"],
            "model.layers[0].unit: Dense has no such argument",
        ),
        (["model=sequential", "model.layers=[{Flatten: null},Softmax]"], "gives (64,), expected (10,): one output per"),
        (["model=sequential", "model.layers=[{Cropping2D: {cropping: 4}},Softmax]"], "model.layers[0]: "),
        (["model.activation=reluu"], "model.activation: Keras has no activation 'reluu'; did you mean 'relu'?"),
        (["model.activation=reluu", "model.batch_normalization=true"], "model.activation: Keras has no activation"),
        (["model.regularizer=l3"], "model.regularizer: Keras has no regularizer 'l3'"),
        (["model.regularizer={L2: {l1: 3}}"], "model.regularizer.l1: L2 has no such argument"),
        (["+optimizer.nesterov=true"], "optimizer.nesterov: RMSprop has no such argument"),
        (["+loss.label_smoothing=0.1"], "loss.label_smoothing: SparseCategoricalCrossentropy has no such argument"),
        (["metrics=[acuracy]"], "metrics[0]: Keras has no metric 'acuracy'; did you mean 'accuracy'?"),
        (["metrics=[accuracy,{auc: {k: 3}}]"], "metrics[1].k: AUC has no such argument"),
        (
            ["optimizer/schedule=cosine", "optimizer.schedule.warmup_epochs=x"],
            "warmup_epochs: got 'x', expected a number",
        ),
        (["optimizer/schedule=exponential", "optimizer.schedule.decay_epochs=-1"], "decay_epochs: got -1, expected"),
        (["optimizer/schedule=piecewise", "optimizer.schedule.factors=[1]"], "boundaries should be 1 less than"),
        (["optimizer/schedule=cosine", "+optimizer.schedule.m=1"], "optimizer.schedule.m: CosineDecay has no such"),
    ],
    ids=str,
)
def test_what_only_keras_knows_is_refused(overrides: list[str], expected: str) -> None:
    assert expected in refusal(*overrides)


def test_features_do_not_fit_convolutions() -> None:
    x = digits().train.x.reshape(100, -1)
    flat = type(digits())("flat", "", "", 10, type(digits().train)(x, digits().train.y), None, digits().test)
    assert "model.layers[0]: does not fit what comes before it, (None, 64)" in refusal("model=convnet", dataset=flat)
    assert build(config(), flat).output_shape == (None, 10)


RATE, STEPS, EPOCHS = 0.1, 10, 4  # 100 images in batches of 10


def rate_at(*overrides: str, epochs: float, optimizer: str = "adam") -> float:
    setting = [f"optimizer={optimizer}", f"optimizer.learning_rate={RATE}", f"epochs={EPOCHS}", "batch_size=10"]
    schedule = build(config(*setting, *overrides), digits()).optimizer._learning_rate
    return float(schedule(round(epochs * STEPS)))


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        ("cosine", [], {0: 1, 2: 0.5, 4: 0, 5: 0}),
        ("cosine", ["alpha=0.1"], {0: 1, 2: 0.55, 4: 0.1}),
        ("cosine", ["warmup_epochs=2"], {0: 0, 1: 0.5, 2: 1, 3: 0.5, 4: 0}),
        ("cosine", ["warmup_epochs=0.5", "decay_epochs=2"], {0.1: 0.2, 0.5: 1, 1.5: 0.5, 2.5: 0}),
        ("cosine_restarts", [], {0: 1, 0.5: 0.5, 1: 1, 2: 0.5, 3: 1}),
        ("exponential", [], {0: 1, 1: 0.9, 2: 0.81, 0.5: 0.9**0.5}),
        ("exponential", ["staircase=true"], {0.9: 1, 1: 0.9, 1.9: 0.9}),
        ("inverse_time", [], {0: 1, 1: 1 / 1.5, 2: 0.5}),
        ("piecewise", ["boundary_epochs=[1,3]"], {0: 1, 0.9: 1, 1: 0.1, 2.9: 0.1, 3: 0.01, 4: 0.01}),
        ("polynomial", ["end_learning_rate=0.02"], {0: 1, 2: 0.6, 4: 0.2, 9: 0.2}),
    ],
    ids=str,
)
def test_schedules_count_in_epochs(name: str, changes: list[str], expected: dict[float, float]) -> None:
    overrides = [f"optimizer/schedule={name}", *(f"optimizer.schedule.{change}" for change in changes)]
    rates = {epoch: rate_at(*overrides, epochs=epoch) / RATE for epoch in expected}
    assert rates == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("optimizer", ["sgd", "rmsprop", "adamw", "lion", "muon", "schedule_free_adamw"])
def test_schedules_go_with_optimizers(optimizer: str) -> None:
    assert rate_at("optimizer/schedule=cosine", epochs=2, optimizer=optimizer) == pytest.approx(RATE / 2)


def test_every_schedule_file_is_built() -> None:
    for name in names("optimizer/schedule"):
        build(config(f"optimizer/schedule={name}"), digits())


METRICS = "metrics=[accuracy,auc,f1_score,sparse_top_k_categorical_accuracy,{top_k_categorical_accuracy: {k: 5}}]"


@pytest.mark.parametrize("loss", ["sparse_categorical_crossentropy", "categorical_crossentropy"])
def test_metrics_read_the_labels_as_they_need_them(loss: str) -> None:
    run = train(f"loss={loss}", METRICS, "epochs=1", eager=True)
    test, measures = run.dataset.test, run.report.measures
    outputs = run.model.predict(test.x, verbose=0)
    first_five = np.mean([label in row.argsort()[-5:] for label, row in zip(test.y, outputs, strict=True)])
    assert measures["test_accuracy"] == pytest.approx(np.mean(outputs.argmax(1) == test.y))
    assert measures["test_sparse_top_k_categorical_accuracy"] == pytest.approx(first_five)
    assert measures["test_top_k_categorical_accuracy"] == pytest.approx(first_five)
    from sklearn.metrics import f1_score, roc_auc_score

    assert measures["test_f1_score"] == pytest.approx(f1_score(test.y, outputs.argmax(1), average="macro"), abs=1e-6)
    assert measures["test_auc"] == pytest.approx(roc_auc_score(np.eye(10)[test.y].ravel(), outputs.ravel()), abs=0.01)
    assert all(isinstance(values[0], float) for values in run.history.values())


@pytest.mark.parametrize("metric", ["sparse_top_k_categorical_accuracy", "top_k_categorical_accuracy", "auc"])
def test_metrics_take_the_outputs_of_half_precision(metric: str) -> None:
    """TensorFlow's top k takes no bfloat16."""
    run = train("precision=mixed_bfloat16", f"metrics=[accuracy,{metric}]", "epochs=1", "model.layer_sizes=[4]")
    assert 0 <= run.report.measures[f"test_{metric}"] <= 1


@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_computes_in_sixteen_bits(precision: str) -> None:
    run = train(f"precision={precision}", "optimizer.clipnorm=1.0", "data.limit=40", eager=True)
    assert run.model.layers[-2].compute_dtype == precision.removeprefix("mixed_")
    assert run.model.layers[-1].compute_dtype == "float32"  # or outputs were rounded to 8 or 11 bits
    assert {weight.dtype.name for weight in run.weights} == {"float32"}
    assert isinstance(run.model.optimizer, keras.optimizers.LossScaleOptimizer) == (precision == "mixed_float16")


def test_labels_are_encoded_as_the_loss_reads_them() -> None:
    y = np.array([1, 0, 2])
    np.testing.assert_array_equal(encode_targets(y, config(), 3), y)
    np.testing.assert_array_equal(encode_targets(y, config("loss=huber"), 3), np.eye(3)[y])


@pytest.mark.parametrize("sizes", ["[1,100000000000,1]", "[100000000000]"])
def test_a_network_that_is_larger_than_memory_is_refused(sizes: str) -> None:
    with pytest.raises(
        Refused,
        match=r"model.layer_sizes\[\d\]: (its outputs|the weights .*) need .* GiB, and .* GiB of memory are free",
    ):
        build(config(f"model.layer_sizes={sizes}"), digits())


@pytest.mark.parametrize(
    "layer",
    [
        "{LSTM: {units: 200000}}",
        "{GRU: {units: 200000}}",
        "{Bidirectional: {layer: {LSTM: {units: 200000, recurrent_initializer: orthogonal}}}}",
        "{Conv1D: {filters: 4000000000, kernel_size: 8}}",
        "{TimeDistributed: {layer: {Dense: {units: 20000000000}}}}",
    ],
)
def test_weights_of_any_kind_of_layer_are_refused_before_they_are_made(layer: str) -> None:
    """Also those of the last layer, and of a layer within another."""
    own = f"model.layers=[{{Reshape: {{target_shape: [8,8]}}}},{layer}]"
    with pytest.raises(Refused, match=r"model.layers\[1\]: the weights up to here and their gradients need"):
        build(config("model=sequential", own), digits())


def test_all_weights_and_their_gradients_have_to_fit_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.system.resources.available_memory", lambda: 90000)
    build(config("model.layer_sizes=[64]", "batch_size=8"), digits())
    with pytest.raises(Refused, match=r"model.layer_sizes\[2\]: the weights up to here and their gradients need"):
        build(config("model.layer_sizes=[64,64,64]", "batch_size=8"), digits())


def test_the_images_that_are_measured_at_once_have_to_fit_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.system.resources.available_memory", lambda: 300_000)
    wide = (
        "model=sequential",
        "model.layers=[{UpSampling2D: {size: 6}},Flatten,{Dense: {units: 10, activation: softmax}}]",
        "batch_size=8",
    )
    build(config(*wide, "runtime.evaluation_batch_size=8"), digits())
    with pytest.raises(Refused, match=r"layers\[0\]: .* when the model is measured(.|\n)*evaluation_batch_size=8"):
        build(config(*wide), digits())


@pytest.mark.parametrize("value", ["1e300", "10000000000000000000000"])
def test_a_schedule_that_is_too_long_is_refused(value: str) -> None:
    with pytest.raises(Refused, match=r"optimizer.schedule.decay_epochs: (got .* at most 1000000000|.* 64 bits)"):
        build(config("optimizer/schedule=cosine", f"optimizer.schedule.decay_epochs={value}"), digits())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of NumPy, within Keras
def test_a_model_of_half_precision_is_loaded_with_its_optimizer(tmp_path: Path) -> None:
    run = train("precision=mixed_float16", "epochs=1", "model.layer_sizes=[4]", "data.limit=40")
    run.model.save(tmp_path / "model.keras")
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")  # as where the model is used
    try:
        loaded = keras.saving.load_model(tmp_path / "model.keras")  # warns of what it does not restore
    finally:
        keras.config.set_dtype_policy(policy)
    state = [[weight.numpy() for weight in model.optimizer.variables] for model in (loaded, run.model)]
    np.testing.assert_equal(*state)

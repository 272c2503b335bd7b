# ruff: noqa: I001 (tests.composed comes first: it starts Keras)
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from experiments.config import RunFailed
from experiments.data import Dataset, Split
from tests.prepared import Prepared, environment
from tests.composed import build, config, digits, keras, loaded, train
from experiments.engine.models import encode_targets
from experiments.engine.training import Batches, choose, fit, measurer

pytestmark = pytest.mark.one_version


def numbered(count: int) -> Dataset:
    """Inputs that say which they are."""
    split = Split(np.arange(count, dtype=np.float32)[:, None], np.arange(count) % 2)
    return Dataset("numbered", "", "", 2, split, None, split)


def order(seed: int, epoch: int, count: int = 53, size: int = 10) -> list[int]:
    batches = Batches(numbered(count), config(f"batch_size={size}", f"seed={seed}"))
    batches.follow_epochs().on_epoch_begin(epoch)
    parts = [x.numpy().ravel() for x, _ in batches.dataset]
    assert [len(part) for part in parts] == [size] * (count // size) + ([count % size] if count % size else [])
    return np.concatenate(parts).astype(int).tolist()


def test_every_image_comes_once_an_epoch_with_its_label() -> None:
    for epoch in range(3):
        assert sorted(order(0, epoch)) == list(range(53))
    for x, y in Batches(numbered(20), config("batch_size=6")).dataset:
        np.testing.assert_array_equal(x.numpy().ravel() % 2, y)


def test_the_order_follows_from_seed_and_epoch_alone() -> None:
    assert order(0, 3) == order(0, 3)
    orders = {tuple(order(seed, epoch)) for seed in (0, 1) for epoch in (0, 1, 2)}
    assert len(orders) == 6


def test_a_later_start_gets_the_same_batches() -> None:
    seen: list[list[int]] = []

    class Look(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            if tf.executing_eagerly():  # not when Keras infers shapes
                seen[-1].extend(int(number) for number in x.numpy().ravel())
            return x

    def run(initial_epoch: int) -> list[list[int]]:
        seen[:] = []
        batches = Batches(numbered(23), config("batch_size=5"))
        model = keras.Sequential([keras.Input((1,)), Look(), keras.layers.Dense(1)])
        model.compile(loss="mse", run_eagerly=True)
        start = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: seen.append([]))
        model.fit(
            batches.dataset,
            epochs=4,
            shuffle=False,
            initial_epoch=initial_epoch,
            verbose=0,
            callbacks=[start, batches.follow_epochs()],
        )
        return list(seen)

    whole = run(0)
    assert whole[2:] == run(2)
    assert whole[0] == order(0, 0, 23, 5)


@pytest.mark.parametrize(
    ("steps_per_execution", "batch_size", "loss"),
    [(1, 32, "sparse_categorical_crossentropy"), (3, 30, "categorical_crossentropy"), (64, 7, "huber")],
)
def test_training_is_plain_keras_to_the_last_digit(steps_per_execution: int, batch_size: int, loss: str) -> None:
    overrides = [f"runtime.steps_per_execution={steps_per_execution}", f"batch_size={batch_size}", f"loss={loss}"]
    ours = train(*overrides, "model.dropout=0.3", "runtime.xla=false", "epochs=3")
    config, dataset = ours.config, ours.dataset
    plain = build(config, dataset)
    plain.compile(optimizer=plain.optimizer, loss=plain.loss, metrics=config.metrics)
    x, y = dataset.train.x, encode_targets(dataset.train.y, config, dataset.outputs)
    for epoch in range(3):
        order = tf.random.experimental.stateless_shuffle(tf.range(len(x)), seed=[config.seed, epoch]).numpy()
        history = plain.fit(x[order], y[order], shuffle=False, epochs=1, batch_size=batch_size, verbose=0).history
        assert history == {name: [values[epoch]] for name, values in ours.history.items()}
    for expected, weight in zip(plain.get_weights(), ours.weights, strict=True):
        np.testing.assert_array_equal(weight, expected)


@pytest.mark.parametrize(
    ("trouble", "told"),
    [
        ("OOM when allocating tensor", "memory ran out while training. Try a smaller batch_size than 128"),
        (
            "/tmp/program.pb; No space left on device",
            "for what XLA compiles. Set TMPDIR to a folder on",
        ),
    ],
)
def test_what_ran_out_is_told(monkeypatch: pytest.MonkeyPatch, trouble: str, told: str) -> None:
    def fit(*args: Any, **kwargs: Any) -> None:
        raise tf.errors.ResourceExhaustedError(None, None, trouble)

    monkeypatch.setattr(keras.Sequential, "fit", fit)
    with pytest.raises(RunFailed, match=re.escape(told)):
        train()


def test_memory_that_runs_out_while_measuring_is_told() -> None:
    class Large:
        def reset_metrics(self) -> None: ...

        def __call__(self, x: Any, training: bool) -> None:
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    dataset = digits(20)
    measure = measurer(Large(), config(), dataset.outputs, 7)
    with pytest.raises(RunFailed, match=r"while measuring. Try a smaller runtime.evaluation_batch_size than 7"):
        measure(dataset.test)


FRESH = """
import hashlib, sys
from tests.composed import train, images
cases = [(["model.dropout=0.5", "data.validation_size=0.2"], None), (["model=convnet"], images())]
for overrides, dataset, seed in [(*case, seed) for seed in sys.argv[1:] for case in cases]:
    run = train(*overrides, f"seed={seed}", "epochs=1", dataset=dataset)
    print(hashlib.sha256(b"".join(weight.tobytes() for weight in run.weights)).hexdigest(), run.report.measures)
"""


def test_a_seed_gives_the_same_weights_in_every_process(prepared: Prepared, tmp_path: Path) -> None:
    root, program = Path(__file__).parents[2], tmp_path / "program.py"
    program.write_text(FRESH)
    command = [sys.executable, "-c", FRESH, "3", "4"]
    fresh = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    first = prepared(str(program), "3", cwd=root, env=environment()).stdout.splitlines()
    again = fresh.stdout.splitlines()
    assert len(first) == 2
    assert first == again[:2]
    assert first[0] != again[2]
    assert first[1] != again[3]


@pytest.mark.parametrize(
    "overrides",
    [
        ["metrics=[accuracy,auc,f1_score]", "model.regularizer=l2", "model.batch_normalization=true"],
        ["loss.from_logits=true", "loss.output_activation=linear"],
        ["loss=dice", "metrics=[accuracy,sparse_top_k_categorical_accuracy]"],
        ["loss=categorical_focal_crossentropy", "precision=mixed_float16"],
        ["precision=mixed_bfloat16"],
    ],
    ids=str,
)
def test_the_measurer_measures_what_keras_evaluate_does(overrides: list[str]) -> None:
    run = train(*overrides, "data.limit=150", eager=True)
    model, test = run.model, run.dataset.test
    model.layers[-1].kernel.assign(100 * model.layers[-1].kernel)  # sure of itself: tiny probabilities
    labels = encode_targets(test.y, run.config, 10)
    expected = model.evaluate(test.x, labels, batch_size=64, verbose=0, return_dict=True)
    measured, outputs = measurer(model, run.config, 10, batch_size=64)(test)
    assert measured == pytest.approx(expected, rel=1e-5)
    assert measured["loss"] > 0.5
    assert outputs.dtype == np.float32
    np.testing.assert_allclose(outputs, model.predict(test.x, batch_size=64, verbose=0).astype(np.float32), atol=1e-5)


def test_validation_during_training_is_that_after_it() -> None:
    run = train("data.validation_size=0.3", "runtime.evaluation_batch_size=7", "runtime.steps_per_execution=3")
    for name in ("loss", "accuracy"):
        assert run.history[f"val_{name}"][-1] == pytest.approx(run.report.measures[f"final_val_{name}"], abs=1e-6)


def test_choices_follow_from_config_and_data() -> None:
    few = choose(config("batch_size=10", "epochs=3"), digits(), 2)
    assert (few.threads, few.xla, few.steps_per_execution) == (2, False, 10)
    many = choose(config("batch_size=1", "epochs=15"), digits(), 2)
    assert (many.xla, many.steps_per_execution) == (True, 64)
    assert not choose(config("model=convnet", "epochs=1000"), digits(), 2).xla  # slower there
    given = choose(config("runtime.xla=true", "runtime.steps_per_execution=2", "batch_size=10"), digits(), 2)
    assert (given.xla, given.steps_per_execution) == (True, 2)


def test_xla_trains() -> None:
    xla, plain = (train(f"runtime.xla={on}", "batch_size=30", "epochs=1") for on in ("true", "false"))
    assert xla.history["loss"] == pytest.approx(plain.history["loss"], rel=1e-4)


def test_epochs_are_handed_on_and_time_is_taken() -> None:
    seen: list[tuple[int, dict[str, float]]] = []
    checked = config("data.limit=40")
    model = build(checked, digits(40))
    watcher = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append((epoch, dict(logs))))
    history = fit(model, digits(40), checked, choose(checked, digits(40), 1), [watcher])
    assert [epoch for epoch, _ in seen] == [0, 1]
    assert [metrics["loss"] for _, metrics in seen] == history.metrics["loss"]
    assert history.timings["samples_per_second"] == pytest.approx(80 / history.timings["fit_seconds"])


def test_the_learning_rate_of_a_schedule_is_recorded_by_epoch() -> None:
    cosine = ["optimizer/schedule=cosine", "optimizer.learning_rate=0.1"]
    run = train(*cosine, "data.limit=40", "batch_size=10", "epochs=4", eager=True)
    expected = [0.05 * (1 + math.cos(math.pi * epoch / 4)) for epoch in range(1, 5)]
    assert run.history["learning_rate"] == pytest.approx(expected, abs=1e-6)


def averaged(overrides: list[str], momentum: float, every: int | None) -> tuple[list[float], list[list[Any]]]:
    """Validation losses and averaged weights by epoch, by plain steps of Keras and averages in NumPy."""
    checked = config(*overrides, "optimizer.use_ema=false", "callbacks=[]")
    dataset = loaded(checked.data, 0)
    assert dataset.validation
    model = build(checked, dataset)
    model.run_eagerly = True
    x, y = dataset.train.x, dataset.train.y
    averages, losses, by_epoch, steps = model.get_weights(), [], [], 0
    for epoch in range(checked.epochs):
        order = tf.random.experimental.stateless_shuffle(tf.range(len(x)), seed=[checked.seed, epoch]).numpy()
        for start in range(0, len(x), checked.batch_size):
            part = order[start : start + checked.batch_size]
            model.train_on_batch(x[part], y[part])
            share = momentum if steps else 0
            averages = [share * a + (1 - share) * w for a, w in zip(averages, model.get_weights(), strict=True)]
            steps += 1
            if every and steps % every == 0:
                model.set_weights(averages)
        trained = model.get_weights()
        model.set_weights(averages)
        losses.append(model.evaluate(dataset.validation.x, dataset.validation.y, verbose=0, return_dict=True)["loss"])
        by_epoch.append(averages)
        model.set_weights(trained)
    return losses, by_epoch


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")  # Keras's own
@pytest.mark.parametrize("every", [None, 3])
@pytest.mark.parametrize("rate", [0.05, 5.0])
def test_averaged_weights_are_validated_measured_and_kept(every: int | None, rate: float, tmp_path: Path) -> None:
    """With each combination of callbacks, and where training stops early; expected from steps of plain Keras."""
    common = ["optimizer=sgd", f"optimizer.learning_rate={rate}", "epochs=4", "batch_size=10", "model.layer_sizes=[4]",
        "data.limit=40", "data.validation_size=0.5", "optimizer.use_ema=true", "optimizer.ema_momentum=0.5",
        f"optimizer.ema_overwrite_frequency={every or 'null'}"]  # fmt: skip
    losses, weights = averaged(common, 0.5, every)
    worse = next((epoch for epoch in range(1, 4) if losses[epoch] > min(losses[:epoch])), 3)
    assert (worse < 3) == (rate == 5.0)
    best = int(np.argmin(losses[: worse + 1]))
    for number, (callbacks, restores, stops) in enumerate(COMBINATIONS):
        tuned = [
            f"callbacks.early_stopping.{item}" for item in ("patience=1", f"restore_best_weights={restores}") if stops
        ]
        folder = tmp_path / str(number)
        folder.mkdir()
        run = train(*common, f"callbacks=[{callbacks}]", *tuned, folder=folder, eager=True)
        last = worse if stops else 3
        assert run.history["val_loss"] == pytest.approx(losses[: last + 1], rel=1e-4)
        kept = best if restores == "true" else last
        assert run.report.measures["final_val_loss"] == pytest.approx(losses[kept], rel=1e-4)
        for weight, expected in zip(run.weights, weights[kept], strict=True):
            np.testing.assert_allclose(weight, expected, atol=1e-4)
        if "best_weights" in callbacks:
            run.model.load_weights(folder / "best.weights.h5")
            for weight, expected in zip(run.weights, weights[int(np.argmin(losses[: last + 1]))], strict=True):
                np.testing.assert_allclose(weight, expected, atol=1e-4)


COMBINATIONS = [
    ("", "", False),
    ("swap_ema_weights", "", False),
    ("best_weights", "", False),
    ("early_stopping", "true", True),
    ("early_stopping,swap_ema_weights", "false", True),
    ("swap_ema_weights,early_stopping,best_weights", "true", True),
    ("best_weights,early_stopping", "false", True),
]

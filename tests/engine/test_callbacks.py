# ruff: noqa: I001 (tests.composed comes first: it starts Keras)
import inspect
import random
import re
import shlex
import signal
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from experiments.engine.checkpoints import Checkpoints
from experiments.config import Refused, RunFailed
from experiments.config.callback_checks import FILE_ARGUMENTS
from tests.composed import build as build_model, config, digits, train
import keras
from experiments.engine import vocabulary
from experiments.engine.callbacks import build
from experiments.engine.run_callbacks import KeepCheckpoints
from experiments.engine.training import choose, fit

pytestmark = pytest.mark.one_version


@pytest.mark.parametrize("callback", ["[]", "terminate_on_nan"])
def test_a_loss_that_is_not_a_number_fails_the_run(callback: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RunFailed, match=r"the loss became (nan|inf) in epoch 1.*learning rate.*clipnorm.*data\.scale"):
        train("optimizer.learning_rate=1e30", f"callbacks={callback}", "batch_size=10", "data.limit=40", eager=True)


def test_weights_that_are_not_finite_fail_the_run() -> None:
    """Adafactor divides 0 by 0 for pixels that are always 0, and the curves look finite all the same."""
    with pytest.raises(RunFailed, match=r"weights of .*kernel became NaN or infinite in epoch 1.*learning rate"):
        train("optimizer=adafactor", "data.validation_size=0.2")


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")  # Keras's own
def test_every_callback_works(tmp_path: Path) -> None:
    every = "callbacks=[best_weights,csv_log,early_stopping,reduce_lr_on_plateau,swap_ema_weights,terminate_on_nan]"
    run = train(every, "data.validation_size=0.2", "optimizer.use_ema=true", folder=tmp_path, eager=True)
    assert (tmp_path / "best.weights.h5").is_file()
    header, *lines = (tmp_path / "epochs.csv").read_text().splitlines()
    assert header == "epoch,accuracy,loss,val_accuracy,val_loss"
    assert len(lines) == 2
    assert run.history["learning_rate"] == pytest.approx([0.001] * 2)


def test_early_stopping_ends_with_the_best_weights() -> None:
    run = train(
        "callbacks=early_stopping", "callbacks.early_stopping.patience=1", "callbacks.early_stopping.monitor=loss",
        "callbacks.early_stopping.min_delta=100.0", "epochs=9", "data.limit=40", eager=True,
    )  # fmt: skip
    assert len(run.history["loss"]) == 2


def built(*overrides: str, folder: Path) -> list[Any]:
    return build(config(*overrides), folder)


@pytest.mark.parametrize("path", ["/tmp/elsewhere.csv", "../elsewhere.csv", "deeper/../../elsewhere.csv"])
def test_callbacks_write_into_the_output_folder_only(tmp_path: Path, path: str) -> None:
    with pytest.raises(Refused, match="not in the run's output folder") as caught:
        built("callbacks=csv_log", f"callbacks.csv_log.filename={path}", folder=tmp_path)
    remedy = caught.value.problems[0].remedy
    assert built("callbacks=csv_log", remedy, folder=tmp_path)[0].filename == str(tmp_path / "elsewhere.csv")


def test_bad_callbacks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        Refused, match=r"callbacks.csv_log.file_name: CSVLogger has no such argument; did you mean 'filename'"
    ):
        built("callbacks=csv_log", "+callbacks.csv_log.file_name=1", folder=tmp_path)
    with pytest.raises(Refused, match=r"callbacks.mine.name: Keras has no callback 'EarlyStoping'; did you mean"):
        built("+callbacks.mine={name: EarlyStoping}", folder=tmp_path)


OUT = "tensorboard, which is not installed" if find_spec("tensorboard") is None else "nothing"
REFUSED = [
    ("callbacks=csv_log", "callbacks.csv_log.filename=3", "csv_log.filename: got 3, expected the name of a file"),
    ("callbacks=csv_log", "callbacks.csv_log.filename=[a]", "csv_log.filename: got ['a'], expected the name of a file"),
    ("callbacks=csv_log", "callbacks.csv_log.filename=.", "csv_log.filename: got '.', expected the name of a file"),
    ("callbacks=csv_log", "callbacks.csv_log.filename=''", "csv_log.filename: got '', expected the name of a file"),
    ("callbacks=csv_log", "callbacks.csv_log.filename=checkpoints/a", "got checkpoints/a, which the run itself writes"),
    ("callbacks=csv_log", "callbacks.csv_log.filename=null", "csv_log.filename: got None, expected the name of a file"),
    ("callbacks=csv_log", "+callbacks.csv_log.separator='--'", "csv_log.separator: got '--', expected one character"),
    ("callbacks=csv_log", "+callbacks.b={name: csv_logger, filename: ./epochs.csv}", "csv_log.filename writes already"),
    (
        "callbacks=best_weights",
        "callbacks.best_weights.filepath='{nope}.weights.h5'",
        "in which 'nope' cannot be filled",
    ),
    ("callbacks=best_weights", "callbacks.best_weights.filepath='a/{epoch:250d}.keras'", "file: it has 256 bytes"),
    ("callbacks=csv_log", f"callbacks.csv_log.filename='{128 * 'é'}/a.csv'", "file: it has 256 bytes"),
    ("callbacks=best_weights", "callbacks.best_weights.filepath='{epoch.weights.h5'", "best_weights.filepath: got"),
    *(
        (
            "callbacks=best_weights",
            f"callbacks.best_weights.filepath='{{{field}:{width}}}.weights.h5'",
            f"in which the format {width} cannot be filled",
        )
        for field, width in (
            ("epoch", ">3000000000"),
            ("epoch", "03000000000d"),
            ("loss", ".900000000f"),
            ("epoch", "{epoch}"),
        )
    ),
    ("callbacks=best_weights", "+callbacks.best_weights.save_freq=2", "but save_best_only compares epochs"),
    ("callbacks=early_stopping", "callbacks.early_stopping.monitor=''", "early_stopping.monitor: got an empty text"),
    ("callbacks=early_stopping", "callbacks.early_stopping.monitor=null", "early_stopping.monitor: got None"),
    ("callbacks=early_stopping", "callbacks.early_stopping.monitor=learning_rate", "which is not recorded"),
    (
        "callbacks=terminate_on_nan",
        "+callbacks.terminate_on_nan.raise_error=true",
        "the run fails in any case, and its message lists",
    ),
    ("callbacks=[]", "+callbacks.b={name: TensorBoard}", OUT),
    ("callbacks=[]", "+callbacks.b={name: LearningRateScheduler, schedule: x}", "choose optimizer/schedule="),
    (
        "callbacks=[]",
        "+callbacks.b={name: BackupAndRestore, backup_dir: x}",
        "is not needed: every recorded run keeps checkpoints",
    ),
    ("callbacks=swap_ema_weights", "callbacks.swap_ema_weights.swap_on_epoch=false optimizer.use_ema=true", "averages"),
    (
        "optimizer/schedule=cosine",
        "+callbacks.b={name: ReduceLROnPlateau}",
        "which the schedule cosine_decay sets already",
    ),
]


@pytest.mark.parametrize(("choice", "override", "words"), REFUSED)
def test_what_a_callback_cannot_do_is_refused_before_tensorflow(choice: str, override: str, words: str) -> None:
    overrides = ["data.validation_size=0.2", choice, *override.replace(" optimizer.use", "\noptimizer.use").split("\n")]
    with pytest.raises(Refused) as caught:
        config(*overrides)
    assert words in str(caught.value)
    config(*overrides, *(shlex.split(problem.remedy)[0] for problem in caught.value.problems))


def test_a_callback_without_a_named_metric_watches_the_validation_set() -> None:
    with pytest.raises(Refused, match=r"callbacks.b.monitor: got val_loss, but no validation set is held out"):
        config("+callbacks.b={name: EarlyStopping}")


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("early_stopping.start_from_epoch=a", "early_stopping.start_from_epoch: got 'a', expected a finite number"),
        ("early_stopping.min_delta=inf", "early_stopping.min_delta: got inf, expected a finite number"),
        ("early_stopping.restore_best_weights=maybe", "got 'maybe', expected true or false"),
        ("csv_log.append=3", "csv_log.append: got 3, expected true or false"),
        ("csv_log.filename=" + 300 * "a", "which cannot be the name of a file: it has 300 bytes, expected at most 255"),
    ],
)
def test_arguments_of_another_type_than_kerass_are_refused(setting: str, words: str, tmp_path: Path) -> None:
    overrides = ["callbacks=[early_stopping,csv_log]", "data.validation_size=0.2", f"callbacks.{setting}"]
    with pytest.raises(Refused) as caught:
        built(*overrides, folder=tmp_path)
    assert words in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_files_that_a_callback_writes_by_default_are_in_the_output_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    (board,) = built("+callbacks.b={name: TensorBoard}", folder=tmp_path)
    assert board.log_dir == str(tmp_path / "logs")
    (log,) = built("callbacks=csv_log", "callbacks.csv_log.filename=a/b/c.csv", folder=tmp_path)
    log.on_train_begin()
    log.on_train_end()
    assert (tmp_path / "a" / "b" / "c.csv").is_file()


def test_every_argument_of_keras_that_names_a_file_is_known() -> None:
    every = {
        name
        for cls in vocabulary.classes("callback").values()
        for name in inspect.signature(cls).parameters
        if re.search(r"\b(file|dir|path|folder)", name.replace("_", " "))
    }
    assert every == FILE_ARGUMENTS


def test_an_interrupt_while_a_checkpoint_is_saved_stays_one(tmp_path: Path) -> None:
    """In one of fifty zipfile would make it a ValueError, and complain about its own end."""
    keep = KeepCheckpoints(Checkpoints(tmp_path), [], threads=1)
    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(2)])
    model.compile("adam", "mse")
    keep.set_model(model)
    keep.on_train_begin()

    def save_until_interrupted(seconds: float) -> None:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        while True:
            keep.on_epoch_end(0, {"loss": 1.0})

    moment, before = random.Random(0), signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
    for _ in range(300):
        with pytest.raises(KeyboardInterrupt):
            save_until_interrupted(moment.uniform(0.001, 0.01))
    signal.signal(signal.SIGALRM, before)
    assert Checkpoints(tmp_path).state is not None


class Scripted(keras.callbacks.Callback):  # type: ignore[misc]
    """Replaces what an epoch measured, so that a test's theory decides what the callbacks after it do."""

    def __init__(self, losses: Sequence[float]) -> None:
        super().__init__()
        self._losses = losses

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        logs.update(val_loss=self._losses[epoch], val_accuracy=-self._losses[epoch])


class Stubborn(keras.callbacks.Callback):  # type: ignore[misc]
    """A callback of one's own: it changes what its constructor got, and sets something up late."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.factor, self.seen, self.late = factor, dict[str, list[float]](), None

    def on_train_begin(self, logs: Any = None) -> None:
        self.seen = {}

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self.late is None:
            self.late, self.factor = keras.ops.negative, -self.factor
        self.factor *= 0.9
        self.seen.setdefault("factors", []).append(self.factor)
        self.model.optimizer.learning_rate = 0.01 * abs(self.factor) / (1 + len(self.seen["factors"]))


WORSE = [1.0, 1.02, 1.04, 1.06, 1.08, 1.1]  # by less than 0.03 an epoch
WAVES = [1.0, 0.9, 0.92, 0.7, 0.95, 0.6]
STOP, PLATEAU = "callbacks=early_stopping", "callbacks=reduce_lr_on_plateau"
EMA = ("optimizer.use_ema=true", "optimizer.ema_momentum=0.5")
LOWER, HIGHER = "callbacks.{}.monitor=val_loss", "callbacks.{}.monitor=val_accuracy"


def stop(**settings: Any) -> tuple[str, ...]:
    return STOP, *(f"callbacks.early_stopping.{key}={value}" for key, value in settings.items())


def plateau(**settings: Any) -> tuple[str, ...]:
    settings = {"patience": 1, "factor": 0.5, **settings}
    return PLATEAU, *(f"callbacks.reduce_lr_on_plateau.{key}={value}" for key, value in settings.items())


def both(name: str, overrides: Sequence[str], losses: Sequence[float], expected: Any) -> dict[str, Any]:
    """The same theory for a metric that falls and for one that rises."""
    key = "early_stopping" if STOP in overrides else "reduce_lr_on_plateau"
    return {
        f"{name}, {word}": ((*overrides, direction.format(key)), losses, expected)
        for word, direction in (("falling", LOWER), ("rising", HIGHER))
    }


RATES = [0.001, 0.0005, 0.00025]
# By name: overrides, val_loss by epoch, and the number of epochs or the learning rate of the last one, by theory.
CASES: dict[str, tuple[Sequence[str], Sequence[float], int | float]] = {
    **both("stop", stop(patience=1), WAVES, 3),
    **both("stop, min_delta", stop(patience=2, min_delta=0.03), WORSE, 3),
    **both("stop, min_delta is passed", stop(patience=2, min_delta=0.03), [-10 * loss for loss in WORSE], 6),
    **both("stop, last weights", stop(patience=2, min_delta=0.5, restore_best_weights="false"), WAVES, 3),
    **both("stop, start", stop(patience=1, min_delta=0.2, start_from_epoch=2), WAVES, 5),
    **both("stop, averages", (*stop(patience=2, min_delta=0.5), *EMA), WAVES, 3),
    **both("plateau", plateau(), WAVES, 0.00025),
    **both("plateau, min_delta", plateau(min_delta=0.03), WORSE, 0.001 / 2**4),
    **both("plateau, cooldown", plateau(min_delta=0.03, cooldown=2), WORSE, 0.00025),
    **both("plateau, averages", (*plateau(min_delta=0.03, patience=2), *EMA), WORSE, 0.00025),
    **both("stop, warm-up", (*stop(patience=2, min_delta=0.03, start_from_epoch=1), "optimizer/schedule=cosine",
        "optimizer.schedule.warmup_epochs=2"), WORSE, 4),
    "best weights": (("callbacks=best_weights",), WAVES, 6),
    "best weights, averages": (("callbacks=[best_weights,swap_ema_weights]", *EMA), WAVES, 6),
    "weights by step": (("callbacks=best_weights", "callbacks.best_weights.save_best_only=false",
        "+callbacks.best_weights.save_freq=3", "callbacks.best_weights.filepath='deep/{epoch}.weights.h5'"), WAVES, 6),
    "log": (("callbacks=csv_log",), WAVES, 6),
    "log, other separator": (("callbacks=csv_log", "+callbacks.csv_log.separator='|'"), WAVES, 6),
    "averages": (("callbacks=swap_ema_weights", *EMA), WAVES, 6),
    "averages overwrite": ((*EMA, "optimizer.ema_overwrite_frequency=3"), WAVES, 6),
    "not a number": (("callbacks=terminate_on_nan",), WAVES, 6),
    "own": ((), WAVES, 6),
    "everything": (("callbacks=[csv_log,reduce_lr_on_plateau,early_stopping,best_weights,swap_ema_weights]", *EMA,
        "callbacks.reduce_lr_on_plateau.patience=1", "callbacks.reduce_lr_on_plateau.min_delta=0.03",
        "callbacks.early_stopping.patience=4", "callbacks.early_stopping.min_delta=0.03"), WORSE, 5),
}  # fmt: skip
SMALL = ("model.layer_sizes=[2]", "data.limit=20", "data.validation_size=10", "batch_size=10", "epochs=6",
    "optimizer=sgd", "optimizer.momentum=0.9", "optimizer.learning_rate=0.001")  # fmt: skip


class Interrupt(keras.callbacks.Callback):  # type: ignore[misc]
    """Ends training when one epoch has finished."""

    def __init__(self, finished: int) -> None:
        super().__init__()
        self._finished = finished

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if epoch > self._finished:
            raise KeyboardInterrupt


def quick_fit(model: Any, batches: Any, *, epochs: int, initial_epoch: int, callbacks: Any, **given: Any) -> Any:
    """Keras's `fit` as far as callbacks can tell, with one step an epoch, in a hundredth of the time."""
    x, y = given["validation_data"]
    model.compute_metrics(x[:1], y[:1], model(x[:1]))  # some callbacks look for the metrics, which are built late
    run = keras.callbacks.CallbackList(callbacks, add_history=True, model=model, epochs=epochs, steps=1, verbose=0)
    model.stop_training = False
    run.on_train_begin()
    for epoch in range(initial_epoch, epochs):
        run.on_epoch_begin(epoch)
        gradients = [keras.ops.full(weight.shape, 0.1 * (epoch + 1)) for weight in model.trainable_weights]
        model.optimizer.apply(gradients, model.trainable_weights)
        run.on_train_batch_end(0, {"loss": 1.0})
        trained = float(keras.ops.sum(model.trainable_weights[0]))
        run.on_test_begin()
        run.on_test_end()
        run.on_epoch_end(epoch, {"loss": trained, "accuracy": float(keras.ops.sum(model.trainable_weights[0]))})
        if model.stop_training:
            break
    model.optimizer.finalize_variable_values(model.trainable_weights)
    run.on_train_end()
    return model.history


def scripted(name: str, folder: Path, interrupt: bool = False) -> dict[str, Any]:
    """Train a case from where its folder stands, to the end or for one epoch; return all that it leaves."""
    overrides, losses, _ = CASES[name]
    checked, dataset = config(*SMALL, *overrides), digits(20, 10)
    checkpoints = Checkpoints(folder)
    finished = checkpoints.state.epochs if checkpoints.state else 0
    configured = [Scripted(losses), *build(checked, folder, finished), *([Stubborn()] if name == "own" else [])]
    model = build_model(checked, dataset)
    choices = choose(checked, dataset, 1)
    watchers = [Interrupt(finished)] if interrupt else []
    history = fit(model, dataset, checked, choices, configured, watchers=watchers, checkpoints=checkpoints)
    checkpoints.remove()
    return {
        "history": {metric: list(map(float, values)) for metric, values in history.metrics.items()},
        "weights": [weight.tobytes() for weight in model.get_weights()],
        "optimizer": [variable.numpy().tobytes() for variable in model.optimizer.variables],
        "files": {file.relative_to(folder): content(file) for file in folder.rglob("*") if file.is_file()},
    }


def content(file: Path) -> Any:
    if file.suffix != ".h5":
        return file.read_bytes()
    import h5py

    arrays: dict[str, bytes] = {}
    with h5py.File(file) as stored:
        stored.visititems(lambda key, item: arrays.update({key: item[()].tobytes()} if hasattr(item, "dtype") else {}))
    return arrays


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:unclosed file:ResourceWarning")
@pytest.mark.parametrize("name", CASES)
def test_a_run_that_is_interrupted_after_every_epoch_is_exact(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keras.Sequential, "fit", quick_fit)
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    whole = scripted(name, tmp_path / "whole")
    epochs, expected = len(whole["history"]["loss"]), CASES[name][2]
    assert (epochs if isinstance(expected, int) else whole["history"]["learning_rate"][-1]) == pytest.approx(expected)
    again = None
    for _ in range(epochs):
        with suppress(KeyboardInterrupt):
            again = scripted(name, tmp_path / "parts", interrupt=True)
    assert again == whole


def test_every_callback_of_keras_goes_on_exactly_or_is_refused() -> None:
    tested = {vocabulary.find("callback", section.name, "", []).__name__
        for overrides, *_ in CASES.values() for section in config(*SMALL, *overrides).callbacks.values()}  # fmt: skip
    for name in vocabulary.classes("callback").keys() - tested:
        with pytest.raises(Refused, match=name) as caught:
            config(f"+callbacks.mine={{name: {name}}}")
        config(f"+callbacks.mine={{name: {name}}}", *[problem.remedy for problem in caught.value.problems])

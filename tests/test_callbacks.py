# ruff: noqa: I001 (tests.composed comes first: it starts Keras)
import random
import signal
from pathlib import Path
from typing import Any

import pytest

from experiments.checkpoints import Checkpoints
from experiments.config import Refused, RunFailed
from tests.composed import config, train
import keras
from experiments.callbacks import KeepCheckpoints, build


@pytest.mark.parametrize("callback", ["[]", "terminate_on_nan"])
def test_a_loss_that_is_not_a_number_fails_the_run(callback: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RunFailed, match=r"the loss became (nan|inf) in epoch 1.*learning rate.*clipnorm.*data\.scale"):
        train("optimizer.learning_rate=1e30", f"callbacks={callback}", "batch_size=10", "data.limit=40", eager=True)


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
    with pytest.raises(Refused, match=r"callbacks.mine: Keras has no callback 'EarlyStoping'; did you mean"):
        built("+callbacks.mine={name: EarlyStoping}", folder=tmp_path)


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

"""Search as `search_benchmark.py` does, with KerasTuner's Hyperband: `python scripts/keras_tuner_search.py SEED`.

It needs `pip install keras-tuner`, has the same images, space, batch size and longest training, and goes on until it is
stopped. After each training it prints, as JSON, the epochs so far and the best validation accuracy at a training's end.
"""

import json
import sys
import tempfile
from typing import Any

import keras
import keras_tuner
import tensorflow as tf

from experiments.config.schema import Data
from experiments.data import load

EPOCHS, BATCH_SIZE = 10, 1024
OPTIMIZERS = {"adam": keras.optimizers.Adam, "rmsprop": keras.optimizers.RMSprop, "sgd": keras.optimizers.SGD}
LAYERS = {"64": [64], "128": [128], "256": [256], "128,64": [128, 64], "256,128": [256, 128]}


def main() -> None:
    """Search until the process is stopped."""
    seed = int(sys.argv[1])
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    data = load(Data(name="mnist", scale=255.0, path=None, validation_size=10000, limit=None), seed)
    assert data.validation
    with tempfile.TemporaryDirectory() as folder:
        tuner = keras_tuner.Hyperband(
            build, "val_accuracy", EPOCHS, seed=seed, hyperband_iterations=1000, directory=folder, project_name="search"
        )
        held_out = (data.validation.x, data.validation.y)
        arguments = {"batch_size": BATCH_SIZE, "verbose": 0, "callbacks": [Progress()]}
        tuner.search(data.train.x, data.train.y, validation_data=held_out, **arguments)


def build(choices: Any) -> keras.Model:
    """A network with the choices of a trial."""
    rate = choices.Float("learning_rate", 1e-4, 1, sampling="log")
    layers = LAYERS[choices.Choice("layer_sizes", list(LAYERS))]
    dropout = choices.Float("dropout", 0, 0.5)
    model = keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Flatten()])
    for size in layers:
        model.add(keras.layers.Dense(size, "relu"))
        model.add(keras.layers.Dropout(dropout))
    model.add(keras.layers.Dense(10, "softmax"))
    optimizer = OPTIMIZERS[choices.Choice("optimizer", list(OPTIMIZERS))](rate)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


class Progress(keras.callbacks.Callback):  # type: ignore[misc]
    """Prints what was reached. KerasTuner copies callbacks, so what they count is the class's."""

    epochs, best, last = 0, 0.0, 0.0

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Count the epoch."""
        Progress.epochs += 1
        Progress.last = (logs or {}).get("val_accuracy", 0.0)

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """Print the best of all trainings so far."""
        Progress.best = max(Progress.best, Progress.last)
        print(json.dumps({"epochs": Progress.epochs, "best": Progress.best}), flush=True)


if __name__ == "__main__":
    main()

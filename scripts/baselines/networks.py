"""Networks of 12 kinds in plain Keras, as a user would otherwise train them: `python networks.py KIND EPOCHS LIMIT`."""

import os
import sys

import numpy as np
from tensorflow import keras
from tensorflow.keras import layers

KINDS = {
    "mlp": lambda: [layers.Flatten(), layers.Dense(512, activation="relu")],
    "dropout": lambda: [layers.Flatten(), layers.Dense(512, activation="relu"), layers.Dropout(0.2)],
    "noise": lambda: [layers.GaussianNoise(0.1), layers.Flatten(), layers.Dense(512, activation="relu")],
    "batch normalisation": lambda: [
        layers.Flatten(),
        layers.Dense(512, use_bias=False),
        layers.BatchNormalization(),
        layers.Activation("relu"),
    ],
    "deep": lambda: [layers.Flatten(), *(layers.Dense(128, activation="relu") for _ in range(10))],
    "small": lambda: [layers.Flatten(), layers.Dense(16, activation="relu")],
    "convnet": lambda: [
        layers.Conv2D(32, 3, activation="relu"),
        layers.MaxPooling2D(),
        layers.Conv2D(64, 3, activation="relu"),
        layers.MaxPooling2D(),
        layers.Flatten(),
        layers.Dropout(0.5),
    ],
    "lenet5": lambda: [
        layers.Conv2D(6, 5, padding="same", activation="tanh"),
        layers.AveragePooling2D(2),
        layers.Conv2D(16, 5, activation="tanh"),
        layers.AveragePooling2D(2),
        layers.Flatten(),
        layers.Dense(120, activation="tanh"),
        layers.Dense(84, activation="tanh"),
    ],
    "1-D convolution": lambda: [
        layers.Reshape((28, 28)),
        layers.Conv1D(32, 5, activation="relu"),
        layers.GlobalAveragePooling1D(),
    ],
    "recurrent": lambda: [layers.Reshape((28, 28)), layers.GRU(32)],
    "augmentation": lambda: [
        layers.RandomTranslation(0.1, 0.1),
        layers.RandomRotation(0.05),
        layers.Flatten(),
        layers.Dense(512, activation="relu"),
    ],
    "l2": lambda: [layers.Flatten(), layers.Dense(512, activation="relu", kernel_regularizer="l2")],
}

if __name__ == "__main__":
    kind, epochs, limit = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    with np.load(os.path.join(os.environ["EXPERIMENTS_DATA_DIR"], "mnist.npz")) as data:
        x, y, x_test, y_test = (data[name][:limit] for name in ("x_train", "y_train", "x_test", "y_test"))
    x, x_test = (images[..., np.newaxis].astype("float32") / 255 for images in (x, x_test))
    last = layers.Dense(10, activation="softmax", kernel_regularizer="l2" if kind == "l2" else None)
    model = keras.Sequential([keras.Input((28, 28, 1)), *KINDS[kind](), last])
    model.compile("rmsprop", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x, y, epochs=epochs, batch_size=128)
    print(model.evaluate(x_test, y_test))

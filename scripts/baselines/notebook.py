"""The notebook as a bare script: what a user would otherwise run. It records nothing."""

import os

import numpy as np
from tensorflow import keras
from tensorflow.keras import layers

with np.load(os.path.join(os.environ["EXPERIMENTS_DATA_DIR"], "mnist.npz")) as data:
    train_images, train_labels = data["x_train"], data["y_train"]
    test_images, test_labels = data["x_test"], data["y_test"]

model = keras.Sequential([layers.Dense(512, activation="relu"), layers.Dense(10, activation="softmax")])
model.compile(optimizer="rmsprop", loss="sparse_categorical_crossentropy", metrics=["accuracy"])

train_images = train_images.reshape((60000, 28 * 28)).astype("float32") / 255
test_images = test_images.reshape((10000, 28 * 28)).astype("float32") / 255

model.fit(train_images, train_labels, epochs=5, batch_size=128)
print(model.evaluate(test_images, test_labels))
print(model.predict(test_images[:10])[0].argmax())

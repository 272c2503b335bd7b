"""The 20-line Hydra script with MLflow's autologging: what a careful user would otherwise run."""

import os

import hydra
import mlflow
import numpy as np
from omegaconf import DictConfig
from tensorflow import keras


@hydra.main(version_base="1.3", config_path=".", config_name="hydra_autolog")
def main(config: DictConfig) -> None:
    """Train the notebook's network as the config says."""
    mlflow.set_tracking_uri("sqlite:///mlflow.db")
    mlflow.keras.autolog()
    with np.load(os.path.join(os.environ["EXPERIMENTS_DATA_DIR"], "mnist.npz")) as data:
        x = data["x_train"].reshape(-1, 784).astype("float32") / 255
        x_test = data["x_test"].reshape(-1, 784).astype("float32") / 255
        y, y_test = data["y_train"], data["y_test"]
    layers = [keras.layers.Dense(units, activation="relu") for units in config.layer_sizes]
    model = keras.Sequential([keras.Input((784,)), *layers, keras.layers.Dense(10, activation="softmax")])
    model.compile(config.optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    with mlflow.start_run():
        model.fit(x, y, epochs=config.epochs, batch_size=config.batch_size)
        mlflow.log_metric("test_accuracy", model.evaluate(x_test, y_test)[1])


if __name__ == "__main__":
    main()

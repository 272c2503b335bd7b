"""What a recorded run makes of images: ``python -m experiments.predict run=latest``."""

import importlib
import json
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig

from experiments import backend
from experiments.cli import check_command, command
from experiments.config import PredictConfig, Problem, Refused
from experiments.data import Images, Labels, load
from experiments.evaluation import last_activation, probabilities
from experiments.images import read_images, to_input
from experiments.terminal import Console, say
from experiments.tracking.artifacts import SavedModel, own_classes, unusable_model
from experiments.tracking.runs import RecordedRun, find_run


def predict(composed: DictConfig) -> None:
    """Print the guess for each image, its probability and the runner-up."""
    config = check_command(composed, PredictConfig)
    pictures = read_images(config.images)  # now: what is not there need not wait for the imports
    with tempfile.TemporaryDirectory() as downloads:
        run = find_run(config.run, config.tracking, Path(downloads))
        own = own_classes(run.model, config.trust)
        test = None if config.images else _test_images(config.test, run)
        model = _load(run.model, own)
    if test is None:
        x, truth = to_input(pictures, model.input_shape[1:], run.data, config.inverted), None
        names = config.images
    else:
        (x, truth), names = test, [str(number) for number in range(*_bounds(config.test))]
    guesses = _guesses(_probabilities(run.model, model, x), names, truth)
    if config.format == "json":
        print(json.dumps({"run": run.run_id, "chosen": run.chosen, "predictions": guesses}))
        return
    console = Console()
    if config.run == "best":
        say(console, f"chosen {run.chosen}")
    say(console, *_table(run, guesses), whole=True)


def _load(saved: SavedModel, own: Mapping[str, str]) -> Any:
    """Load a saved model, with the classes of trusted packages that it names.

    Raises:
        Refused: It is damaged, a package has no such class, or TensorFlow cannot use the flags of the environment.
    """
    backend.import_keras()
    backend.refuse_wrong_flags()
    import keras

    try:
        custom_objects = {name: getattr(importlib.import_module(module), name) for name, module in own.items()}
    except (ImportError, AttributeError) as error:
        raise Refused(Problem("trust", f"the run's model needs code that cannot be imported: {error}")) from error
    try:
        if not custom_objects:
            _refuse_more_weights_than_saved(saved.file)
        model = keras.saving.load_model(saved.file, custom_objects=custom_objects, compile=False)
        if not all(isinstance(size, int) for size in model.input_shape[1:]):
            raise ValueError(f"it takes inputs of shape {model.input_shape}")
        return model
    except Exception as error:  # whatever Keras raises: the file may come from anywhere
        raise unusable_model(saved, error) from error


def _refuse_more_weights_than_saved(file: Path) -> None:
    """Build a saved model's layers without their arrays, and compare their sizes with the file of the weights.

    Keras would make the arrays first, of any size, and then find out that their values are not there.

    Raises:
        ValueError: The layers have more weights than that file holds, of at least four bits each.
        Exception: Whatever Keras raises for layers that it cannot build.
    """
    import keras

    with zipfile.ZipFile(file) as archive:
        config, saved = json.loads(archive.read("config.json")), archive.getinfo("model.weights.h5").file_size
    layers = {**config, "compile_config": None}
    count = backend.without_arrays(lambda: keras.saving.deserialize_keras_object(layers).count_params())
    if count > 2 * saved:
        raise ValueError(f"its layers have {count:,} weights, and its file of weights has {saved:,} bytes")


def _probabilities(saved: SavedModel, model: Any, x: Images) -> NDArray[np.floating]:
    """What the model makes of images (n, …): probabilities (n, classes).

    Raises:
        Refused: It takes other images, or gives something else.
    """
    if tuple(model.input_shape[1:]) != x.shape[1:]:
        raise Refused(Problem("test", f"the model takes inputs of {model.input_shape[1:]}, the data has {x.shape[1:]}"))
    try:
        predicted = np.asarray(model.predict_on_batch(x))
    except Exception as error:
        raise unusable_model(saved, error) from error
    if predicted.ndim != 2 or predicted.shape[1] < 2:
        raise unusable_model(saved, f"it gives values of shape {predicted.shape}, expected some for each class")
    return probabilities(predicted, last_activation(model))


def _bounds(span: str) -> tuple[int, int]:
    start, stop = span.split(":")
    return int(start), int(stop)


def _test_images(span: str, run: RecordedRun) -> tuple[Images, Labels]:
    test = load(run.data, seed=0).test
    start, stop = _bounds(span)
    if not start < stop <= len(test):
        what = f"got {span}, expected FROM:TO within the {len(test)} test images of {run.data.name}"
        raise Refused(Problem("test", what, "test=0:10"))
    return test.x[start:stop], test.y[start:stop]


def _guesses(predicted: Any, names: list[str], truth: Labels | None) -> list[dict[str, Any]]:
    guesses = []
    for number, (name, row) in enumerate(zip(names, predicted, strict=True)):
        first, second = np.argsort(-row, kind="stable")[:2]  # of equal ones the first, as when it was measured
        guess = {
            "image": name,
            "guess": int(first),
            "probability": float(row[first]),
            "runner_up": int(second),
            "runner_up_probability": float(row[second]),
        }
        guesses.append(guess if truth is None else guess | {"truth": int(truth[number])})
    return guesses


def _table(run: RecordedRun, guesses: list[dict[str, Any]]) -> list[str]:
    width = max(len("image"), *(len(guess["image"]) for guess in guesses))
    lines = [f"run {run.run_id}  {run.name}", f"{'image':>{width}}  guess  probability  runner-up"]
    for guess in guesses:
        runner_up = f"{guess['runner_up']} ({guess['runner_up_probability']:.5f})"
        wrong = f"  is {guess['truth']}" if guess.get("truth", guess["guess"]) != guess["guess"] else ""
        lines.append(f"{guess['image']:>{width}}  {guess['guess']:5}  {guess['probability']:11.5f}  {runner_up}{wrong}")
    return lines


main = command("predict")(predict)

if __name__ == "__main__":
    main()

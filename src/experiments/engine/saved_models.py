"""Models that Keras saved: read as data, and loaded. They may be damaged or foreign; no code that they hold is run."""

import importlib
import json
import os
import stat
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from experiments.config import Problem, Refused
from experiments.config.keras_names import NEVER, is_within
from experiments.data.archive import check_growth
from experiments.data.checks import Images
from experiments.engine import backend
from experiments.system import imports
from experiments.task import Task
from experiments.task.measuring import last_activation

LARGEST_CONFIG = 20_000_000  # bytes; ours have a few thousand


class SavedModel(NamedTuple):
    """The file of a run's model, which may be a copy that does not stay; `name` says what it is a copy of."""

    file: Path
    name: str


def load(saved: SavedModel, trust: Sequence[str] = ()) -> Any:
    """Load a saved model, with the classes of trusted packages that it names. It is not compiled.

    Raises:
        Refused: It is damaged, holds code, or needs that of a package that is not trusted, or lacks what it needs; or
            TensorFlow cannot use the flags of the environment.
    """
    own = _own_classes(saved, trust)
    imports.import_keras()
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
        raise _unusable(saved, error) from error


def predict(saved: SavedModel, model: Any, x: Images, task: Task, where: str) -> NDArray[np.floating]:
    """What a loaded model makes of inputs (n, ...): probabilities (n, classes), or numbers (n,).

    Args:
        saved: The model's file.
        model: The model.
        x: The inputs.
        task: What the outputs are.
        where: The key that names the inputs, for messages.

    Raises:
        Refused: It takes other inputs, or gives something else.
    """
    if tuple(model.input_shape[1:]) != x.shape[1:]:
        raise Refused(Problem(where, f"the model takes inputs of {model.input_shape[1:]}, the data has {x.shape[1:]}"))
    try:
        return task.predictions(np.asarray(model.predict_on_batch(x)), last_activation(model))
    except Exception as error:
        raise _unusable(saved, error) from error


def _own_classes(saved: SavedModel, trust: Sequence[str]) -> dict[str, str]:
    """Find the classes and functions of a saved model that are not Keras's own: their modules, by name.

    Nothing is imported.

    Raises:
        Refused: One is not of a trusted package, the model holds code, or it is damaged.
    """
    named = dict(_classes_of(saved))
    if code := sorted(named.keys() & (NEVER | {"__lambda__"})):
        raise Refused(Problem(saved.name, f"the model holds code ({', '.join(code)}), which is never run"))
    own = {name: module for name, module in named.items() if not is_within(module, ("keras", "builtins"))}
    foreign = sorted({module for module in own.values() if not is_within(module, trust)})
    if foreign:
        packages = ",".join(sorted({module.partition(".")[0] for module in foreign}))
        what = f"the run's model needs the code of {', '.join(foreign)}; if you trust it, say so"
        raise Refused(Problem("trust", what, f"trust=[{packages}]"))
    return own


def _unusable(saved: SavedModel, reason: object) -> Refused:
    why = " ".join(str(reason).replace(str(saved.file), saved.file.name).split())[:300] or type(reason).__name__
    return Refused(Problem(saved.name, f"is damaged, or not a model that Keras saved ({why})"))


def _classes_of(saved: SavedModel) -> list[tuple[str, str]]:
    try:
        if not stat.S_ISREG(os.stat(saved.file).st_mode):
            raise ValueError("it is no ordinary file")
        with zipfile.ZipFile(saved.file) as archive:
            members = archive.infolist()
            check_growth(saved.name, sum(m.compress_size for m in members), sum(m.file_size for m in members))
            if archive.getinfo("config.json").file_size > LARGEST_CONFIG:
                raise ValueError("its config.json is too large")
            config = json.loads(archive.read("config.json"))
        if not isinstance(config, dict):
            raise TypeError("its config.json holds no object")
        return list(_named_in(config))
    except Refused:
        raise
    except Exception as error:  # whatever zipfile, zlib and json raise
        raise _unusable(saved, error) from error


def _named_in(value: Any) -> Iterator[tuple[str, str]]:
    """Names of classes and functions with their modules; of functions, Keras writes the name as their config."""
    if isinstance(value, Mapping):
        if "class_name" in value or "module" in value:
            is_function = value.get("class_name") == "function"
            yield str(value.get("config" if is_function else "class_name")), str(value.get("module") or "keras")
        for inner in value.values():
            yield from _named_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _named_in(inner)


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

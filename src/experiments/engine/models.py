"""A compiled Keras model from the config and the data's shape."""

import hashlib
import math
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from experiments.config import Config, Problem, Refused
from experiments.config.choices import evaluation_batch_size
from experiments.config.schema import Mlp, Schedule
from experiments.data import Dataset, Targets
from experiments.engine import backend, metrics
from experiments.engine.vocabulary import create, create_named, reason
from experiments.system import resources
from experiments.task import of

# A schedule counts steps in 64 bits.
MOST_EPOCHS = 10**9


def build(config: Config, dataset: Dataset, xla: bool, steps_per_execution: int) -> keras.Sequential:
    """Build and compile the network.

    Raises:
        Refused: Keras does not know a layer or argument, shapes do not fit, or there is not one output per class.
    """
    backend.without_arrays(lambda: _refuse_more_than_memory(config, dataset))
    model = keras.Sequential([keras.Input(dataset.input_shape)])
    shape: tuple[int | None, ...] = (None, *dataset.input_shape)
    layers = list(_layers(config, dataset))
    if (last := layers[-1][1]).dtype_policy == keras.config.dtype_policy():
        last.dtype_policy = "float32"  # half precision gives many outputs the same value, and metrics do not take it
    for where, layer in layers:
        before = shape
        try:
            model.add(layer)
        except Exception as error:  # Keras and TensorFlow raise all kinds for shapes that do not fit
            raise Refused(Problem(where, f"does not fit what comes before it, {before}: {reason(error)}")) from error
        if 0 in (shape := model.output_shape):
            raise Refused(Problem(where, f"leaves nothing of what comes before it: {shape} of {before}"))
    if shape != (None, dataset.outputs):
        each = "one output per class" if config.task.targets == "classes" else "one number"
        ending = f"{{Dense: {{units: classes, activation: {config.loss.output_activation}}}}}"
        what = f"the last layer gives {shape[1:]}, expected ({dataset.outputs},): {each}; end with Flatten and {ending}"
        raise Refused(Problem("model.layers", what))
    steps_per_epoch = math.ceil(len(dataset.train) / config.batch_size)
    measured = compile_as(config, model, _optimizer(config, steps_per_epoch), xla, steps_per_execution)
    metrics.try_out(model.loss, measured, config, dataset.outputs, xla)
    return model


def compile_as(
    config: Config,
    model: keras.Sequential,
    optimizer: keras.optimizers.Optimizer | None = None,
    xla: bool = False,
    steps_per_execution: int = 1,
) -> list[keras.metrics.Metric]:
    """Compile a model with the loss and the metrics of a config; without an optimizer, to evaluate it.

    Returns:
        The metrics.

    Raises:
        Refused: Keras does not know the loss, a metric or an argument.
    """
    arguments = config.loss.arguments("labels", "output_activation")
    measured = metrics.build(config, model.output_shape[-1])
    model.compile(
        optimizer=optimizer or "sgd",
        loss=create("loss", config.loss.name, arguments, "loss", config.trust),
        metrics=measured,
        jit_compile=xla,
        steps_per_execution=steps_per_execution,
    )
    return measured


def for_keras_alone(model: keras.Sequential, config: Config) -> keras.Sequential:
    """The model as it is saved, so that Keras loads it without this package.

    It keeps its loss, metrics and optimizer where Keras restores them as they are; else it is the same layers alone.
    """
    if metrics.keras_restores(config, model.output_shape[-1]):
        return model
    return keras.Sequential([keras.Input(model.input_shape[1:]), *model.layers], name=model.name)


def _refuse_more_than_memory(config: Config, dataset: Dataset) -> None:
    """Build the layers, and count their weights and outputs: TensorFlow may end the process when it allocates them.

    Raises:
        Refused: The weights and their gradients, or the outputs of a layer, do not fit into memory.
    """
    batch = min(config.batch_size, len(dataset.train))
    measured = min(evaluation_batch_size(config.runtime), max(dataset.sizes[1:]))
    weights, outputs = 0, keras.Input(dataset.input_shape)
    for where, layer in _layers(config, dataset):
        try:
            outputs = layer(outputs)
            weights += layer.count_params()
        except Exception:  # it is refused, with its reason, when it is built with its arrays
            return
        each = math.prod(size or 0 for size in outputs.shape[1:])
        for values, needed, remedy in (
            (2 * weights, "the weights up to here and their gradients need", None),
            (batch * each, f"its outputs need for a batch of {batch}", None),
            (measured * each, f"its outputs need for {measured} images at a time, when the model is measured,", batch),
        ):
            if (size := 4 * values) > (memory := resources.available_memory()):
                gibibytes = 2.0**30
                what = f"{needed} {size / gibibytes:.0f} GiB, and {memory / gibibytes:.0f} GiB of memory are free"
                raise Refused(Problem(where, what, f"runtime.evaluation_batch_size={remedy}" if remedy else ""))


def weights_digest(model: keras.Sequential) -> str:
    """Sha256 of a model's weights: their shapes, types and bytes, in Keras's order."""
    digest = hashlib.sha256()
    for array in model.get_weights():
        digest.update(f"{array.dtype} {array.shape};".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def encode_targets(y: Targets, config: Config, outputs: int) -> NDArray[Any]:
    """Targets (n,) as the loss reads them: (n,) whole numbers, (n, classes) one-hot, or (n, 1) numbers."""
    return of(config.task.name).encode(y, config.loss.labels, outputs)


def _layers(config: Config, dataset: Dataset) -> Iterator[tuple[str, keras.layers.Layer]]:
    if isinstance(config.model, Mlp):
        yield from _mlp(config.model, dataset.outputs, config.trust)
    else:
        for index, spec in enumerate(config.model.layers):
            where = f"model.layers[{index}]"
            yield where, create_named("layer", _with_classes(spec, dataset.outputs), where, config.trust)
    if config.task.standardize:
        y = dataset.train.y.astype(np.float64)
        yield "task.standardize", keras.layers.Rescaling(float(y.std()) or 1.0, float(y.mean()))


def _mlp(mlp: Mlp, classes: int, trust: list[str]) -> Iterator[tuple[str, keras.layers.Layer]]:
    def regularized() -> dict[str, Any]:
        spec = mlp.regularizer
        return {"kernel_regularizer": spec and create_named("regularizer", spec, "model.regularizer", trust)}

    def dense(units: int, where: str) -> keras.layers.Layer:
        arguments = {"units": units, "activation": getattr(mlp, where)} | regularized()
        return create("layer", "Dense", arguments, f"model.{where}", trust)

    yield "model", keras.layers.Flatten()
    for index, units in enumerate(mlp.layer_sizes):
        where = f"model.layer_sizes[{index}]"
        if mlp.batch_normalization:
            yield where, keras.layers.Dense(units, use_bias=False, **regularized())
            yield where, keras.layers.BatchNormalization()
            yield where, create("layer", "Activation", {"activation": mlp.activation}, "model.activation", trust)
        else:
            yield where, dense(units, "activation")
        if mlp.dropout:
            yield where, keras.layers.Dropout(mlp.dropout)
    yield "model.output_activation", dense(classes, "output_activation")


def _with_classes(value: Any, classes: int) -> Any:
    """Put the number of classes in the place of the word `classes`."""
    if isinstance(value, dict):
        return {key: _with_classes(inner, classes) for key, inner in value.items()}
    if isinstance(value, list):
        return [_with_classes(inner, classes) for inner in value]
    return classes if value == "classes" else value


def _optimizer(config: Config, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    arguments = config.optimizer.arguments("schedule", "learning_rate")
    arguments["learning_rate"] = _learning_rate(config, steps_per_epoch)
    optimizer = create("optimizer", config.optimizer.name, arguments, "optimizer", config.trust)
    if config.precision == "mixed_float16":  # Keras would do the same, but not save it
        return keras.optimizers.LossScaleOptimizer(optimizer, name="loss_scale_optimizer")
    return optimizer


def _learning_rate(config: Config, steps_per_epoch: int) -> Any:
    """A number, or a Keras schedule; times are epochs in the config and steps in Keras."""
    schedule, rate = config.optimizer.schedule, config.optimizer.learning_rate
    if schedule.name == "constant":
        return rate
    arguments = _in_steps(schedule, config.epochs, steps_per_epoch)
    if warmup := arguments.get("warmup_steps"):
        arguments |= {"initial_learning_rate": 0.0, "warmup_target": rate, "warmup_steps": warmup}
    elif "factors" in arguments:
        arguments["values"] = [rate * factor for factor in _numbers("factors", arguments.pop("factors"))]
    else:
        arguments["initial_learning_rate"] = rate
    return create("schedule", schedule.name, arguments, "optimizer.schedule", config.trust)


def _in_steps(schedule: Schedule, epochs: int, steps_per_epoch: int) -> dict[str, Any]:
    given: dict[str, Any] = schedule.arguments()
    steps: dict[str, Any] = {}
    warmup = _numbers("warmup_epochs", [given.get("warmup_epochs", 0)])[0]
    for key, value in given.items():
        if key == "boundary_epochs":  # Keras: the last step that still has the factor before
            steps["boundaries"] = [round(boundary * steps_per_epoch) - 1 for boundary in _numbers(key, value)]
        elif key.endswith("_epochs"):
            span = _numbers(key, [max(epochs - warmup, 0) if value is None else value])[0]
            steps[key.removesuffix("_epochs") + "_steps"] = max(
                round(span * steps_per_epoch), 0 if "warmup" in key else 1
            )
        else:
            steps[key] = value
    return steps


def _numbers(key: str, values: Any) -> list[float]:
    checked: list[float] = values if isinstance(values, list) else [values]
    for value in checked:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MOST_EPOCHS:
            what = f"got {value!r}, expected a number of at least 0" + (
                f" and at most {MOST_EPOCHS}" if isinstance(value, int | float) and value > MOST_EPOCHS else ""
            )
            raise Refused(Problem(f"optimizer.schedule.{key}", what))
    return checked

"""The metrics of a config: Keras's and the user's own, handed labels and outputs as they read them."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from experiments.config import Config, Problem, Refused, measures
from experiments.config.measures import NamedMetric, named_metrics
from experiments.config.problems import assign
from experiments.engine.vocabulary import create, find, reason
from experiments.task import of

# Keras's short names, and the metric on one-hot labels that each stands for.
SHORT = {
    "accuracy": "categorical_accuracy",
    "acc": "categorical_accuracy",
    "crossentropy": "categorical_crossentropy",
    "ce": "categorical_crossentropy",
}

Translate = Callable[[Any], Any]


class Translated(keras.metrics.Metric):  # type: ignore[misc]
    """A metric that is handed labels and outputs in another form than the loss is.

    Args:
        metric: Computes the value.
        labels: Function from the loss's labels to the metric's.
        outputs: Function from the network's outputs to what the metric reads.
    """

    def __init__(self, metric: keras.metrics.Metric, labels: Translate, outputs: Translate) -> None:
        super().__init__(name=metric.name)
        self.metric, self._labels, self._outputs = metric, labels, outputs

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Add a batch."""
        return self.metric.update_state(self._labels(y_true), self._outputs(y_pred), sample_weight)

    def result(self) -> Any:
        """The value of all batches."""
        return self.metric.result()

    def reset_state(self) -> None:
        """Forget all batches."""
        self.metric.reset_state()


def build(config: Config, classes: int) -> list[keras.metrics.Metric]:
    """Build the metrics.

    Raises:
        Refused: Keras does not know a metric or an argument of it.
    """
    return [
        _metric(entry, f"metrics[{index}]", config, classes)
        for index, entry in enumerate(named_metrics(config.metrics))
    ]


def try_out(
    loss: keras.losses.Loss, metrics: Sequence[keras.metrics.Metric], config: Config, classes: int, xla: bool
) -> None:
    """Measure a few made-up outputs, so that a loss or a metric that cannot do so fails before training.

    Args:
        loss: The loss.
        metrics: What `build` gave.
        config: The config.
        classes: Number of classes.
        xla: Whether training compiles them.

    Raises:
        Refused: One raises an error, or a metric does not give one number.
    """
    task = of(config.task.name)
    truth, outputs = task.examples(classes)
    labels = task.encode(truth, config.loss.labels, classes)
    try:
        loss(labels, outputs)
    except Exception as error:  # Keras and the user's own code raise all kinds
        what = f"{config.loss.name} cannot be computed: {type(error).__name__}: {reason(error)}"
        raise Refused(Problem("loss", what)) from error
    for index, (metric, entry) in enumerate(zip(metrics, named_metrics(config.metrics), strict=True)):
        try:
            metric.update_state(labels, outputs)
            if "." in entry.cls:  # Keras's own run in a graph as they do outside of one
                batches = [tf.TensorSpec((None, *array.shape[1:]), array.dtype) for array in (labels, outputs)]
                tf.function(metric.update_state, batches, autograph=False, jit_compile=xla)(labels, outputs)
            value = metric.result()
            shape = () if isinstance(value, dict) else tuple(np.shape(value))
            metric.reset_state()
        except Exception as error:  # the user's own code raises all kinds
            raise Refused(_failure(config, index, f"{type(error).__name__}: {reason(error)}")) from error
        if shape or isinstance(value, dict):
            what = f"{entry.cls} gives {'several values' if isinstance(value, dict) else f'values of shape {shape}'}"
            raise Refused(Problem(f"metrics[{index}]", f"{what}, expected one number"))


def _failure(config: Config, index: int, why: str) -> Problem:
    """What went wrong with a metric; of the user's own, also what it was handed, and how to change that."""
    entry = named_metrics(config.metrics)[index]
    if "." not in entry.cls:
        return Problem(f"metrics[{index}]", f"{entry.cls} cannot be computed: {why}")
    labels = entry.arguments.get("labels", config.loss.labels)
    what = f"{entry.cls} fails on a few samples with {labels} labels: {why}"
    other = {entry.cls: {**entry.arguments, "labels": "one_hot" if labels == "sparse" else "sparse"}}
    changed = [other if place == index else each for place, each in enumerate(config.metrics)]
    return Problem(f"metrics[{index}]", what, "" if "labels" in entry.arguments else assign("metrics", changed))


def keras_restores(config: Config, classes: int) -> bool:
    """Whether Keras alone compiles a saved model of this config as it was.

    It cannot where a loss, an optimizer or a metric is code of ours or of the user's own; and it does not write down
    all arguments, such as Huber's delta.
    """
    loss, optimizer, entries = config.loss, config.optimizer, named_metrics(config.metrics)
    if any(
        "." in name for name in (loss.name, optimizer.name, optimizer.schedule.name, *(each.cls for each in entries))
    ):
        return False
    given = [loss.arguments("labels", "output_activation")]
    given += [_class_and_arguments(entry, config, classes)[1] for entry in entries]
    built = [create("loss", loss.name, given[0], "loss", config.trust), *build(config, classes)]
    return all(_writes_down(item, arguments) for item, arguments in zip(built, given, strict=True))


def _writes_down(item: Any, arguments: Mapping[str, Any]) -> bool:
    if isinstance(item, Translated):
        return False
    parameters = inspect.signature(type(item).__init__).parameters
    written = {name: parameter.default for name, parameter in parameters.items()} | item.get_config()
    return all(written.get(key) == value for key, value in arguments.items())


def _metric(entry: NamedMetric, where: str, config: Config, classes: int) -> keras.metrics.Metric:
    if entry.cls.lower() not in SHORT:
        find("metric", entry.cls, where, config.trust)
    cls, arguments = _class_and_arguments(entry, config, classes)
    if (number := arguments.get("num_classes", classes)) != classes and "." not in cls:
        what = f"got {number}, but there are {classes} classes; the word classes stands for their number"
        raise Refused(Problem(f"{where}.num_classes", what))
    metric, known = create("metric", cls, arguments, where, config.trust), measures.metric(cls)
    labels = known.labels if known else entry.arguments.get("labels", config.loss.labels)
    if arguments.get("sparse_y_true") is False:
        labels = "one_hot"
    handed, outputs = _labels(labels, config, classes), _outputs(cls, arguments, config)
    if handed is None and outputs is None:
        return metric
    return Translated(metric, handed or _as_they_are, outputs or _as_they_are)


def _class_and_arguments(entry: NamedMetric, config: Config, classes: int) -> tuple[str, dict[str, Any]]:
    """The class that an entry stands for, and the arguments of its constructor."""
    arguments = {"name": entry.name, **entry.arguments}
    if "." in entry.cls:
        arguments.pop("labels", None)  # how we hand it labels
        return entry.cls, arguments
    if short := SHORT.get(entry.cls.lower()):
        return f"sparse_{short}" if config.loss.labels == "sparse" else short, arguments
    cls = find("metric", entry.cls, "metrics", config.trust)
    if issubclass(cls, keras.metrics.FBetaScore):
        arguments.setdefault("average", "macro")  # Keras's default is one value a class, which no epoch's record holds
    if cls in (keras.metrics.IoU, keras.metrics.MeanIoU):
        arguments.setdefault("sparse_y_pred", False)  # what it is handed are outputs, not classes
    if arguments.get("num_classes") == "classes":
        arguments["num_classes"] = classes
    return entry.cls, arguments


def _labels(wanted: str, config: Config, classes: int) -> Translate | None:
    """The function that turns the loss's labels into those of a metric; None: they are the same."""
    if config.loss.labels in (wanted, "values"):
        return None
    if wanted == "sparse":
        return lambda labels: keras.ops.argmax(labels, axis=-1)
    return lambda labels: keras.ops.one_hot(keras.ops.cast(keras.ops.reshape(labels, (-1,)), "int32"), classes)


def _outputs(cls: str, arguments: Mapping[str, Any], config: Config) -> Translate | None:
    """The function that turns the network's outputs into what a metric reads; None: it reads them as they are.

    The outputs of Keras's own softmax and sigmoid remember the logits, and its cross-entropies compute from those, each
    with the activation that it takes for granted. Where that is another one, the metric is handed plain probabilities.
    """
    if not measures.needs_probabilities(cls, arguments):
        return None
    takes_sigmoid = measures.plain(cls).startswith("binary")
    if config.loss.from_logits:
        is_sigmoid = measures.plain(config.loss.name).startswith("binary")
        of_keras, plain = (keras.ops.sigmoid, tf.sigmoid) if is_sigmoid else (keras.ops.softmax, tf.nn.softmax)
        activation = of_keras if takes_sigmoid == is_sigmoid else plain
        return lambda logits: activation(keras.ops.cast(logits, "float32"))
    last = config.last_activation
    other = last in ("softmax", "sigmoid") and takes_sigmoid != (last == "sigmoid")
    return tf.identity if other and measures.plain(cls).endswith("crossentropy") else None


def _as_they_are(values: Any) -> Any:
    return values

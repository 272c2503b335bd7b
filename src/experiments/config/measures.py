"""What Keras's metrics and losses read, and which direction is better: one table each, by class.

A test holds both tables against the installed Keras. Nothing is guessed from a name: a class that is not listed here is
a user's own.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

Mode = Literal["min", "max"]
"""Whether a metric is to be made small or large."""

Outputs = Literal["any", "probabilities", "thresholded", "margins"]
"""What a metric or loss expects of the network's outputs.

``thresholded``: probabilities, if it has an argument `threshold`; else only the order of the outputs counts.
"""

Labels = Literal["sparse", "one_hot", "values"]
"""How labels are read: as whole numbers (n,), one-hot (n, classes), or as numbers to predict (n, 1)."""

PROBABILITIES = ("softmax", "sigmoid", "hard_sigmoid", "sparsemax")
"""Last activations that give probabilities, the most usual first."""


class Metric(NamedTuple):
    """A Keras metric.

    Attributes:
        mode: Which direction is better.
        reads: What it expects of the network's outputs.
        labels: How it reads labels.
        values: Whether it compares numbers, too.
    """

    mode: Mode
    reads: Outputs = "any"
    labels: Labels = "one_hot"
    values: bool = False


class Loss(NamedTuple):
    """A Keras loss; a lower one is better.

    Attributes:
        labels: How it reads labels.
        reads: What it expects of the network's outputs.
        values: Whether it compares numbers, too.
    """

    labels: Labels = "one_hot"
    reads: Outputs = "any"
    values: bool = False


METRICS = {
    "Accuracy": Metric("max"),
    "AUC": Metric("max", "probabilities"),
    "BinaryAccuracy": Metric("max", "probabilities"),
    "BinaryCrossentropy": Metric("min", "probabilities"),
    "BinaryIoU": Metric("max", "probabilities"),
    "CategoricalAccuracy": Metric("max"),
    "CategoricalCrossentropy": Metric("min", "probabilities"),
    "CategoricalHinge": Metric("min"),
    "ConcordanceCorrelation": Metric("max"),
    "CosineSimilarity": Metric("max"),
    "F1Score": Metric("max", "thresholded"),
    "FalseNegatives": Metric("min", "probabilities"),
    "FalsePositives": Metric("min", "probabilities"),
    "FBetaScore": Metric("max", "thresholded"),
    "Hinge": Metric("min"),
    "IoU": Metric("max", labels="sparse"),
    "KLDivergence": Metric("min", "probabilities"),
    "LogCoshError": Metric("min", values=True),
    "MeanAbsoluteError": Metric("min", values=True),
    "MeanAbsolutePercentageError": Metric("min", values=True),
    "MeanIoU": Metric("max", labels="sparse"),
    "MeanSquaredError": Metric("min", values=True),
    "MeanSquaredLogarithmicError": Metric("min", values=True),
    "OneHotIoU": Metric("max"),
    "OneHotMeanIoU": Metric("max"),
    "PearsonCorrelation": Metric("max"),
    "Poisson": Metric("min", "probabilities"),
    "Precision": Metric("max", "probabilities"),
    "PrecisionAtRecall": Metric("max", "probabilities"),
    "R2Score": Metric("max", values=True),
    "Recall": Metric("max", "probabilities"),
    "RecallAtPrecision": Metric("max", "probabilities"),
    "RootMeanSquaredError": Metric("min", values=True),
    "SensitivityAtSpecificity": Metric("max", "probabilities"),
    "SparseCategoricalAccuracy": Metric("max", labels="sparse"),
    "SparseCategoricalCrossentropy": Metric("min", "probabilities", "sparse"),
    "SparseTopKCategoricalAccuracy": Metric("max", labels="sparse"),
    "SpecificityAtSensitivity": Metric("max", "probabilities"),
    "SquaredHinge": Metric("min"),
    "TopKCategoricalAccuracy": Metric("max"),
    "TrueNegatives": Metric("max", "probabilities"),
    "TruePositives": Metric("max", "probabilities"),
}
# Metrics that Keras chooses by the loss and the labels, so their names are left to it.
CHOSEN_BY_KERAS = frozenset({"accuracy", "acc", "crossentropy", "ce"})
# Abbreviations among `CHOSEN_BY_KERAS`.
SHORT_NAMES = {"acc": "accuracy", "ce": "crossentropy"}
# Metrics that average or add their inputs without comparing them with labels, so they do not measure a model.
NO_MEASURES = frozenset({"Mean", "MeanMetricWrapper", "Sum"})

LOSSES = {
    "BinaryCrossentropy": Loss(reads="probabilities"),
    "BinaryFocalCrossentropy": Loss(reads="probabilities"),
    "CategoricalCrossentropy": Loss(reads="probabilities"),
    "CategoricalFocalCrossentropy": Loss(reads="probabilities"),
    "CategoricalGeneralizedCrossEntropy": Loss("sparse", "probabilities"),
    "CategoricalHinge": Loss(),
    "Circle": Loss("sparse"),
    "CosineSimilarity": Loss(),
    "Dice": Loss(reads="probabilities"),
    "Hinge": Loss(reads="margins"),
    "Huber": Loss(values=True),
    "KLDivergence": Loss(reads="probabilities"),
    "LogCosh": Loss(values=True),
    "MeanAbsoluteError": Loss(values=True),
    "MeanAbsolutePercentageError": Loss(values=True),
    "MeanSquaredError": Loss(values=True),
    "MeanSquaredLogarithmicError": Loss(values=True),
    "Poisson": Loss(reads="probabilities"),
    "SparseCategoricalCrossentropy": Loss("sparse", "probabilities"),
    "SquaredHinge": Loss(reads="margins"),
    "Tversky": Loss(reads="probabilities"),
}
# They read sequences of labels, not one label an input.
NO_CLASSIFICATION = frozenset({"CTC"})


def plain(name: str) -> str:
    """Write a Keras name without case and underscores: ``MeanSquaredError`` and ``mean_squared_error`` are the same."""
    return name.lower().replace("_", "")


_METRICS = {plain(name): metric for name, metric in METRICS.items()} | {
    "acc": METRICS["Accuracy"],
    "crossentropy": METRICS["CategoricalCrossentropy"],
    "ce": METRICS["CategoricalCrossentropy"],
}
_LOSSES = {plain(name): loss for name, loss in LOSSES.items()}


def metric(name: str) -> Metric | None:
    """Look up a Keras metric by its class or its snake_case name; None: it is none of Keras's."""
    return _METRICS.get(plain(name))


def loss(name: str) -> Loss | None:
    """Look up a Keras loss by its class or its snake_case name; None: it is none of Keras's."""
    return _LOSSES.get(plain(name))


class NamedMetric(NamedTuple):
    """An entry of a config's ``metrics``.

    Attributes:
        name: Name under which it is recorded.
        cls: Its class as it was typed.
        arguments: Arguments of its constructor.
    """

    name: str
    cls: str
    arguments: dict[str, Any]


def named_metrics(specs: Sequence[Any]) -> list[NamedMetric]:
    """Read the entries of a config's ``metrics``."""
    found = []
    for spec in specs:
        cls, arguments = (spec, None) if isinstance(spec, str) else next(iter(spec.items()))
        typed = cls.lower() if cls.lower() in CHOSEN_BY_KERAS else cls.rpartition(".")[2]
        arguments = dict(arguments or {})
        found.append(NamedMetric(str(arguments.get("name", typed)), cls, arguments))
    return found


def identity(spec: Any) -> tuple[str, Any]:
    """What makes two entries of ``metrics`` the same: the class, however spelled, and the arguments."""
    name, arguments = next(iter(spec.items())) if isinstance(spec, dict) and len(spec) == 1 else (spec, None)
    cls = name if "." in str(name) else plain(str(name))
    return SHORT_NAMES.get(cls, cls), arguments or {}


def without_repeats(specs: Sequence[Any]) -> list[Any]:
    """The entries of ``metrics`` but for those that are the same as one before, and but for names that are not text."""
    kept: list[Any] = []
    for given in specs:
        spec, (_, arguments) = given, identity(given)
        if isinstance(arguments, dict) and not isinstance(arguments.get("name", ""), str):
            [cls], rest = given, {key: value for key, value in arguments.items() if key != "name"}
            spec = {cls: rest} if rest else cls
        if identity(spec) not in map(identity, kept):
            kept.append(spec)
    return kept


def base_name(recorded: str) -> str:
    """A metric's name without the data that it was measured on: ``accuracy`` for ``val_accuracy``."""
    return recorded.removeprefix("val_").removeprefix("test_")


def mode_of(recorded: str, specs: Sequence[Any]) -> Mode | None:
    """Whether a metric that is recorded, such as ``val_accuracy``, is to be made small or large.

    Args:
        recorded: Its name.
        specs: The config's ``metrics``.

    Returns:
        None for a metric of the user's own.
    """
    base = base_name(recorded)
    if base == "loss":
        return "min"
    known = next((metric(each.cls) for each in named_metrics(specs) if each.name == base), None)
    return known.mode if known else None


def needs_probabilities(cls: str, arguments: Mapping[str, Any]) -> bool:
    """Whether a metric has to be handed probabilities. One with ``from_logits: true`` makes them itself."""
    known = metric(cls)
    if known is None or arguments.get("from_logits") is True:
        return False
    return known.reads == "probabilities" or (known.reads == "thresholded" and arguments.get("threshold") is not None)

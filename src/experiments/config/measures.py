"""What Keras's metrics and losses read, and which direction is better: one table each, by class.

A test holds both tables against the installed Keras. Nothing is guessed from a name: a class that is not listed here is
a user's own.
"""

from typing import Literal, NamedTuple

Mode = Literal["min", "max"]
"""Whether a metric is to be made small or large."""

Outputs = Literal["any", "probabilities", "thresholded", "margins"]
"""What a metric or loss expects of the network's outputs.

``thresholded``: probabilities, if it has an argument `threshold`; else only the order of the outputs counts.
"""


class Metric(NamedTuple):
    """A Keras metric.

    Attributes:
        mode: Which direction is better.
        reads: What it expects of the network's outputs.
    """

    mode: Mode
    reads: Outputs = "any"


class Loss(NamedTuple):
    """A Keras loss; a lower one is better.

    Attributes:
        labels: How it reads labels.
        reads: What it expects of the network's outputs.
    """

    labels: Literal["sparse", "one_hot"] = "one_hot"
    reads: Outputs = "any"


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
    "IoU": Metric("max"),
    "KLDivergence": Metric("min", "probabilities"),
    "LogCoshError": Metric("min"),
    "MeanAbsoluteError": Metric("min"),
    "MeanAbsolutePercentageError": Metric("min"),
    "MeanIoU": Metric("max"),
    "MeanSquaredError": Metric("min"),
    "MeanSquaredLogarithmicError": Metric("min"),
    "OneHotIoU": Metric("max"),
    "OneHotMeanIoU": Metric("max"),
    "PearsonCorrelation": Metric("max"),
    "Poisson": Metric("min", "probabilities"),
    "Precision": Metric("max", "probabilities"),
    "PrecisionAtRecall": Metric("max", "probabilities"),
    "R2Score": Metric("max"),
    "Recall": Metric("max", "probabilities"),
    "RecallAtPrecision": Metric("max", "probabilities"),
    "RootMeanSquaredError": Metric("min"),
    "SensitivityAtSpecificity": Metric("max", "probabilities"),
    "SparseCategoricalAccuracy": Metric("max"),
    "SparseCategoricalCrossentropy": Metric("min", "probabilities"),
    "SparseTopKCategoricalAccuracy": Metric("max"),
    "SpecificityAtSensitivity": Metric("max", "probabilities"),
    "SquaredHinge": Metric("min"),
    "TopKCategoricalAccuracy": Metric("max"),
    "TrueNegatives": Metric("max", "probabilities"),
    "TruePositives": Metric("max", "probabilities"),
}
# They average or add what they are handed, without comparing it with labels: no measure of a model.
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
    "Huber": Loss(),
    "KLDivergence": Loss(reads="probabilities"),
    "LogCosh": Loss(),
    "MeanAbsoluteError": Loss(),
    "MeanAbsolutePercentageError": Loss(),
    "MeanSquaredError": Loss(),
    "MeanSquaredLogarithmicError": Loss(),
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


_METRICS = {plain(name): metric for name, metric in METRICS.items()} | {"acc": METRICS["Accuracy"]}
_LOSSES = {plain(name): loss for name, loss in LOSSES.items()}


def metric(name: str) -> Metric | None:
    """Look up a Keras metric by its class or its snake_case name; None: it is none of Keras's."""
    return _METRICS.get(plain(name))


def loss(name: str) -> Loss | None:
    """Look up a Keras loss by its class or its snake_case name; None: it is none of Keras's."""
    return _LOSSES.get(plain(name))

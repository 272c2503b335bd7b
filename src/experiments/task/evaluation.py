"""What a trained model is worth on images that it has not seen."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.config import Config, RunFailed
from experiments.config.measures import PROBABILITIES
from experiments.data import Dataset, Images, Labels, Split

CAUSES = (
    "The usual causes are a learning rate that is too high (try a tenth of optimizer.learning_rate), gradients that "
    "explode (try optimizer.clipnorm=1), or inputs that are not scaled (data.scale)"
)

Measure = Callable[[Split], tuple[dict[str, float], NDArray[np.float32]]]


@dataclass(frozen=True)
class Mistakes:
    """The wrong guesses that the model was surest of, surest first.

    Attributes:
        x: The inputs.
        index: Their numbers in the test set.
        total: How many mistakes there are in all.
    """

    x: Images
    truth: Labels
    guess: Labels
    probability: NDArray[np.float32]
    index: NDArray[np.intp]
    total: int

    @property
    def are_images(self) -> bool:
        """Whether the inputs can be shown: (n, height, width, 1, 3 or 4 channels)."""
        return self.x.ndim == 4 and self.x.shape[-1] in (1, 3, 4)


@dataclass(frozen=True)
class Report:
    """Measures of the finished model.

    Attributes:
        measures: ``test_loss``, ``test_accuracy`` and so on; with a validation set, also ``final_val_loss`` and so on.
        truth: (test images,).
        guess: (test images,).
        classes: Number of classes.
        mistakes: The worst of them.
    """

    measures: Mapping[str, float]
    truth: Labels
    guess: Labels
    classes: int
    mistakes: Mistakes

    @cached_property
    def confusion_matrix(self) -> NDArray[np.int64]:
        """(classes, classes) counts; rows are the truth, columns the guess."""
        from sklearn.metrics import confusion_matrix

        return confusion_matrix(self.truth, self.guess, labels=range(self.classes))  # type: ignore[no-any-return]

    def as_json(self) -> dict[str, Any]:
        """Measures, confusion matrix, and each class's precision, recall, F1 score and support."""
        from sklearn.metrics import classification_report

        labels = range(self.classes)
        by_class = classification_report(self.truth, self.guess, labels=labels, output_dict=True, zero_division=0.0)
        return {
            "measures": dict(self.measures),
            "confusion_matrix": self.confusion_matrix.tolist(),
            "classes": by_class,
        }


def evaluate(measure: Measure, dataset: Dataset, activation: str) -> Report:
    """Measure a model on the test set, and on the validation set if there is one.

    Args:
        measure: Gives the metrics of a model on a split, and its outputs (n, classes).
        dataset: The data set that the model was trained on.
        activation: What the outputs come from, see `last_activation`.

    Raises:
        RunFailed: A measure is NaN or infinite.
    """
    test = dataset.test
    measured, outputs = measure(test)
    measures = {f"test_{name}": value for name, value in measured.items()}
    if dataset.validation:
        measures |= {f"final_val_{name}": value for name, value in measure(dataset.validation)[0].items()}
    _refuse_what_is_not_finite(measures)
    guess = outputs.argmax(axis=1)
    return Report(
        measures, test.y, guess, dataset.classes, worst_mistakes(test, guess, probabilities(outputs, activation))
    )


def _refuse_what_is_not_finite(measures: Mapping[str, float]) -> None:
    """Fail the run whose finished model cannot be measured.

    A metric that is not the loss counts, too: such a value can neither be ranked nor reproduced.
    """
    wrong = {name: value for name, value in measures.items() if not np.isfinite(value)}
    if not wrong:
        return
    listed = ", ".join(f"{name} is {value}" for name, value in wrong.items())
    if any(name.endswith("loss") for name in wrong):
        raise RunFailed(f"the finished model cannot be measured: {listed}. {CAUSES}")
    names = " and ".join(dict.fromkeys(re.sub("^(test|final_val)_", "", name) for name in wrong))
    raise RunFailed(
        f"the finished model cannot be measured: {listed}, though its loss is finite. The metric has no value for "
        f"these outputs: leave {names} out of metrics, or have it return a finite number"
    )


def worst_mistakes(split: Split, guess: NDArray[np.intp], predicted: NDArray[np.float32], count: int = 15) -> Mistakes:
    """Find the wrong guesses (n,) with the highest probabilities (n, classes)."""
    certainty = predicted[np.arange(len(guess)), guess]
    wrong = np.flatnonzero(guess != split.y)
    worst = wrong[np.argsort(-certainty[wrong], kind="stable")[:count]]
    numbers = worst if split.numbers is None else split.numbers[worst]
    return Mistakes(split.x[worst], split.y[worst], guess[worst], certainty[worst], numbers, len(wrong))


def objective(config: Config, history: Mapping[str, Sequence[float]], report: Report) -> float:
    """The value that runs are ranked by, of the finished model; a training metric is that of the last epoch.

    Raises:
        RunFailed: It is NaN or infinite.
    """
    name = config.objective_metric
    if name.startswith("val_"):
        return report.measures[f"final_{name}"]
    if name in report.measures:
        return report.measures[name]
    _refuse_what_is_not_finite({name: (value := float(history[name][-1]))})
    return value


def probabilities(outputs: NDArray[Any], activation: str) -> NDArray[np.float32]:
    """Turn a model's outputs (n, classes), which come from an activation, into probabilities.

    The outputs of softmax and sparsemax are probabilities; those of sigmoids are scaled to the sum 1. Logits and
    margins, which any other activation gives, go through softmax, which keeps their order. Each image counts by itself.
    """
    outputs = outputs.astype(np.float32)
    if activation not in PROBABILITIES:
        powers = np.exp(outputs - outputs.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)  # type: ignore[no-any-return]
    if activation in ("softmax", "sparsemax"):
        return outputs
    total = outputs.sum(axis=1, keepdims=True)
    even = np.full_like(outputs, 1 / outputs.shape[1])
    return np.divide(outputs, total, out=even, where=total > 0)  # type: ignore[no-any-return]


def last_activation(model: Any) -> str:
    """The name of what a model's outputs come from: an activation, or a layer such as Softmax."""
    last = model.layers[-1]
    activation = getattr(last, "activation", None)
    return str(getattr(activation, "__name__", "") or type(activation or last).__name__).lower()

"""What a trained model is worth on images that it has not seen."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from experiments.config import Config
from experiments.data import Dataset, Split
from experiments.models import encode_labels


@dataclass(frozen=True)
class Report:
    """Measures of the finished model.

    Attributes:
        measures: ``test_loss``, ``test_accuracy`` and so on; with a validation set, also ``final_val_loss`` and so on.
        probabilities: (test images, classes).
        confusion_matrix: (classes, classes) counts; rows are the truth, columns the guess.
        classes: Precision, recall, F1 score and support of each class.
    """

    measures: Mapping[str, float]
    probabilities: NDArray[np.float32]
    confusion_matrix: NDArray[np.int64]
    classes: Mapping[str, Any]

    def as_json(self) -> dict[str, Any]:
        """The report without the probabilities, for a file."""
        return {
            "measures": dict(self.measures),
            "confusion_matrix": self.confusion_matrix.tolist(),
            "classes": dict(self.classes),
        }


def objective(config: Config, history: Mapping[str, Sequence[float]], report: Report) -> float:
    """The value that runs are ranked by, of the finished model; a training metric is that of the last epoch."""
    name = config.objective_metric
    if name.startswith("val_"):
        return report.measures[f"final_{name}"]
    return report.measures[name] if name in report.measures else float(history[name][-1])


def evaluate(model: keras.Sequential, dataset: Dataset, config: Config, batch_size: int) -> Report:
    """Measure the model on the test set, and on the validation set if there is one."""
    from sklearn.metrics import classification_report, confusion_matrix

    measures, outputs = _measure(model, dataset.test, dataset.classes, config, batch_size, "test_")
    if dataset.validation:
        measures |= _measure(model, dataset.validation, dataset.classes, config, batch_size, "final_val_")[0]
    guesses, labels = outputs.argmax(axis=1), list(range(dataset.classes))
    return Report(
        measures=measures,
        probabilities=probabilities(outputs),
        confusion_matrix=confusion_matrix(dataset.test.y, guesses, labels=labels),
        classes=classification_report(dataset.test.y, guesses, labels=labels, output_dict=True, zero_division=0.0),
    )


def _measure(
    model: keras.Sequential, split: Split, classes: int, config: Config, batch_size: int, prefix: str
) -> tuple[dict[str, float], NDArray[np.float32]]:
    """Loss and metrics in one pass: Keras's `evaluate` would not hand out the outputs that they are computed from."""
    outputs = np.concatenate([model.predict_on_batch(split.x[i : i + batch_size]) for i in range(0, len(split), batch_size)])
    labels = encode_labels(split.y, config, classes)
    model.reset_metrics()
    loss = model.compute_loss(y=labels, y_pred=outputs, training=False)
    measured = model.compute_metrics(split.x, labels, outputs) | {"loss": loss}
    return {prefix + name: float(np.mean(value)) for name, value in measured.items()}, outputs


def probabilities(outputs: NDArray[Any]) -> NDArray[np.float32]:
    """Turn a model's outputs (n, classes) into probabilities: as they are where they are, else by softmax.

    Sigmoid outputs are scaled to the sum 1. Logits and margins go through softmax, which keeps their order.
    """
    outputs = outputs.astype(np.float32)
    total = outputs.sum(axis=1, keepdims=True)
    if (outputs >= 0).all() and (outputs <= 1).all() and (total > 0).all():
        return outputs if np.allclose(total, 1, atol=1e-3) else outputs / total
    powers = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)  # type: ignore[no-any-return]

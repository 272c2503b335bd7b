"""Classification: targets are whole numbers from 0, the network gives a value for each class."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from experiments.config.measures import PROBABILITIES
from experiments.task.protocol import SAME_LENGTH, Arrays, Judged, Wrong

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Labels = NDArray[np.int64]

# What to do before the arrays are saved: lines of Python, in which X and Y are the arrays of a part, such as x_train.
ENCODE = (
    "classes, y = np.unique(np.concatenate([y_train, y_test]), return_inverse=True); "
    "y_train, y_test = np.split(y, [len(y_train)])"
)
ENCODE_CLASSES = f"encode the classes: {ENCODE}"
ONE_HOT = "of one-hot labels: Y = Y.argmax(axis=1)"
KNOWN = "leave such images out: keep = y_test <= y_train.max(); x_test, y_test = x_test[keep], y_test[keep]"


def problems(targets: NDArray[Any], inputs: int | None, training: int) -> Iterator[Wrong]:
    """Say what is wrong with labels."""
    y = targets
    if y.ndim != 1:
        yield Wrong(f"got shape {y.shape}, expected (n,)", ONE_HOT if y.ndim == 2 and y.size else "")
    elif inputs is not None and len(y) != inputs:
        what = f"got {len(y)} labels for {inputs} images, expected one for each, in the same order"
        yield Wrong(what, SAME_LENGTH if len(y) and inputs else "")
    if y.ndim == 0:
        return
    if y.dtype.kind in "US":
        shown = ", ".join(dict.fromkeys(map(str, y[:20].tolist()[:3])))
        yield Wrong(f"got text ({shown}, …), expected whole numbers from 0", ENCODE_CLASSES)
    elif not _whole(y):
        finite = y.dtype.kind not in "fcmM" or bool(np.isfinite(y).all())
        what = f"got {y.dtype} that are not all whole" if y.dtype.kind == "f" else f"got type {y.dtype}"
        numbers = "; if they are numbers to predict: task=regression" if y.dtype.kind == "f" else ""
        yield Wrong(f"{what}, expected whole numbers from 0{numbers}", ENCODE_CLASSES if finite else "")
    if y.ndim == 1 and training and y.size and _whole(y):
        if y.min() < 0:
            yield Wrong(f"got the label {y.min()}, expected whole numbers from 0", ENCODE_CLASSES)
        if y.max() >= training:  # not labels: the model would get an output for each
            yield Wrong(f"got the label {y.max()} with {training} training images", ENCODE_CLASSES)


def _whole(y: NDArray[Any]) -> bool:
    return y.dtype.kind in "uib" or (y.dtype.kind == "f" and bool((np.isfinite(y) & (y == np.floor(y))).all()))


def disagreements(train: NDArray[Any], test: NDArray[Any]) -> dict[str, list[Wrong]]:
    """What is wrong with labels that are right each for itself."""
    found = {}
    if train.min() == train.max():
        found["y_train"] = [Wrong("holds one class only, expected at least two")]
    if test.max() > train.max():
        mend = KNOWN if test.min() <= train.max() else ""  # which would leave no test set
        found["y_test"] = [Wrong(f"has the label {test.max()}, y_train ends at {train.max()}", mend)]
    return found


def clean(targets: NDArray[Any]) -> Labels:
    """Labels as whole numbers."""
    return targets.astype(np.int64)


def outputs(train: NDArray[Any]) -> int:
    """One output for each class."""
    return int(train.max()) + 1


def strata(targets: NDArray[Any]) -> Labels:
    """The labels: a part of the data set keeps the shares of the classes."""
    return targets


def warnings(train: NDArray[Any], outputs: int) -> Iterator[str]:
    """Warn of classes that no label names."""
    absent = np.flatnonzero(np.bincount(train, minlength=outputs) == 0)
    if len(absent):
        listed = ", ".join(map(str, absent[:10])) + (", …" if len(absent) > 10 else "")
        what = f"labels go up to {outputs - 1}, so there are {outputs} classes, but none is {listed}"
        yield f"y_train: {what}; to number them from 0 without gaps: {ENCODE}"


def describe(train: NDArray[Any], outputs: int) -> str:
    """Say how many classes there are."""
    return f"{outputs} classes"


def encode(targets: NDArray[Any], labels: str, outputs: int) -> NDArray[Any]:
    """Labels (n,) as whole numbers, or one-hot (n, classes)."""
    return np.eye(outputs, dtype=np.float32)[targets] if labels == "one_hot" else targets.astype(np.int32)


def examples(outputs: int) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """Two labels of each class, and probabilities."""
    truth = np.arange(2 * outputs) % outputs
    made = np.random.default_rng(0).random((len(truth), outputs), dtype=np.float32)
    return truth, made / made.sum(axis=1, keepdims=True)


def judge(targets: NDArray[Any], outputs: NDArray[np.float32], activation: str) -> Judged:
    """Truth, guess and its probability; the worst are the wrong guesses that the model was surest of."""
    guess, predicted = outputs.argmax(axis=1), predictions(outputs, activation)
    certainty = predicted[np.arange(len(guess)), guess]
    wrong = np.flatnonzero(guess != targets)
    return Judged(
        kept={"classes": np.array(outputs.shape[1]), "mistakes": np.array(len(wrong))},
        each={"truth": targets, "guess": guess},
        worst=wrong[np.argsort(-certainty[wrong], kind="stable")],
        worst_each={"probability": certainty},
    )


@dataclass(frozen=True)
class ClassReport:
    """Measures of a classifier, and its guesses for the test set; see `judge`."""

    measures: Mapping[str, float]
    kept: Arrays

    @cached_property
    def confusion_matrix(self) -> NDArray[np.int64]:
        """(classes, classes) counts; rows are the truth, columns the guess."""
        from sklearn.metrics import confusion_matrix

        labels = range(int(self.kept["classes"]))
        return confusion_matrix(self.kept["truth"], self.kept["guess"], labels=labels)  # type: ignore[no-any-return]

    def as_json(self) -> dict[str, Any]:
        """Measures, confusion matrix, and each class's precision, recall, F1 score and support."""
        from sklearn.metrics import classification_report

        truth, guess, labels = self.kept["truth"], self.kept["guess"], range(int(self.kept["classes"]))
        by_class = classification_report(truth, guess, labels=labels, output_dict=True, zero_division=0.0)
        matrix = self.confusion_matrix.tolist()
        return {"measures": dict(self.measures), "confusion_matrix": matrix, "classes": by_class}

    def draw(self) -> "dict[str, Figure]":
        """The confusion matrix; and the surest mistakes, where the inputs are images."""
        from experiments.task import pictures  # now: matplotlib takes long to import

        drawn = {"confusion_matrix": pictures.confusion(self.confusion_matrix)}
        inputs, total = self.kept["worst.x"], int(self.kept["mistakes"])
        if pictures.are_images(inputs):
            worst = zip(
                *(self.kept[f"worst.{name}"] for name in ("index", "truth", "guess", "probability")), strict=True
            )
            texts = [f"is {truth}, guessed {guess}\n#{index}   p = {p:.3f}" for index, truth, guess, p in worst]
            title = f"The surest of {total} mistakes" if texts else "No mistakes"
            drawn["worst_mistakes"] = pictures.images(inputs, texts, title)
        return drawn


def report(measures: Mapping[str, float], kept: Arrays) -> ClassReport:
    """Make a report of measures and what was kept."""
    return ClassReport(measures, kept)


def predictions(outputs: NDArray[np.floating], activation: str) -> NDArray[np.float32]:
    """Turn a model's outputs (n, classes), which come from an activation, into probabilities.

    The outputs of softmax and sparsemax are probabilities; those of sigmoids are scaled to the sum 1. Logits and
    margins, which any other activation gives, go through softmax, which keeps their order. Each image counts by itself.

    Raises:
        ValueError: They are none of a classifier.
    """
    if outputs.ndim != 2 or outputs.shape[1] < 2:
        raise ValueError(f"it gives values of shape {outputs.shape}, expected some for each class")
    outputs = outputs.astype(np.float32)
    if activation not in PROBABILITIES:
        powers = np.exp(outputs - outputs.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)  # type: ignore[no-any-return]
    if activation in ("softmax", "sparsemax"):
        return outputs
    total = outputs.sum(axis=1, keepdims=True)
    even = np.full_like(outputs, 1 / outputs.shape[1])
    return np.divide(outputs, total, out=even, where=total > 0)  # type: ignore[no-any-return]


def guesses(predictions: NDArray[np.floating], names: Sequence[str]) -> list[dict[str, Any]]:
    """The guess for each image, its probability, and the runner-up."""
    found = []
    for name, row in zip(names, predictions, strict=True):
        first, second = np.argsort(-row, kind="stable")[:2]  # of equal ones the first, as when it was measured
        found.append(
            {
                "image": name,
                "guess": int(first),
                "probability": float(row[first]),
                "runner_up": int(second),
                "runner_up_probability": float(row[second]),
            }
        )
    return found


def table(guesses: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line an image; what is wrong is marked with the truth."""
    width = max(len("image"), *(len(guess["image"]) for guess in guesses))
    lines = [f"{'image':>{width}}  guess  probability  runner-up"]
    for guess in guesses:
        runner_up = f"{guess['runner_up']} ({guess['runner_up_probability']:.5f})"
        wrong = f"  is {guess['truth']}" if guess.get("truth", guess["guess"]) != guess["guess"] else ""
        lines.append(f"{guess['image']:>{width}}  {guess['guess']:5}  {guess['probability']:11.5f}  {runner_up}{wrong}")
    return lines

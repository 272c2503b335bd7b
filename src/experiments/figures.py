"""Pictures of a run. Drawn without pyplot: nothing is shown, nothing is kept in memory."""

from collections.abc import Mapping, Sequence
from math import ceil

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from experiments.data import Split
from experiments.evaluation import Report

TRAIN, VALIDATION, TEST = "#1f77b4", "#ff7f0e", "#555555"


def draw(history: Mapping[str, Sequence[float]], report: Report, test: Split) -> dict[str, Figure]:
    """All pictures of a run, by name."""
    figures = {
        "learning_curves": learning_curves(history, report.measures),
        "confusion_matrix": confusion(report.confusion_matrix),
    }
    if test.x.ndim == 4:
        figures["worst_mistakes"] = worst_mistakes(test, report.probabilities)
    return figures


def learning_curves(history: Mapping[str, Sequence[float]], measures: Mapping[str, float]) -> Figure:
    """One panel a metric: training and validation by epoch, the test result as a line across."""
    names = [name for name in history if not name.startswith("val_") and name != "learning_rate"]
    figure = Figure(figsize=(4.8 * len(names), 3.6), layout="constrained")
    for axes, name in zip(np.atleast_1d(figure.subplots(1, len(names))), names, strict=True):
        epochs = range(1, len(history[name]) + 1)
        axes.plot(epochs, history[name], marker="o", color=TRAIN, label="training")
        if f"val_{name}" in history:
            axes.plot(epochs, history[f"val_{name}"], marker="o", color=VALIDATION, label="validation")
        if (test := measures.get(f"test_{name}")) is not None:
            axes.axhline(test, color=TEST, linestyle="--", label=f"test {test:.4f}")
        axes.set(title=name.replace("_", " "), xlabel="epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend()
    return figure


def confusion(matrix: NDArray[np.int64]) -> Figure:
    """Counts by truth and guess; the colour shows the mistakes, which the diagonal would drown."""
    classes = len(matrix)
    size = max(4.0, 1.6 + 0.5 * classes)
    figure = Figure(figsize=(size, size), layout="constrained")
    axes = figure.subplots()
    mistakes = matrix.astype(float)
    np.fill_diagonal(mistakes, 0)
    axes.imshow(mistakes, cmap="Reds", vmax=max(mistakes.max() * 1.5, 1))
    if classes <= 20:
        for truth, guess in np.ndindex(matrix.shape):
            if matrix[truth, guess]:
                weight = "bold" if truth == guess else "normal"
                axes.text(guess, truth, f"{matrix[truth, guess]}", ha="center", va="center", fontsize=8, weight=weight)
        axes.set(xticks=range(classes), yticks=range(classes))
    right = np.trace(matrix) / max(matrix.sum(), 1)
    axes.set(xlabel="guess", ylabel="truth", title=f"{right:.2%} of {matrix.sum():,} test images are right")
    return figure


def worst_mistakes(test: Split, probabilities: NDArray[np.float32], count: int = 15) -> Figure:
    """The wrong guesses that the model was surest of, with truth and guess."""
    x, y = test.x, test.y
    guesses, certainty = probabilities.argmax(axis=1), probabilities.max(axis=1)
    wrong = np.flatnonzero(guesses != y)
    worst = wrong[np.argsort(-certainty[wrong], kind="stable")[:count]]
    columns = 5
    rows = max(1, ceil(len(worst) / columns))
    figure = Figure(figsize=(1.7 * columns, 2.1 * rows + 0.5), layout="constrained")
    figure.suptitle(f"The surest of {len(wrong)} mistakes" if len(wrong) else "No mistakes")
    panels = figure.subplots(rows, columns).ravel()
    for axes in panels:
        axes.axis("off")
    for axes, index in zip(panels, worst, strict=False):
        axes.imshow(x[index].squeeze(), cmap="gray_r")
        title = f"is {y[index]}, guessed {guesses[index]}\n#{index}   p = {certainty[index]:.3f}"
        axes.set_title(title, fontsize=9)
    return figure

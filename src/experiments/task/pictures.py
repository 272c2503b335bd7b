"""Pictures of a run. Drawn without pyplot: nothing is shown, nothing is kept in memory.

Layouts are fixed, titles too (``y=1``): to compute one, matplotlib draws everything twice, and a run waits for its
pictures.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import rcdefaults, rcParams
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

WRITTEN_OUT = (-3, 5)  # powers of ten between which numbers are not shown as powers
TRAINING, VALIDATION, TEST = "#1f77b4", "#ff7f0e", "#555555"

rcdefaults()  # figures are the same whatever style a user has set
rcParams["text.parse_math"] = False  # a value with two $ is no formula
warnings.filterwarnings("ignore", "Glyph .* missing from font")  # a box stands for it; no news for the terminal

# How figures are saved. The usual compression (6) takes twice as long, for files that are 15 % smaller.
SAVED: Any = {"dpi": 110, "pil_kwargs": {"compress_level": 1}}


def learning_curves(history: Mapping[str, Sequence[float]], measures: Mapping[str, float]) -> Figure:
    """One panel a metric: training and validation by epoch, the test result as a line across."""
    names = [name for name in history if not name.startswith("val_") and name != "learning_rate"]
    width, height = 5.0 * len(names), 3.8
    figure = Figure(figsize=(width, height))
    for position, name in enumerate(names):
        axes = figure.add_axes((5 * position / width + 0.7 / width, 0.15, 4.1 / width, 0.73))
        epochs = range(1, len(history[name]) + 1)
        axes.plot(epochs, history[name], marker="o", color=TRAINING, label="training")
        if f"val_{name}" in history:
            axes.plot(epochs, history[f"val_{name}"], marker="o", color=VALIDATION, label="validation")
        if (test := measures.get(f"test_{name}")) is not None:
            axes.axhline(test, color=TEST, linestyle="--", label=f"test {test:.4f}")
        axes.set(xlabel="epoch", xlim=(0.5, len(epochs) + 0.5))
        axes.set_title(name.replace("_", " "), y=1)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.3)
        axes.legend()
    return figure


def confusion(matrix: NDArray[np.int64]) -> Figure:
    """Counts by truth and guess; the colour shows the mistakes, which the diagonal would drown."""
    classes = len(matrix)
    size = min(max(4.6, 1.6 + 0.5 * classes), 12.0)
    figure = Figure(figsize=(size, size))
    axes = figure.add_axes((0.7 / size, 0.6 / size, 1 - 1.0 / size, 1 - 1.1 / size))
    mistakes = matrix.astype(float)
    np.fill_diagonal(mistakes, 0)
    axes.imshow(mistakes, cmap="Reds", vmax=max(mistakes.max() * 1.5, 1))
    if classes <= 20:
        for truth, guess in zip(*matrix.nonzero(), strict=True):
            weight = "bold" if truth == guess else "normal"
            axes.text(guess, truth, str(matrix[truth, guess]), ha="center", va="center", fontsize=9, weight=weight)
        axes.set(xticks=range(classes), yticks=range(classes))
    right = np.trace(matrix) / max(matrix.sum(), 1)
    axes.set(xlabel="guess", ylabel="truth")
    axes.set_title(f"{right:.2%} of {matrix.sum():,} test images are right", y=1)
    return figure


def are_images(inputs: NDArray[np.float32]) -> bool:
    """Whether inputs can be shown: (n, height, width, 1, 3 or 4 channels)."""
    return inputs.ndim == 4 and inputs.shape[-1] in (1, 3, 4)


def images(inputs: NDArray[np.float32], texts: Sequence[str], title: str) -> Figure:
    """Images (n, height, width, channels), each below a text of two lines."""
    columns = 5
    rows = max(1, -(-len(texts) // columns))
    figure = Figure(figsize=(1.7 * columns, 2.1 * rows + 0.5))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, columns), ylim=(rows + 0.24, 0))
    axes.axis("off")
    for number, text in enumerate(texts):
        row, column = divmod(number, columns)
        left, top = column + 0.12, row + 0.52
        place = (left, left + 0.76, top + 0.615, top)
        axes.imshow(_shown(inputs[number]), cmap="gray_r", extent=place, aspect="auto")
        axes.text(column + 0.5, top - 0.03, text, ha="center", va="bottom", fontsize=9)
    axes.set(xlim=(0, columns), ylim=(rows + 0.24, 0))
    axes.text(columns / 2, 0.12, title, ha="center", va="center", fontsize=12)
    return figure


def parity(truth: NDArray[np.float32], guess: NDArray[np.float32]) -> Figure:
    """Predictions (n,) against the truth (n,); on the line they are right."""
    figure = Figure(figsize=(4.6, 4.6))
    axes = figure.add_axes((0.17, 0.13, 0.78, 0.76))
    ends = [float(min(truth.min(), guess.min())), float(max(truth.max(), guess.max()))]
    axes.plot(ends, ends, color=TEST, linewidth=1)
    axes.scatter(truth, guess, s=12, alpha=min(1.0, 30 / len(truth) ** 0.5), color=TRAINING, edgecolors="none")
    axes.set(xlabel="truth", ylabel="prediction")
    axes.ticklabel_format(scilimits=WRITTEN_OUT)
    axes.set_title(f"{len(truth):,} predictions of the test set", y=1)
    axes.grid(alpha=0.3)
    return figure


def residuals(guess: NDArray[np.float32], residuals: NDArray[np.float64]) -> Figure:
    """By how much predictions are too large (n,): along the predictions (n,), and how often."""
    figure = Figure(figsize=(9.2, 3.8))
    left = figure.add_axes((0.09, 0.16, 0.5, 0.72))
    left.axhline(0, color=TEST, linewidth=1)
    left.scatter(guess, residuals, s=12, alpha=min(1.0, 30 / len(guess) ** 0.5), color=TRAINING, edgecolors="none")
    left.set(xlabel="prediction", ylabel="prediction - truth")
    left.ticklabel_format(scilimits=WRITTEN_OUT)
    left.set_title("residuals", y=1)
    right = figure.add_axes((0.68, 0.16, 0.29, 0.72))
    right.hist(residuals, bins="auto" if len(residuals) > 1 and np.ptp(residuals) > 0 else 1, color=TRAINING)
    right.axvline(0, color=TEST, linewidth=1)
    right.set(xlabel="prediction - truth", ylabel="test inputs")
    right.ticklabel_format(axis="x", scilimits=WRITTEN_OUT)
    right.yaxis.set_major_locator(MaxNLocator(integer=True))
    right.set_title(f"mean {residuals.mean():.3g}", y=1)
    for axes in (left, right):
        axes.grid(alpha=0.3)
    return figure


def _shown(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Stretch an image (height, width, channels) to the range from 0 to 1, whatever its scale."""
    image = (image - image.min()) / max(np.ptp(image), 1e-9)
    return image[..., 0] if image.shape[-1] == 1 else image

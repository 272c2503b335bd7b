"""Pictures of a run. Drawn without pyplot: nothing is shown, nothing is kept in memory.

Layouts are fixed, titles too (``y=1``): to compute one, matplotlib draws everything twice, and a run waits for its
pictures.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps, rcdefaults, rcParams
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from experiments.config.problems import visible
from experiments.task.evaluation import Mistakes, Report

COMPARED = 40  # runs that the picture of a sweep has room for
TRAINING, VALIDATION, TEST = "#1f77b4", "#ff7f0e", "#555555"

rcdefaults()  # figures are the same whatever style a user has set
rcParams["text.parse_math"] = False  # a value with two $ is no formula
warnings.filterwarnings("ignore", "Glyph .* missing from font")  # a box stands for it; no news for the terminal

# How figures are saved. The usual compression (6) takes twice as long, for files that are 15 % smaller.
SAVED: Any = {"dpi": 110, "pil_kwargs": {"compress_level": 1}}


def draw(history: Mapping[str, Sequence[float]], report: Report) -> dict[str, Figure]:
    """All pictures of a run, by name."""
    figures = {
        "learning_curves": learning_curves(history, report.measures),
        "confusion_matrix": confusion(report.confusion_matrix),
    }
    if report.mistakes.are_images:
        figures["worst_mistakes"] = worst_mistakes(report.mistakes)
    return figures


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


def worst_mistakes(mistakes: Mistakes) -> Figure:
    """The wrong guesses that the model was surest of, with truth and guess."""
    columns = 5
    rows = max(1, -(-len(mistakes.index) // columns))
    figure = Figure(figsize=(1.7 * columns, 2.1 * rows + 0.5))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, columns), ylim=(rows + 0.24, 0))
    axes.axis("off")
    for number, index in enumerate(mistakes.index):
        row, column = divmod(number, columns)
        left, top = column + 0.12, row + 0.52
        place = (left, left + 0.76, top + 0.615, top)
        axes.imshow(_shown(mistakes.x[number]), cmap="gray_r", extent=place, aspect="auto")
        said = f"is {mistakes.truth[number]}, guessed {mistakes.guess[number]}"
        sure = f"#{index}   p = {mistakes.probability[number]:.3f}"
        axes.text(column + 0.5, top - 0.03, f"{said}\n{sure}", ha="center", va="bottom", fontsize=9)
    axes.set(xlim=(0, columns), ylim=(rows + 0.24, 0))
    title = f"The surest of {mistakes.total} mistakes" if len(mistakes.index) else "No mistakes"
    axes.text(columns / 2, 0.12, title, ha="center", va="center", fontsize=12)
    return figure


def _shown(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Stretch an image (height, width, channels) to the range from 0 to 1, whatever its scale."""
    image = (image - image.min()) / max(np.ptp(image), 1e-9)
    return image[..., 0] if image.shape[-1] == 1 else image


def compare_runs(
    names: Sequence[str], objectives: Sequence[float], curves: Sequence[Sequence[float]], ranked_by: str, metric: str
) -> Figure:
    """Runs of a sweep, the best first: the curves of a metric by epoch, and the objectives as a ranking."""
    height = max(3.8, 1.1 + 0.26 * len(names))
    figure = Figure(figsize=(13, height))
    shades = colormaps["viridis"](np.linspace(0.05, 0.9, len(names)))
    left = figure.add_axes((0.06, 0.6 / height, 0.4, 1 - 1.1 / height))
    for shade, curve in reversed(list(zip(shades, curves, strict=True))):  # the best on top
        left.plot(range(1, len(curve) + 1), curve, marker="o", markersize=3, color=shade)
    left.set(title=f"{metric.replace('_', ' ')} by epoch", xlabel="epoch")
    left.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    right = figure.add_axes((0.72, 0.6 / height, 0.26, 1 - 1.1 / height))
    places = range(len(names))
    right.scatter(objectives, places, color=shades, zorder=3)
    right.set(title=ranked_by.replace("_", " "), ylim=(len(names) - 0.5, -0.5))
    right.set_yticks(places, [name if len(name) <= 42 else f"{name[:41]}…" for name in map(visible, names)], fontsize=8)
    for axes in (left, right):
        axes.grid(alpha=0.3)
    return figure

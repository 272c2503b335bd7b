import io

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from experiments.data import Split
from experiments.ranking import picture
from experiments.task import classification, of, pictures, regression
from experiments.task.measuring import keep


def report(
    classes: int, wrong: int, shape: tuple[int, ...] = (8, 8, 1), scale: float = 1.0
) -> classification.ClassReport:
    rng = np.random.default_rng(0)
    y = np.arange(120) % classes
    outputs = np.eye(classes, dtype=np.float32)[np.where(np.arange(120) < wrong, (y + 1) % classes, y)]
    x = rng.random((120, *shape), np.float32) * np.float32(scale)
    kept = keep(of("classification"), Split(x, y), outputs, "softmax")
    return classification.report({"test_loss": 0.3, "test_accuracy": 0.9}, kept)


def pixels(figure: Figure) -> np.ndarray:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=40)
    return np.asarray(Image.open(buffer).convert("L"))


@pytest.mark.parametrize(
    ("classes", "wrong", "epochs", "shape", "scale"),
    [(2, 20, 1, (8, 8, 1), 1.0), (10, 3, 5, (8, 8, 3), 255.0), (30, 0, 2, (8, 1, 1), 1.0)],
)
def test_nothing_is_cut_off(classes: int, wrong: int, epochs: int, shape: tuple[int, ...], scale: float) -> None:
    history = {
        name: list(np.linspace(1, 0.1, epochs))
        for name in ("loss", "val_loss", "sparse_top_k_categorical_accuracy", "learning_rate")
    }
    drawn = report(classes, wrong, shape, scale).draw()
    assert set(drawn) == {"confusion_matrix", "worst_mistakes"}
    for figure in (pictures.learning_curves(history, {"test_loss": 0.3}), *drawn.values()):
        assert_whole(figure)


def assert_whole(figure: Figure) -> None:
    """Something is drawn, and nothing reaches the edge."""
    image = pixels(figure)
    assert image.min() < 150
    for edge in (image[0], image[-1], image[:, 0], image[:, -1]):
        assert (edge == 255).all()


@pytest.mark.parametrize("truth", [[1.0], [3.0, 3.0], list(np.linspace(-1e6, 1e6, 500)), [1e-9, 2e-9]])
@pytest.mark.parametrize("shape", [(5,), (6, 6, 3)])
def test_numbers_are_drawn_whole(truth: list[float], shape: tuple[int, ...]) -> None:
    y = np.array(truth, np.float32)
    x = np.random.default_rng(0).random((len(y), *shape), np.float32)
    drawn = regression.report({}, keep(of("regression"), Split(x, y), (1.1 * y + 0.5)[:, np.newaxis], "linear")).draw()
    assert set(drawn) == {"parity", "residuals"} | ({"worst_predictions"} if len(shape) == 3 else set())
    for figure in drawn.values():
        assert_whole(figure)


def test_features_have_no_pictures_of_mistakes() -> None:
    assert set(report(2, 5, (8,)).draw()) == {"confusion_matrix"}


def test_curves_show_training_validation_and_test() -> None:
    history = {"loss": [3.0, 2.0], "val_loss": [3.5, 2.5], "accuracy": [0.1, 0.2], "learning_rate": [1.0, 1.0]}
    figure = pictures.learning_curves(history, {"test_loss": 2.2})
    assert [axes.get_title() for axes in figure.axes] == ["loss", "accuracy"]
    loss, accuracy = ({line.get_label(): list(line.get_ydata()) for line in axes.lines} for axes in figure.axes)
    assert loss == {"training": [3.0, 2.0], "validation": [3.5, 2.5], "test 2.2000": [2.2, 2.2]}
    assert accuracy == {"training": [0.1, 0.2]}


def test_one_epoch_is_epoch_one() -> None:
    axes = pictures.learning_curves({"loss": [1.0]}, {}).axes[0]
    low, high = axes.get_xlim()
    assert [tick for tick in axes.get_xticks() if low <= tick <= high] == [1]


def test_the_confusion_matrix_shows_its_counts() -> None:
    axes = pictures.confusion(np.array([[5, 0], [2, 3]])).axes[0]
    assert {(text.get_position(), text.get_text()) for text in axes.texts} == {
        ((0, 0), "5"),
        ((0, 1), "2"),
        ((1, 1), "3"),
    }
    assert axes.get_title() == "80.00% of 10 test images are right"
    assert not pictures.confusion(np.eye(21, dtype=int)).axes[0].texts


def test_mistakes_say_what_they_are() -> None:
    said = [text.get_text() for text in report(3, 2).draw()["worst_mistakes"].axes[0].texts]
    assert said == ["is 0, guessed 1\n#0   p = 1.000", "is 1, guessed 2\n#1   p = 1.000", "The surest of 2 mistakes"]
    assert [text.get_text() for text in report(3, 0).draw()["worst_mistakes"].axes[0].texts] == ["No mistakes"]


def test_names_of_runs_may_hold_any_text() -> None:
    figure = picture.compare_runs([r"a=$\frac{$", "b=\x07"], [0.5, 0.25], [[0.5], [0.25]], "val_accuracy", "accuracy")
    figure.savefig(io.BytesIO())
    assert [label.get_text() for label in figure.axes[1].get_yticklabels()] == [r"a=$\frac{$", r"b=\x07"]

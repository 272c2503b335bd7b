"""The pictures of a search: which there are, and what they show."""

import io
import random
import warnings
from collections.abc import Sequence

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState
from PIL import Image

from experiments.sweeps.search.parallel import Target, parallel_coordinates
from experiments.sweeps.search.pictures import pictures

SGD = "optimizer=sgd:optimizer.momentum"
ALL = {"history.png", "importances.png", "parallel_coordinates.png"}


def study(
    count: int, directions: Sequence[str] = ("maximize",), *, stopped: int = 0, constant: bool = False
) -> optuna.Study:
    """A search over a choice with a key of its own, and a learning rate; the last trials were stopped early."""
    made = optuna.create_study(directions=list(directions), sampler=optuna.samplers.RandomSampler(seed=0))
    noise = random.Random(0)
    for number in range(count):
        trial = made.ask()
        sgd = trial.suggest_categorical("optimizer", ["adam", "sgd"]) == "sgd"
        rate = trial.suggest_float("optimizer.learning_rate", 1e-4, 1e-1, log=True)
        momentum = trial.suggest_float(SGD, 0, 0.9) if sgd else 0.0
        value = 0.5 if constant else 0.9 + rate / 2 + momentum / 100 + noise.gauss(0, 0.001)
        if number >= count - stopped:
            trial.report(value, 1)
            made.tell(trial, state=TrialState.PRUNED)
        else:
            made.tell(trial, [value, 1000.0 * number][: len(directions)])
    return made


def test_each_is_a_picture_that_is_not_empty() -> None:
    with warnings.catch_warnings(action="error"):
        found = pictures(study(14, stopped=2), ["val_accuracy"])
    assert set(found) == ALL
    for content in found.values():
        image = np.asarray(Image.open(io.BytesIO(content)).convert("L"))
        assert image.min() < 50
        assert (image[0] == 255).all(), "nothing is cut off at an edge"
        assert (image[:, 0] == 255).all()


def test_several_objectives_have_a_front() -> None:
    with warnings.catch_warnings(action="error"):
        found = pictures(study(12, ("maximize", "minimize")), ["val_accuracy", "parameters"])
    assert set(found) == {*ALL, "front.png"}
    one = pictures(study(12), ["val_accuracy"])
    heights = {name: Image.open(io.BytesIO(files["history.png"])).height for name, files in (("2", found), ("1", one))}
    assert heights["2"] > 1.5 * heights["1"], "a panel for each"


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (study(0), set()),
        (study(1), set()),
        (study(5, stopped=5), set()),
        (study(2), {"history.png", "parallel_coordinates.png"}),
        (study(9), {"history.png", "parallel_coordinates.png"}),
        (study(12, constant=True), {"history.png", "parallel_coordinates.png"}),
    ],
    ids=["none", "one", "all stopped", "two", "few", "all the same"],
)
def test_what_shows_nothing_is_left_out(made: optuna.Study, expected: set[str]) -> None:
    with warnings.catch_warnings(action="error"):
        assert set(pictures(made, ["val_accuracy"])) == expected


def test_a_key_has_one_axis_and_a_logarithmic_one_if_it_is_searched_so() -> None:
    made = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    for number in range(8):
        trial = made.ask()
        optimizer = trial.suggest_categorical("optimizer", ["adam", "sgd"])
        low, high = (1e-4, 1e-2) if optimizer == "adam" else (1e-2, 1.0)
        trial.suggest_float(f"optimizer={optimizer}:optimizer.learning_rate", low, high, log=True)
        trial.suggest_float(SGD, 0, 0.95) if optimizer == "sgd" else None
        trial.suggest_categorical("model.layers", ["[dense,dense,dense,dense,dense]", "[]"])
        made.tell(trial, number / 10)
    figure = parallel_coordinates(made.get_trials(), [Target(0, "val_accuracy", lower=False)])
    assert figure
    texts = {text.get_text(): text.get_position()[1] for text in figure.axes[0].texts}
    names = [text.replace("\n", ".").strip(".") for text in texts if "\n" in text]
    assert names == ["optimizer", "optimizer.learning_rate", "optimizer.momentum", "model.layers", "val_accuracy"]
    assert [texts[label] for label in ("0.0001", "0.01", "1", "0.95")] == [0, 500, 1000, 1000]
    assert texts["unused"] < 0
    assert max(map(len, texts)) < 45

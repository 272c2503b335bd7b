"""Classify images with a recorded model: ``python -m experiments.predict run=latest``."""

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from experiments.cli.checks import check_command
from experiments.cli.command import command
from experiments.config import PredictConfig, Problem, Refused
from experiments.data import load
from experiments.data.checks import Images, Labels
from experiments.data.images import read_images, to_input
from experiments.engine import saved_models
from experiments.system.terminal import Console, say
from experiments.tracking.runs import RecordedRun, look_up


def predict(composed: DictConfig) -> None:
    """Print the guess for each image, its probability and the runner-up."""
    config = check_command(composed, PredictConfig)
    pictures = read_images(config.images)  # now: what is not there need not wait for the imports
    with tempfile.TemporaryDirectory() as downloads:
        run = look_up(config.run, config.tracking, trust=config.trust)
        saved = run.saved_model(Path(downloads))
        test = None if config.images else _test_images(config.test, run)
        model = saved_models.load(saved, config.trust)
    if test is None:
        x, truth = to_input(pictures, model.input_shape[1:], run.data, config.inverted), None
        names = config.images
    else:
        (x, truth), names = test, [str(number) for number in range(*_bounds(config.test))]
    guesses = _guesses(saved_models.classify(saved, model, x), names, truth)
    if config.format == "json":
        print(json.dumps({"run": run.run_id, "chosen": run.chosen, "predictions": guesses}))
        return
    console = Console()
    if config.run == "best":
        say(console, f"chosen {run.chosen}")
    say(console, *_table(run, guesses), whole=True)


def _bounds(span: str) -> tuple[int, int]:
    start, stop = span.split(":")
    return int(start), int(stop)


def _test_images(span: str, run: RecordedRun) -> tuple[Images, Labels]:
    test = load(run.data, seed=0, trust=run.trust).test
    start, stop = _bounds(span)
    if not start < stop <= len(test):
        what = f"got {span}, expected FROM:TO within the {len(test)} test images of {run.data.name}"
        raise Refused(Problem("test", what, "test=0:10"))
    return test.x[start:stop], test.y[start:stop]


def _guesses(predicted: Any, names: list[str], truth: Labels | None) -> list[dict[str, Any]]:
    guesses = []
    for number, (name, row) in enumerate(zip(names, predicted, strict=True)):
        first, second = np.argsort(-row, kind="stable")[:2]  # of equal ones the first, as when it was measured
        guess = {
            "image": name,
            "guess": int(first),
            "probability": float(row[first]),
            "runner_up": int(second),
            "runner_up_probability": float(row[second]),
        }
        guesses.append(guess if truth is None else guess | {"truth": int(truth[number])})
    return guesses


def _table(run: RecordedRun, guesses: list[dict[str, Any]]) -> list[str]:
    width = max(len("image"), *(len(guess["image"]) for guess in guesses))
    lines = [f"run {run.run_id}  {run.name}", f"{'image':>{width}}  guess  probability  runner-up"]
    for guess in guesses:
        runner_up = f"{guess['runner_up']} ({guess['runner_up_probability']:.5f})"
        wrong = f"  is {guess['truth']}" if guess.get("truth", guess["guess"]) != guess["guess"] else ""
        lines.append(f"{guess['image']:>{width}}  {guess['guess']:5}  {guess['probability']:11.5f}  {runner_up}{wrong}")
    return lines


main = command("predict")(predict)

if __name__ == "__main__":
    main()

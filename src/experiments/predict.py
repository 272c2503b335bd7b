"""Classify images with a recorded model: ``python -m experiments.predict run=latest``."""

import json
import tempfile
from pathlib import Path

from experiments.cli.command import command
from experiments.config import PredictConfig, Problem, Refused
from experiments.data import load
from experiments.data.checks import Images, Targets
from experiments.data.images import read_images, to_input
from experiments.engine import saved_models
from experiments.system.terminal import Console, say
from experiments.task import of
from experiments.tracking.recorded_run import RecordedRun
from experiments.tracking.runs import look_up


def predict(config: PredictConfig) -> None:
    """Print what the model makes of each image: the guess, its probability and the runner-up; or the number."""
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
    task = of(run.task)
    guesses = task.guesses(saved_models.predict(saved, model, x, task, "images" if test is None else "test"), names)
    if truth is not None:
        guesses = [guess | {"truth": known.item()} for guess, known in zip(guesses, truth, strict=True)]
    if config.format == "json":
        print(json.dumps({"run": run.run_id, "chosen": run.chosen, "predictions": guesses}))
        return
    console = Console()
    if config.run == "best":
        say(console, f"chosen {run.chosen}")
    say(console, f"run {run.run_id}  {run.name}", *task.table(guesses), whole=True)


def _bounds(span: str) -> tuple[int, int]:
    start, stop = span.split(":")
    return int(start), int(stop)


def _test_images(span: str, run: RecordedRun) -> tuple[Images, Targets]:
    test = load(run.data, seed=0, trust=run.trust, task=run.task).test
    start, stop = _bounds(span)
    if not start < stop <= len(test):
        what = f"got {span}, expected FROM:TO within the {len(test)} test images of {run.data.name}"
        raise Refused(Problem("test", what, "test=0:10"))
    return test.x[start:stop], test.y[start:stop]


main = command("predict", PredictConfig)(predict)

if __name__ == "__main__":
    main()

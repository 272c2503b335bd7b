"""The main job on the real MNIST, as the README promises it."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.conftest import MNIST

RunCli = Callable[..., Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reference")


@pytest.fixture
def reference(folder: Path, run_cli: RunCli) -> str:
    """The output of the default run, which is made once."""
    kept = folder / "output"
    if not kept.exists():
        done = run_cli(cwd=folder, EXPERIMENTS_DATA_DIR=str(MNIST.parent))
        assert (done.returncode, done.stderr) == (0, "")
        kept.write_text(done.stdout)
    return kept.read_text()


@pytest.mark.mnist
def test_the_reference_network_reaches_98_percent(reference: str) -> None:
    assert [line.split()[1] for line in reference.splitlines()[1:6]] == ["1/5", "2/5", "3/5", "4/5", "5/5"]
    assert reference.startswith("mnist: 60,000 + 10,000 images 28x28, 10 classes, values 0 to 1\n")
    accuracy = float(re.search(r"test_accuracy (\S+)", reference)[1])  # type: ignore[index]
    assert 0.975 < accuracy < 0.987
    assert "\x1b" not in reference  # a pipe gets plain lines


@pytest.mark.mnist
def test_the_first_test_digit_is_a_seven(reference: str, folder: Path, fork_cli: RunCli) -> None:
    done = fork_cli("format=json", module="predict", cwd=folder, EXPERIMENTS_DATA_DIR=str(MNIST.parent))
    guesses = json.loads(done.stdout)["predictions"]
    assert len(guesses) == 10
    assert (guesses[0]["guess"], guesses[0]["truth"]) == (7, 7)
    assert guesses[0]["probability"] > 0.99


@pytest.mark.mnist
def test_photographs_of_test_digits_are_read(reference: str, folder: Path, fork_cli: RunCli, tmp_path: Path) -> None:
    """Enlarged, on white paper and off centre: what a person's own image looks like."""
    with np.load(MNIST) as data:
        images, labels = data["x_test"][:20], data["y_test"][:20]
    files = []
    for number, pixels in enumerate(images):
        paper = Image.new("L", (400, 300), 255)
        paper.paste(Image.fromarray(255 - pixels).resize((196, 196), Image.Resampling.BICUBIC), (10 * number, 60))
        paper.save(tmp_path / f"{number}.png")
        files.append(str(tmp_path / f"{number}.png"))
    done = fork_cli(f"images=[{','.join(files)}]", "format=json", module="predict", cwd=folder)
    guesses = [guess["guess"] for guess in json.loads(done.stdout)["predictions"]]
    assert (np.array(guesses) == labels).mean() >= 0.9

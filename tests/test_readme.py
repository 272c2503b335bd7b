"""Every command that the README tells people to run, run."""

import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
COMMANDS = re.findall(r"^python -m experiments\.(\w+) ?(.*)$", README, flags=re.MULTILINE)
TARGETS = set(re.findall(r"^    make (\w+)", README, flags=re.MULTILINE))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the README's commands are run, in their order; `mine.npz` and a small MNIST lie there."""
    place = tmp_path_factory.mktemp("readme")
    random = np.random.default_rng(0)
    labels = np.arange(600) % 10
    images = random.integers(0, 256, (600, 28, 28), dtype=np.uint8)
    arrays = {"x_train": images[:500], "y_train": labels[:500], "x_test": images[500:], "y_test": labels[500:]}
    np.savez(place / "mine.npz", **arrays)
    return place


def test_there_are_commands() -> None:
    assert {name for name, _ in COMMANDS} == {"run", "compare", "reproduce", "promote", "predict"}
    assert len(COMMANDS) >= 15


@pytest.mark.parametrize(("name", "line"), COMMANDS, ids=[f"{name} {line}" for name, line in COMMANDS])
def test_command(folder: Path, run_cli: Callable[..., Any], name: str, line: str) -> None:
    """As it stands, but on few images of the digits that need no download, for one epoch, and with fewer runs."""
    arguments = shlex.split(line)
    chosen = {argument.partition("=")[0] for argument in arguments}
    if name == "run" and "--help" not in chosen:
        if not chosen & {"data", "experiment"}:
            arguments += ["data=digits"] if "model=lenet5" not in arguments else ["data=npz", "data.path=mine.npz"]
        arguments = [item for item in arguments if not item.startswith(("epochs", "data.validation_size=1000"))]
        arguments += ["epochs=1", *(["data.validation_size=100"] if "data.validation_size=10000" in line else [])]
        arguments = [item.replace("rmsprop,adam,sgd", "rmsprop,sgd") for item in arguments]
    if "test=100:120" in arguments:
        arguments[arguments.index("test=100:120")] = "test=10:30"
    done = run_cli(*arguments, module=name, cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def test_make_targets_exist() -> None:
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {"run", "ui", "test", "check", "help"} <= TARGETS
    assert all(re.search(rf"^  make {target} ", listed, flags=re.MULTILINE) for target in TARGETS)


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if "://" not in target:
            assert (ROOT / target).exists(), target

"""Choices of all groups together: the rows have every pair, and what 20 of them record is right."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
sys.path.insert(0, str(SCRIPTS))

from matrices.choices import AXES, CONF, fits, pairs, pairs_of, rows  # noqa: E402


def test_every_choice_of_every_group_is_an_axis() -> None:
    for group, axis in {
        "optimizer": "optimizer",
        "optimizer/schedule": "schedule",
        "loss": "loss",
        "model": "model",
        "callbacks": "callbacks",
    }.items():
        words = [override for choice in AXES[axis] for override in choice.overrides]
        for file in (CONF / group).glob("*.yaml"):
            default = group == "model" and file.stem == "mlp"
            assert default or f"{group}={file.stem}" in words, file


@pytest.mark.parametrize("seed", [0, 1])
def test_the_rows_have_every_pair(seed: int) -> None:
    found = rows(seed)
    assert set().union(*(pairs_of(row._asdict()) for row in found)) >= pairs().keys()
    assert all(fits(row._asdict()) for row in found)
    assert found == rows(seed)


def test_rows_are_recorded_as_keras_and_scikit_learn_measure_them() -> None:
    command = [sys.executable, str(SCRIPTS / "matrix.py"), "10", "--count", "6", "--jobs", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

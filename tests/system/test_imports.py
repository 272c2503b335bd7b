"""Keras is imported without its optional imports; a Keras that needs them, or no longer looks for them, is noticed."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from experiments.system.imports import OPTIONAL_IMPORTS
from tests.prepared import environment

# Keras looks for these in its adapters of data and in its wrappers; each has to be an import that may fail.
CODE = """
import sys
from experiments.system.imports import import_keras

import_keras()
assert not set(names) & set(sys.modules), "they were imported all the same"
import keras
import numpy

model = keras.Sequential([keras.layers.Dense(1)])
model.compile("sgd", "mse")
model.fit(numpy.zeros((4, 2), "float32"), numpy.zeros((4, 1), "float32"), verbose=0)
for name in names:
    __import__(name)  # they are only hidden while Keras is imported
"""


def test_keras_works_without_its_optional_imports() -> None:
    code = f"names = {OPTIONAL_IMPORTS!r}\n{CODE}"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", OPTIONAL_IMPORTS)
def test_keras_still_looks_for_them(name: str) -> None:
    """Otherwise they need not be hidden any more."""
    spec = find_spec("keras")
    assert spec
    assert spec.submodule_search_locations
    files = Path(spec.submodule_search_locations[0]).rglob("*.py")
    assert any(f"import {name}" in text or f"from {name}" in text for text in (file.read_text() for file in files))

# ruff: noqa: I001 (tests.composed comes first: it starts Keras)
import importlib
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from experiments.config import Refused
from experiments.config.keras_names import NEVER
from tests.composed import keras
from experiments.engine.vocabulary import KINDS, classes, create, create_named, find

OWN = """
import keras
class Twice(keras.layers.Layer):
    def call(self, x): return 2 * x
class Broken(keras.layers.Layer):
    def __init__(self): raise RuntimeError("of its own")
class Slow(keras.optimizers.SGD): pass
class Square(keras.losses.Loss):
    def call(self, y, p): return keras.ops.mean((keras.ops.one_hot(y, 10) - p) ** 2, axis=-1)
class Half(keras.metrics.Mean):
    def update_state(self, y, p, sample_weight=None): super().update_state(0.5)
class Note(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None): logs["note"] = 7.0
class Strict(keras.regularizers.L2): pass
def function(): raise AssertionError("was run")
class Stranger:
    def __init__(self, **arguments): raise AssertionError("was built")
"""


@pytest.fixture
def own_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "ownpackage.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "ownpackage", raising=False)
    return "ownpackage"


def refusal(kind: str, name: str, arguments: dict[str, Any] | None = None, *trust: str) -> str:
    with pytest.raises(Refused) as caught:
        create(kind, name, arguments or {}, "here", trust)
    assert len(caught.value.problems) == 1
    return str(caught.value)


@pytest.mark.parametrize("name", ["early_stopping", "EarlyStopping", "earlystopping"])
def test_names_may_be_spelled_either_way(name: str) -> None:
    assert find("callback", name, "here", []) is keras.callbacks.EarlyStopping


@pytest.mark.parametrize(
    ("kind", "name", "meant"),
    [("layer", "Dens", "Dense"), ("optimizer", "adm", "Adam"), ("metric", "acuracy", "Accuracy")],
)
def test_a_near_miss_is_corrected(kind: str, name: str, meant: str) -> None:
    assert refusal(kind, name) == f"error: here: Keras has no {kind} {name!r}; did you mean '{meant}'?"


def test_all_unknown_arguments_are_named() -> None:
    with pytest.raises(Refused) as caught:
        create("optimizer", "adam", {"beta1": 0.9, "nesterov": True, "learning_rate": 0.1}, "optimizer", [])
    assert [problem.where for problem in caught.value.problems] == ["optimizer.beta1", "optimizer.nesterov"]
    assert "did you mean 'beta_1'?" in caught.value.problems[0].what


@pytest.mark.parametrize(
    ("kind", "name", "arguments", "expected"),
    [
        ("layer", "Dense", {}, "missing 1 required positional argument: 'units'"),
        ("layer", "Dense", {"units": -3}, "expected a positive integer. Received: units=-3"),
        ("layer", "Dense", {"units": 3, "activation": "reluu"}, "activation function identifier: reluu"),
        ("layer", "Conv2D", {"filters": 3, "kernel_size": "a"}, "must be a tuple of 2 integers"),
        ("callback", "early_stopping", {"mode": "best"}, "mode 'best' is unknown"),
        ("callback", "early_stopping", {"baselin": 1}, "here.baselin: EarlyStopping has no such argument"),
        ("loss", "dice", {"from_logits": True}, "here.from_logits: Dice has no such argument"),
    ],
)
def test_what_keras_does_not_take_is_refused_in_one_paragraph(
    kind: str, name: str, arguments: dict[str, Any], expected: str
) -> None:
    message = refusal(kind, name, arguments)
    assert expected in message
    assert "\n" not in message
    assert len(message) < 400


def test_arguments_may_be_objects() -> None:
    dense = create_named("layer", {"Dense": {"units": 2, "kernel_regularizer": {"L2": {"l2": 0.5}}}}, "here", [])
    assert dense.kernel_regularizer.l2 == pytest.approx(0.5)
    wrapped = create_named("layer", {"TimeDistributed": {"layer": {"Dense": {"units": 2}}}}, "here", [])
    assert wrapped.layer.units == 2


@pytest.mark.parametrize("value", [{}, {"L2": 5}, {"L2": {}, "L1": {}}, {"class_name": "L2", "config": {}}])
def test_other_mappings_are_refused(value: dict[str, Any]) -> None:
    assert "expected a Keras object as {Name: {argument: value}}" in refusal(
        "layer", "Dense", {"units": 2, "kernel_regularizer": value}
    )


@pytest.mark.parametrize("name", sorted(NEVER))
def test_classes_that_run_code_or_send_what_they_see_are_never_built(name: str) -> None:
    why = "sends what it sees elsewhere" if name == "RemoteMonitor" else "runs code that a config brings along"
    for kind in KINDS:
        assert name not in classes(kind)
        assert f"{name} {why}" in refusal(kind, name)
    assert why in refusal("layer", "Dense", {"units": 2, "activation": {name: {}}})


HOSTILE = [
    "os.system",
    "os>system",
    "builtins.eval",
    "keras.layers.Lambda",
    "__import__('os').system('false')",
    {"class_name": "system", "module": "os", "config": {}, "registered_name": None},
    {"class_name": "Lambda", "config": {"function": "ZXZpbA=="}},
    {"class_name": {"L2": {}}},
    {"module": {}},
    {"_target_": "os.system"},
    {"_target_": {}},
    {"os.system": {"command": "false"}},
    {"subprocess.Popen": {"args": "false"}},
    {"Lambda": {"function": "os.system"}},
]


@pytest.mark.parametrize("value", HOSTILE, ids=str)
@pytest.mark.parametrize(
    "argument", ["activation", "kernel_initializer", "kernel_regularizer", "bias_constraint", "dtype"]
)
def test_no_argument_imports_or_runs_anything(monkeypatch: pytest.MonkeyPatch, argument: str, value: Any) -> None:
    def refuse(name: str, package: str | None = None) -> None:
        raise AssertionError(f"imported {name}")

    monkeypatch.setattr(importlib, "import_module", refuse)
    assert refusal("layer", "Dense", {"units": 2, argument: value}).startswith("error: here")


def test_classes_of_other_packages_need_trust(own_package: str) -> None:
    message = refusal("layer", f"{own_package}.Twice")
    assert f"try  trust=[{own_package}]" in message
    assert own_package not in sys.modules
    assert create("layer", f"{own_package}.Twice", {}, "here", [own_package]).call(3) == 6
    assert "is not one of Keras's own" in refusal("layer", f"{own_package}2.Twice", {}, own_package)


@pytest.mark.parametrize(
    ("kind", "name"),
    [("optimizer", "Slow"), ("loss", "Square"), ("metric", "Half"), ("callback", "Note"), ("regularizer", "Strict")],
)
def test_a_trusted_package_may_bring_every_kind(own_package: str, kind: str, name: str) -> None:
    assert type(create(kind, f"{own_package}.{name}", {}, "here", [own_package])).__name__ == name


def test_arguments_may_be_trusted_objects(own_package: str) -> None:
    arguments = {"units": 2, "kernel_regularizer": {f"{own_package}.Strict": {"l2": 0.5}}}
    assert type(create("layer", "Dense", arguments, "here", [own_package]).kernel_regularizer).__name__ == "Strict"
    assert "trust=[ownpackage]" in refusal("layer", "Dense", arguments)


@pytest.mark.parametrize("name", ["function", "Stranger", "Slow"])
def test_trusted_or_not_only_the_right_kind_is_built(own_package: str, name: str) -> None:
    assert "is not a subclass of keras's Layer" in refusal("layer", f"{own_package}.{name}", {}, own_package)


def test_trusted_names_that_do_not_exist_are_refused(own_package: str) -> None:
    assert "cannot import ownpackage.Nothing" in refusal("layer", "ownpackage.Nothing", {}, own_package)
    assert "cannot import nowhere.Nothing" in refusal("layer", "nowhere.Nothing", {}, "nowhere")


def test_errors_of_the_users_own_code_keep_their_traceback(own_package: str) -> None:
    with pytest.raises(RuntimeError, match=re.escape("of its own")):
        create("layer", f"{own_package}.Broken", {}, "here", [own_package])

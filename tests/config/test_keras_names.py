# ruff: noqa: I001 (tests.composed comes first: it starts Keras)
"""Names read from Keras's files, held against Keras itself; and how a config with a wrong one is refused."""

import inspect
from typing import Any

import pytest

from experiments.config import keras_names
from experiments.config import Config
from experiments.config.checks import find_problems
from tests.composed import keras
from experiments.engine.vocabulary import KINDS, classes, find
from tests.config.test_checks import changed, plain, problems_of


@pytest.mark.parametrize("kind", KINDS)
def test_the_names_are_those_of_keras(kind: str) -> None:
    assert keras_names.classes(kind) == classes(kind).keys()
    assert len(classes(kind)) > 5
    for name in classes(kind):
        assert find(kind, name, "", []) is classes(kind)[name]


@pytest.mark.parametrize("argument", keras_names.TEXT_ARGUMENTS)
def test_the_texts_are_those_that_keras_takes(argument: str) -> None:
    module = getattr(keras, keras_names.TEXT_ARGUMENTS[argument])

    def takes(text: str) -> bool:
        try:
            return callable(module.get(text))
        except Exception:  # what is not known, and what needs arguments
            return False

    known = keras_names.texts(f"kernel_{argument}") or set()
    candidates = {name for name, value in vars(module).items() if not inspect.ismodule(value)}
    candidates |= set().union(*keras_names.ALIASES.values()) | {name.lower() for name in candidates}
    candidates -= {argument}  # the base class
    assert {text for text in candidates if takes(text)} <= known
    assert {text for text in known if not takes(text)} <= {"Constant", "constant", "l1_l2"}


def test_arguments_of_layers_that_take_such_texts() -> None:
    """Every layer's argument of such a name takes what Keras's `get` does, or nothing."""
    names = {
        parameter
        for layer in classes("layer").values()
        for parameter in inspect.signature(layer.__init__).parameters
        if keras_names.texts(parameter) is not None
    }
    assert {"activation", "recurrent_activation", "kernel_initializer", "bias_constraint"} <= names
    for name in names:
        with pytest.raises(ValueError, match="nonsense"):
            getattr(keras, keras_names.TEXT_ARGUMENTS[name.rpartition("_")[2]]).get("nonsense")


SEQUENTIAL = "model=sequential"
WRONG: list[tuple[tuple[str, ...], str, str, str]] = [
    (("optimizer.name=adma",), "optimizer.name", "optimizer 'adma'; did you mean 'Adam'?", "optimizer.name=Adam"),
    (
        ("optimizer/schedule=cosine", "optimizer.schedule.name=cosine_decy"),
        "optimizer.schedule.name",
        "schedule 'cosine_decy'; did you mean 'CosineDecay'?",
        "optimizer.schedule.name=CosineDecay",
    ),
    (("loss=huber", "loss.name=hubr"), "loss.name", "loss 'hubr'; did you mean 'Huber'?", "loss.name=Huber"),
    (("metrics=[acuracy]",), "metrics[0]", "metric 'acuracy'; did you mean 'accuracy'?", "metrics=[accuracy]"),
    (("metrics=[accuracy,acuracy]",), "metrics[1]", "metric 'acuracy'; did you mean 'accuracy'?", "metrics=[accuracy]"),
    (("metrics=[auc,{au:{}}]",), "metrics[1]", "metric 'au'; did you mean 'AUC'?", "metrics=[auc]"),
    (
        ("metrics=[accuracy,{f1_scor:{average:micro}}]",),
        "metrics[1]",
        "metric 'f1_scor'; did you mean 'F1Score'?",
        "'metrics=[accuracy,{F1Score:{average:micro}}]'",
    ),
    (
        ("callbacks=terminate_on_nan", "callbacks.terminate_on_nan.name=TerminateOnNan_"),
        "callbacks.terminate_on_nan.name",
        "",
        "",
    ),
    (
        ("callbacks=terminate_on_nan", "callbacks.terminate_on_nan.name=terminate_on_nann"),
        "callbacks.terminate_on_nan.name",
        "callback 'terminate_on_nann'; did you mean 'TerminateOnNaN'?",
        "callbacks.terminate_on_nan.name=TerminateOnNaN",
    ),
    (
        ("model.activation=rleu",),
        "model.activation",
        "activation 'rleu'; did you mean 'relu'?",
        "model.activation=relu",
    ),
    (
        ("loss.output_activation=sofmax",),
        "loss.output_activation",
        "activation 'sofmax'; did you mean 'softmax'?",
        "loss.output_activation=softmax",
    ),
    (
        ("model.output_activation=sofmax",),
        "model.output_activation",
        "activation 'sofmax'; did you mean 'softmax'?",
        "model.output_activation=softmax",
    ),
    (
        ("model.regularizer=l22",),
        "model.regularizer",
        "regularizer 'l22'; did you mean 'l2'?",
        "model.regularizer=l2",
    ),
    (
        ("model.regularizer={L22:{l2:0.1}}",),
        "model.regularizer",
        "regularizer 'L22'; did you mean 'l2'?",
        "'model.regularizer={l2:{l2:0.1}}'",
    ),
    (
        (SEQUENTIAL, "model.layers=[Flaten,{Dense:{units:classes,activation:softmax}}]"),
        "model.layers[0]",
        "layer 'Flaten'; did you mean 'Flatten'?",
        "'model.layers=[Flatten,{Dense:{units:classes,activation:softmax}}]'",
    ),
    (
        (SEQUENTIAL, "model.layers=[Flatten,{Dense:{units:classes,activation:sofmax}}]"),
        "model.layers[1].activation",
        "activation 'sofmax'; did you mean 'softmax'?",
        "'model.layers=[Flatten,{Dense:{units:classes,activation:softmax}}]'",
    ),
    (
        (SEQUENTIAL, "model.layers=[Flatten,{Dense:{units:classes,kernel_initializer:he_norml,activation:softmax}}]"),
        "model.layers[1].kernel_initializer",
        "initializer 'he_norml'; did you mean 'he_normal'?",
        "'model.layers=[Flatten,{Dense:{units:classes,kernel_initializer:he_normal,activation:softmax}}]'",
    ),
    (
        (
            SEQUENTIAL,
            "model.layers=[Flatten,{Dense:{units:classes,kernel_regularizer:{L7:{l2:1.0}},activation:softmax}}]",
        ),
        "model.layers[1].kernel_regularizer",
        "object 'L7'; known: ",
        "",
    ),
    (
        (SEQUENTIAL, "model.layers=[{Lambda:{function:x}},Flatten,{Dense:{units:classes,activation:softmax}}]"),
        "model.layers[0]",
        "Lambda runs code that a config brings along",
        "",
    ),
    (
        ("metrics=[colab.Mine]", "trust=[other]"),
        "metrics[0]",
        "colab.Mine is not one of Keras's own; if you trust the code of colab, say so",
        "trust=[other,colab]",
    ),
    (
        ("metrics=[keras.metrics.AUC]",),
        "metrics[0]",
        "got keras.metrics.AUC; Keras's own classes are named without the package: AUC",
        "",
    ),
]


@pytest.mark.parametrize(("overrides", "where", "what", "remedy"), WRONG)
def test_a_name_that_keras_does_not_have_is_refused(
    overrides: tuple[str, ...], where: str, what: str, remedy: str
) -> None:
    found = problems_of(*overrides)
    if not what:  # spelled in another way, but meant
        assert found == []
        return
    [problem] = found
    assert (problem.where, problem.remedy) == (where, remedy)
    assert what in problem.what
    if remedy:
        replaced = [item for item in overrides if item.partition("=")[0] != remedy.strip("'").partition("=")[0]]
        assert where not in [item.where for item in problems_of(*replaced, remedy.strip("'"))], "the remedy works"


def test_all_wrong_names_are_found_at_once_beside_other_problems() -> None:
    layers = (
        "model.layers=[Flaten,{TimeDistributed:{layer:{Dens:{units:2}}}},{Dense:{units:classes,activation:sofmax}}]"
    )
    found = problems_of("epochs=0", SEQUENTIAL, layers, "metrics=[acuracy,{au:{}}]", "optimizer.name=adma")
    assert {problem.where for problem in found} == {
        "epochs",
        "model.layers[0]",
        "model.layers[1].layer",
        "model.layers[2].activation",
        "metrics[0]",
        "metrics[1]",
        "optimizer.name",
    }


def test_nothing_follows_from_a_wrong_name_but_other_disagreements_are_told() -> None:
    found = problems_of(
        "metrics=[acuracy]", "objective=val_accuracy", "optimizer/schedule=cosine", "resume=true", "tracking=off"
    )
    assert [problem.where for problem in found] == ["metrics[0]", "resume"]


@pytest.mark.parametrize(
    "value", [3, None, [], {}, ["Dense", 3], {"Dense": 3}, {3: {}}, {"Dense": {"units": {"a": 1}}}]
)
def test_wrong_types_are_problems_beside_names(value: Any) -> None:
    """No value makes the search for names fail, whatever it is."""
    sequential = {"name": "sequential", "layers": value}
    for key, wrong in [("model", sequential), *((key, value) for key in ("metrics", "callbacks", "loss", "trust"))]:
        for problem in find_problems(changed(key, wrong), Config, plain()):
            assert problem.where.startswith(key)
            assert problem.what

"""The space of a search: read, drawn from, and checked at its corners."""

import math
from typing import Any

import optuna
import pytest
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from experiments.config import Refused
from experiments.sweeps.search.parsing import parse
from experiments.sweeps.search.space import Dimension, Space

pytestmark = pytest.mark.usefixtures("hydra_here")
optuna.logging.set_verbosity(optuna.logging.ERROR)
BRANCHES = {
    "optimizer": {
        "adam": {"optimizer.learning_rate": "tag(log,interval(1e-4,1e-2))"},
        "sgd": {"optimizer.learning_rate": "tag(log,interval(1e-3,1))", "optimizer.momentum": "interval(0,0.9)"},
        "rmsprop": None,
    },
    "batch_size": "choice(32,64)",
    "epochs": "3",
}


def loader() -> ConfigLoader:
    return GlobalHydra.instance().config_loader()


def space(*overrides: str, **params: Any) -> Space:
    return parse(overrides, params, loader())


@pytest.mark.parametrize(
    ("text", "distribution"),
    [
        ("choice(adam,sgd)", CategoricalDistribution(["adam", "sgd"])),
        ("adam,sgd,adam", CategoricalDistribution(["adam", "sgd"])),
        ("choice([512],[256,128])", CategoricalDistribution(["[512]", "[256,128]"])),
        ("interval(0,0.5)", FloatDistribution(0, 0.5)),
        ("interval(1,5)", FloatDistribution(1, 5)),
        ("int(interval(1,5))", IntDistribution(1, 5)),
        ("tag(log,interval(1e-4,1e-1))", FloatDistribution(1e-4, 1e-1, log=True)),
        ("tag(log,int(interval(1,100)))", IntDistribution(1, 100, log=True)),
        ("tag(log,range(1,100))", IntDistribution(1, 99, log=True)),
        ("range(1,10)", IntDistribution(1, 9)),
        ("range(10,1,-2)", IntDistribution(2, 10, step=2)),
        ("range(4)", IntDistribution(0, 3)),
        ("range(0,1,0.25)", FloatDistribution(0, 0.75, step=0.25)),
        ("range(0,0.6,0.15)", FloatDistribution(0, 0.45, step=0.15)),
        ("range(0.5,0,-0.2)", FloatDistribution(0.1, 0.5, step=0.2)),
    ],
)
def test_values_of_hydra_become_distributions_of_optuna(text: str, distribution: Any) -> None:
    [dimension] = space(f"batch_size={text}").dimensions
    assert (dimension.key, dimension.name, dimension.distribution) == ("batch_size", "batch_size", distribution)


def test_a_group_of_files_can_be_searched_by_pattern() -> None:
    [dimension] = space("optimizer=glob(ada*)").dimensions
    assert {"adam", "adamw"} <= set(dimension.ends)
    assert all(name.startswith("ada") for name in dimension.ends)


@pytest.mark.parametrize(
    ("overrides", "params", "where", "what"),
    [
        (["seed=0,1"], {}, "seed", "a seed is no hyperparameter"),
        (["epochs=3"], {}, "hydra.sweeper.params", "there is no key to search"),
        (["batch_size=shuffle(1,2)"], {}, "batch_size", "a search has an order of its own"),
        (["batch_size=tag(fast,choice(1,2))"], {}, "batch_size", "got the tag fast"),
        (["batch_size=tag(log,choice(1,2))"], {}, "batch_size", "log is for numbers between two ends"),
        (["batch_size=interval(5,1)"], {}, "batch_size", "ends before it starts"),
        (["batch_size=tag(log,interval(0,1))"], {}, "batch_size", "starts above 0"),
        (["batch_size=tag(log,range(1,9,2))"], {}, "batch_size", "no step other than 1"),
        (["batch_size=range(5,1)"], {}, "batch_size", "gives no value"),
        (["tracking.experiment=a,b"], {}, "tracking.experiment", "one place for a search"),
        ([], {"batch_size": "16,32", "++batch_size": "64,128"}, "batch_size", "is searched twice at once"),
        ([], {"optimizer": {"sgd": {"optimizer": "adam,sgd"}}}, "optimizer", "is searched twice at once"),
        ([], {"optimizer": {"sgd": {"seed": "0,1"}}}, "seed", "a seed is no hyperparameter"),
        ([], {"optimizer": {"sgd": {"epochs": "range(3,1)"}}}, "hydra.sweeper.params.optimizer.sgd.epochs", "no value"),
        ([], {"epochs": "choice("}, "hydra.sweeper.params.epochs", "cannot be read"),
        ([], {"epochs": {"low": 1, "high": 5}}, "hydra.sweeper.params.epochs", "expected choices, each with the keys"),
        ([], {"optimizer": {"adam": ["epochs"]}}, "hydra.sweeper.params.optimizer", "expected choices, each with the"),
        ([], {"optimizer": {}}, "hydra.sweeper.params.optimizer", "expected choices, each with the keys"),
        ([], {"optimizer": ["adam", "sgd"]}, "hydra.sweeper.params.optimizer", "the choices as text: adam,sgd"),
    ],
)
def test_what_cannot_be_searched(overrides: list[str], params: dict[str, Any], where: str, what: str) -> None:
    with pytest.raises(Refused) as refused:
        space(*overrides, **params)
    [problem] = refused.value.problems
    assert problem.where == where
    assert what in problem.what


def test_keys_depend_on_a_choice() -> None:
    found = space("data=digits", **BRANCHES)
    names = [dimension.name for dimension in found.all()]
    assert names == [
        "optimizer",
        "optimizer=adam:optimizer.learning_rate",
        "optimizer=sgd:optimizer.learning_rate",
        "optimizer=sgd:optimizer.momentum",
        "batch_size",
    ]
    assert found.fixed == ["epochs=3", "data=digits"]
    assert found.size is None
    chosen = {"optimizer": "sgd", names[2]: 0.5, names[3]: 0.25, "batch_size": "64"}
    sgd = ["optimizer=sgd", "optimizer.learning_rate=0.5", "optimizer.momentum=0.25", "batch_size=64"]
    assert found.of(chosen) == [*found.fixed, *sgd]


def test_each_key_is_at_each_end_one_at_a_time() -> None:
    corners = [" ".join(corner[2:]) for corner in space("data=digits", **BRANCHES).corners()]
    assert corners == [
        "optimizer=adam optimizer.learning_rate=0.0001 batch_size=32",
        "optimizer=adam optimizer.learning_rate=0.01 batch_size=32",
        "optimizer=sgd optimizer.learning_rate=0.001 optimizer.momentum=0.0 batch_size=32",
        "optimizer=sgd optimizer.learning_rate=1.0 optimizer.momentum=0.0 batch_size=32",
        "optimizer=sgd optimizer.learning_rate=0.001 optimizer.momentum=0.9 batch_size=32",
        "optimizer=rmsprop batch_size=32",
        "optimizer=adam optimizer.learning_rate=0.0001 batch_size=64",
    ]


def test_the_command_line_replaces_what_a_file_says() -> None:
    only_sgd = space("optimizer=sgd", "optimizer.momentum=0.5", "batch_size=128", "epochs=1,2", **BRANCHES)
    assert [dimension.key for dimension in only_sgd.all()] == ["optimizer", "optimizer.learning_rate", "epochs"]
    assert only_sgd.dimensions[0].ends == ["sgd"]
    assert only_sgd.fixed == ["optimizer.momentum=0.5", "batch_size=128"]
    two = space("optimizer=adam,sgd", **BRANCHES)
    assert [dimension.key for dimension in two.all()].count("optimizer.learning_rate") == 2
    added = {"+loss.label_smoothing": "interval(0,1)", "batch_size": "1,2"}
    for typed in ("+loss.label_smoothing=0.5", "loss.label_smoothing=0.5", "++loss.label_smoothing=0.5"):
        fixed = space(typed, **added)
        assert ([dimension.key for dimension in fixed.all()], fixed.fixed) == (["batch_size"], [typed])
    [_, searched] = space("+loss.label_smoothing=0.1,0.2", **added).dimensions
    assert searched.ends == ["0.1", "0.2"]
    other = space("optimizer=adadelta", **BRANCHES)
    assert [dimension.key for dimension in other.all()] == ["batch_size"]
    assert "optimizer=adadelta" in other.fixed


@pytest.mark.parametrize(
    ("overrides", "params", "size"),
    [
        (["batch_size=1,2,3", "epochs=range(1,5)"], {}, 12),
        (["batch_size=1,2,3", "optimizer.learning_rate=range(0,1,0.25)"], {}, 12),
        ([], {"model": {"a": {"epochs": "1,2,3"}, "b": {"epochs": "1,2", "batch_size": "1,2"}, "c": None}}, 8),
        (["optimizer.learning_rate=interval(0,1)"], {}, None),
        (["optimizer.learning_rate=interval(0.1,0.1)"], {}, 1),
        (["model.dropout=range(0,0.5,1e-10)"], {}, 5_000_000_000),
    ],
)
def test_the_number_of_points(overrides: list[str], params: dict[str, Any], size: int | None) -> None:
    assert space(*overrides, **params).size == size


def test_values_of_a_range_are_as_a_person_writes_them() -> None:
    [dropout] = space("model.dropout=range(0,0.4,0.1)").dimensions
    assert dropout.values == [0.0, 0.1, 0.2, 0.3]
    assert all(map(dropout.has, dropout.values))


def test_a_fixed_value_of_a_branch_is_shown() -> None:
    branches = {"optimizer": {"adam": {"optimizer.beta_1": 0.8}, "sgd": None}}
    texts = {dimension.name: dimension.text for dimension in space(**branches).all()}
    assert texts == {"optimizer": "adam,sgd", "optimizer=adam:optimizer.beta_1": "0.8"}


finite = st.floats(allow_nan=False, allow_infinity=False, width=64, min_value=-1e30, max_value=1e30)


@given(low=finite, high=finite)
def test_numbers_are_the_same_as_overrides(low: float, high: float) -> None:
    low, high = sorted([low, high])
    space = Space([Dimension("x", "x", "", FloatDistribution(low, high))], [])
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    trial = study.ask()
    [drawn] = space.draw(trial)
    assert [drawn] == space.of(trial.params)
    for text in (drawn, *(corner[0] for corner in space.corners())):
        value = OverridesParser.create().parse_override(text).value()
        assert isinstance(value, float)
        assert low <= value <= high
    assert math.isclose(OverridesParser.create().parse_override(drawn).value(), trial.params["x"], rel_tol=0)

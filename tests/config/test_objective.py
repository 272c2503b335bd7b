"""What a run is ranked by, and which runs can be compared with it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.config import Refused
from experiments.config.objective import (
    Goal,
    Objective,
    broken,
    goals_of,
    objective_of,
    recorded_goals,
    recorded_objective,
    written,
)
from experiments.tracking.summary import status_of
from tests.composing import config

DIGEST = "1ea06ec674c4b7e5"


def objective(*overrides: str, digest: str = DIGEST) -> Objective:
    return objective_of(config("data=digits", "data.validation_size=0.2", *overrides), digest)


@pytest.mark.parametrize(
    ("overrides", "lower"),
    [
        ((), False),
        (("objective=val_loss",), True),
        (("metrics=[MeanSquaredError]",), True),
        (("metrics=[{mean_absolute_error: {name: mae}}]", "objective=val_mae"), True),
        (("metrics=[accuracy,FalseNegatives]", "objective=val_FalseNegatives"), True),
        (("metrics=[{AUC: {name: lossless}}]",), False),
        (("metrics=[accuracy,{mine.Word: {name: wer}}]", "trust=[mine]"), False),
        (("metrics=[mine.wer]", "objective_mode=min", "trust=[mine]"), True),
        (("objective_mode=min",), True),
    ],
)
def test_the_direction_follows_from_the_class(overrides: tuple[str, ...], lower: bool) -> None:
    assert objective(*overrides).lower_is_better == lower


@pytest.mark.parametrize("objective_key", [(), ("objective=val_wer",)])
def test_the_direction_of_a_metric_of_your_own_has_to_be_said(objective_key: tuple[str, ...]) -> None:
    own = ("data=digits", "data.validation_size=0.2", "metrics=[mine.wer]", "trust=[mine]", *objective_key)
    with pytest.raises(Refused) as refused:
        config(*own)
    [problem] = refused.value.problems
    assert problem.where == "objective_mode"
    assert "val_wer" in problem.what
    assert problem.what.endswith("objective_mode=min or objective_mode=max")
    assert config(*own, "objective_mode=min").lower_is_better


@pytest.mark.parametrize("given", ["mine", "val_mine", "val_Minne"])
@pytest.mark.parametrize("validates", [True, False])
def test_a_metric_of_your_own_is_offered_as_it_is_recorded(given: str, validates: bool) -> None:
    own = ["data=digits", "metrics=[accuracy,pack.Mine]", "trust=[pack]", *["data.validation_size=0.2"] * validates]
    with pytest.raises(Refused) as refused:
        config(*own, f"objective={given}")
    named, mode = refused.value.problems
    assert "did you mean 'val_Mine'?" in named.what
    assert named.remedy == ("" if validates else "data.validation_size=0.1 ") + "objective=val_Mine"
    assert (mode.where, "val_Mine is a metric of your own" in mode.what) == ("objective_mode", True)
    assert config(*own, *named.remedy.split(), "objective_mode=max").objective_metric == "val_Mine"


def test_a_callback_that_watches_a_metric_of_your_own_needs_its_direction() -> None:
    own = ("data=digits", "data.validation_size=0.2", "metrics=[accuracy,mine.wer]", "trust=[mine]")
    with pytest.raises(Refused) as refused:
        config(*own, "callbacks=early_stopping", "callbacks.early_stopping.monitor=val_wer")
    [problem] = refused.value.problems
    assert problem.where == "callbacks.early_stopping.mode"
    config(*own, "callbacks=early_stopping", "callbacks.early_stopping.monitor=val_wer", problem.remedy)


@pytest.mark.parametrize("name", ["Mean", "sum", "{MeanMetricWrapper: {fn: x}}"])
def test_what_measures_nothing_is_no_metric(name: str) -> None:
    with pytest.raises(Refused, match=r"metrics\[0\]"):
        config("data=digits", f"metrics=[{name}]")


SAME: Any = [
    ("seed=1",),
    ("optimizer=adam",),
    ("model.layer_sizes=[8]",),
    ("metrics=[accuracy,auc]",),
    ("loss=categorical_crossentropy",),
    ("objective=val_accuracy",),
    ("objective_mode=max",),
    ("data.path=elsewhere.npz",),
]
OTHER: Any = [
    ("data.limit=60",),
    ("data.validation_size=2",),
    ("objective=val_loss",),
    ("objective_mode=min",),
    ("objective=test_accuracy",),
    ("metrics=[accuracy,{AUC: {curve: PR, name: auc}}]", "objective=val_auc"),
    ("metrics=[accuracy,{AUC: {curve: ROC, name: auc}}]", "objective=val_auc"),
    ("objective=val_loss", "loss=categorical_crossentropy"),
    ("objective=val_loss", "loss=categorical_crossentropy", "loss.label_smoothing=0.1"),
]


def test_runs_are_comparable_if_metric_and_data_are_the_same() -> None:
    default = objective()
    assert default.measured_as == "val_accuracy, higher is better, on digits 1ea06ec674c4 validation_size=0.2"
    assert {objective(*overrides) for overrides in SAME} == {default}
    others = [objective(*overrides) for overrides in OTHER]
    assert len({default, objective(digest="other"), *others}) == len(OTHER) + 2


@pytest.mark.parametrize("overrides", [*SAME, *OTHER])
def test_runs_of_before_are_comparable_by_their_parameters(overrides: tuple[str, ...]) -> None:
    """They recorded the objective, the digest and their parameters."""
    checked = config("data=digits", "data.validation_size=0.2", *overrides)
    if checked.objective_mode != "auto":
        pytest.skip("there was no such key")
    plain = {"loss": checked.loss.model_dump(exclude_unset=True), "data": checked.data.model_dump()}
    parameters = {
        f"{section}.{key}": value if isinstance(value, str) else json.dumps(value)
        for section, values in plain.items()
        for key, value in values.items()
    }
    parameters["metrics"] = json.dumps(checked.metrics)
    tags = {"objective": checked.objective_metric, "dataset": "digits", "dataset.digest": DIGEST}
    assert recorded_objective(tags, parameters) == objective_of(checked, DIGEST)
    assert recorded_objective({**tags, "measured_as": "x", "objective.mode": "max"}, {}) == Objective(
        checked.objective_metric, False, "x"
    )


@given(st.dictionaries(st.text(), st.text()), st.dictionaries(st.text(), st.text()), st.text())
def test_whatever_a_record_says_is_an_objective_or_none(
    tags: dict[str, str], parameters: dict[str, str], metrics: str
) -> None:
    found = recorded_objective({**tags, "objective": "val_accuracy"}, {**parameters, "metrics": metrics})
    assert found is None or found.metric == "val_accuracy"


@pytest.mark.parametrize(
    "penalty",
    [
        ["model.regularizer=l2"],
        ["model=sequential", "model.layers=[Flatten,{Dense:{units:classes,activation:softmax,bias_regularizer:l1}}]"],
        [
            "model=sequential",
            "model.layers=[Flatten,{ActivityRegularization:{l2:0.1}},{Dense:{units:classes,activation:softmax}}]",
        ],
    ],
    ids=str,
)
def test_a_loss_with_other_penalties_is_another_measure(penalty: list[str]) -> None:
    plain = ["model=sequential", "model.layers=[Flatten,{Dense:{units:classes,activation:softmax}}]"]
    of_loss = [objective(*model, "objective=val_loss").measured_as for model in ([], plain, penalty)]
    assert of_loss[0] == of_loss[1] != of_loss[2]
    assert objective(*penalty).measured_as == objective().measured_as


@pytest.mark.parametrize(
    ("given", "where", "what", "remedy"),
    [
        ("[val_accuracy,params]", "objective[1]", "did you mean 'parameters'?", "[val_accuracy,parameters]"),
        ("[auto,accuracy]", "objective[1]", "did you mean 'val_accuracy'?", "[auto,val_accuracy]"),
        ("[auto,parameters,parameters]", "objective[2]", "a second time", "[auto,parameters]"),
        ("[parameters,val_loss]", "objective", "the first objective is a metric", "[val_loss,parameters]"),
        ("parameters", "objective", "the first objective is a metric", "[auto,parameters]"),
    ],
)
def test_objectives_that_cannot_be_are_refused_with_a_remedy(given: str, where: str, what: str, remedy: str) -> None:
    with pytest.raises(Refused) as refused:
        config("data=digits", "data.validation_size=0.2", f"objective={given}")
    [problem] = refused.value.problems
    assert (problem.where, problem.remedy) == (where, f"objective={remedy}")
    assert what in problem.what
    config("data=digits", "data.validation_size=0.2", problem.remedy)


def test_several_objectives_are_written_and_read() -> None:
    several = config("data=digits", "data.validation_size=0.2", "objective=[auto,val_loss,parameters]")
    goals = goals_of(several)
    assert goals == [Goal("val_accuracy", False), Goal("val_loss", True), Goal("parameters", True)]
    assert recorded_goals(written(goals)) == goals
    assert [goal.measure for goal in goals] == ["final_val_accuracy", "final_val_loss", "parameters"]
    assert objective_of(several, DIGEST) == objective()
    assert goals_of(config("objective=[auto]")) == recorded_goals("") == []


@pytest.mark.parametrize(
    ("constraints", "is_broken"),
    [
        ("", False),
        ('{"parameters": 10}', False),
        ('{"parameters": 9}', True),
        ('{"val_loss": 0.5}', False),
        ('{"val_loss": 0.4}', True),
        ('{"model_bytes": 1e9}', True),
        ("mine", False),
        ("[1]", False),
    ],
)
def test_a_run_breaks_a_constraint(constraints: str, is_broken: bool) -> None:
    assert broken(constraints, {"parameters": 10, "final_val_loss": 0.45}) == is_broken


def test_a_run_that_one_search_cannot_use_may_do_for_another() -> None:
    limited = {"constraints": '{"parameters": 9}'}
    assert status_of("FINISHED", limited, {"parameters": 10}) == "INFEASIBLE"
    assert status_of("INFEASIBLE", limited, {"parameters": 9}) == "FINISHED"
    assert status_of("INFEASIBLE", {}, {"parameters": 10}) == "FINISHED"
    assert status_of("PRUNED", limited, {"parameters": 10}) == "PRUNED"
    assert status_of("FINISHED", {"pruned": "1", **limited}, {"parameters": 10}) == "PRUNED"

"""What MLflow would refuse to record is refused before a run trains."""

import shlex

import pytest
from mlflow.exceptions import MlflowException
from mlflow.utils import validation

from experiments.config import Config, recordable
from experiments.config.checks import find_problems
from tests.config.test_checks import changed, problems_of

LONG = "x" * 501


@pytest.mark.parametrize(
    ("overrides", "where", "remedy"),
    [
        (("tracking.experiment=''",), "tracking.experiment", "'tracking.experiment=${data.name}'"),
        ((f"tracking.experiment={LONG}",), "tracking.experiment", "'tracking.experiment=${data.name}'"),
        ((f"tracking.run_name={LONG}",), "tracking.run_name", "tracking.run_name=null"),
        ((f"+tracking.tags.a={'x' * 8001}",), "tracking.tags.a", ""),
        (("+tracking.tags.a='\udcff'",), "tracking.tags.a", ""),
        ((f"metrics=[accuracy,{{auc:{{name:{LONG}}}}}]",), "metrics[1]", "metrics=[accuracy,auc]"),
        (("metrics=[accuracy,{auc:{name:..}}]",), "metrics[1]", "metrics=[accuracy,auc]"),
        (("metrics=[accuracy,{auc:{name:'a,b'}}]",), "metrics[1]", "metrics=[accuracy,auc]"),
        (("metrics=[accuracy,{auc:{name:a/../b}}]",), "metrics[1]", "metrics=[accuracy,auc]"),
        (("metrics=[accuracy,accuracy]",), "metrics[1]", "metrics=[accuracy]"),
        (("metrics=[acc,accuracy]",), "metrics[1]", "metrics=[acc]"),
        (("metrics=[AUC,{auc:{}}]",), "metrics[1]", "metrics=[AUC]"),
        (("metrics=[{auc:{name:3}}]",), "metrics[0]", "metrics=[auc]"),
        (("metrics=[accuracy,{auc:{name:null}}]",), "metrics[1]", "metrics=[accuracy,auc]"),
        (("metrics=[auc,{auc:{curve:PR}}]", "objective=auc"), "metrics[1]", "metrics=[auc]"),
        (("metrics=[auc,{auc:{name:loss,curve:PR}}]",), "metrics[1]", "metrics=[auc]"),
        (("metrics=[accuracy,{auc:{name:loss}}]",), "metrics[1]", "metrics=[accuracy,auc]"),
        (("metrics=[accuracy,{auc:{name:objective}}]",), "metrics[1]", "metrics=[accuracy,auc]"),
        (("metrics=[accuracy,{auc:{name:val_accuracy}}]",), "metrics[1]", "metrics=[accuracy,auc]"),
        (("data.name=x..",), "data.name", "data.name=mnist"),
        (("data.name=..",), "data.name", "data.name=mnist"),
        ((f"data.name={LONG}",), "data.name", "data.name=mnist"),
        (("objective=learning_rate",), "objective", "data.validation_size=0.1 objective=val_accuracy"),
    ],
)
def test_what_cannot_be_recorded_is_refused(overrides: tuple[str, ...], where: str, remedy: str) -> None:
    [problem] = problems_of(*overrides)
    assert (problem.where, problem.remedy) == (where, remedy)
    assert len(str(problem)) < 1000
    if remedy and "$" not in remedy:
        kept = [item for item in overrides if item.partition("=")[0] not in remedy]
        assert problems_of(*kept, *shlex.split(remedy)) == []


@pytest.mark.parametrize(
    ("metrics", "count", "remedy"),
    [
        ("[accuracy,accuracy,{auc:{name:loss}}]", 2, "[accuracy,auc]"),
        ("[accuracy,accuracy,{auc:{name:3}}]", 2, "[accuracy,auc]"),
        ("[{auc:{name:loss}},AUC]", 1, "[auc]"),
        ("[{auc:{name:loss}},auc,{auc:{name:val_x,curve:PR}}]", 2, "[auc]"),
    ],
)
def test_one_remedy_gives_all_metrics_names_that_can_be_recorded(metrics: str, count: int, remedy: str) -> None:
    found = problems_of(f"metrics={metrics}")
    assert [shlex.split(problem.remedy) for problem in found] == count * [[f"metrics={remedy}"]]
    assert problems_of(*shlex.split(found[0].remedy)) == []


def test_remedies_of_other_problems_leave_out_a_name_that_is_not_text() -> None:
    misspelt, misnamed = problems_of("metrics=[acuracy,{auc:{name:3}}]")
    assert (misspelt.remedy, misnamed.what) == ("metrics=[accuracy,auc]", "got the name 3, expected text")
    [averaged, _] = problems_of("metrics=[{f1_score:{average:null}},{auc:{name:3}}]")
    assert shlex.split(averaged.remedy) == ["metrics=[{f1_score:{average:macro}},auc]"]


@pytest.mark.parametrize("name", [LONG, "a/../b", "a;b", "", "..", "/a"])
def test_keys_that_cannot_be_recorded_are_refused(name: str) -> None:
    [problem] = find_problems(changed("tracking.tags", {name: 1}), Config, {})
    assert problem.where == f"tracking.tags.{name}"[:120]
    [problem] = find_problems(changed("callbacks", {f"{name};": {"name": "terminate_on_nan"}}), Config, {})
    assert problem.where == f"callbacks.{name};.name"[:120]


def test_names_that_mlflow_takes_pass() -> None:
    assert find_problems(changed("tracking.tags", {"a b:c/d.e-f": 1}), Config, {}) == []
    settings = ("tracking.run_name='a run; #3'", "tracking.experiment='é, x'", "data.name=my.data-1")
    assert problems_of(*settings, "metrics=[accuracy,{auc:{name:'area 1'}}]") == []
    assert problems_of("tracking=off") == []


@pytest.mark.parametrize(
    "name", ["", "a", "a b", "a/b", "a//b", "/a", "a/", ".", "..", "a/..", "../a", "a..", "a:b", "a;b", "é"]
)
def test_the_names_are_those_that_mlflow_takes(name: str) -> None:
    try:
        validation._validate_metric_name(name)
    except MlflowException:
        assert not recordable._is_key(name)
    else:
        assert recordable._is_key(name)


def test_the_limits_are_those_of_mlflow() -> None:
    from experiments.tracking import events, record

    assert recordable.LONGEST_EXPERIMENT == validation.MAX_EXPERIMENT_NAME_LENGTH
    assert recordable.LONGEST_KEY == validation.MAX_ENTITY_KEY_LENGTH
    assert recordable.LONGEST_TAG == validation.MAX_TAG_VAL_LENGTH
    assert record.LONGEST_PARAMETER == validation.MAX_PARAM_VAL_LENGTH
    assert events.A_BATCH["params"] == events.A_BATCH["tags"] == validation.MAX_PARAMS_TAGS_PER_BATCH
    assert events.A_BATCH["metrics"] == validation.MAX_METRICS_PER_BATCH

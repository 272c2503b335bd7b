"""Conditions on runs, and orders of configs."""

import math
import operator
import shlex
from contextlib import suppress

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.config import Refused
from experiments.config.objective import Objective
from experiments.ranking.comparison import compare
from experiments.ranking.conditions import JOINS, OPERATORS, Combined, Condition, Filter, parse
from experiments.ranking.filters import filter_runs, of_configs, resolve, sort_configs, sort_key
from experiments.ranking.frame import Row, frame, row

keys = st.from_regex(r"\A[a-z_][a-z0-9_./@-]{0,20}\Z").filter(lambda key: not key.endswith("\n"))
numbers = st.floats(allow_nan=False)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20).map(str.strip)


@given(keys, st.sampled_from(sorted(OPERATORS)), numbers, st.sampled_from(["", " "]))
def test_a_condition_is_read_as_it_is_written(key: str, sign: str, value: float, blank: str) -> None:
    assert parse(f"{key}{blank}{sign}{blank}{value!r}") == Condition(key, sign, repr(value))


@given(keys, texts)
def test_text_may_hold_anything(key: str, text: str) -> None:
    if not (set(text) & set("<>=!") or text.startswith(("'", '"')) or JOINS.search(text)):
        assert [single.value for single in parse(f"{key}={text}").singles()] == [text]


@given(st.text(max_size=30))
def test_any_text_is_a_condition_or_refused(text: str) -> None:
    with suppress(Refused):
        for condition in parse(text).singles():
            assert condition.key
            assert condition.operator in text or condition.operator[0] in "<>"


def holds_for(condition: Filter, facts: dict[str, str | float]) -> bool:
    keys = {single: single.key for single in condition.singles()}
    [found] = condition.mask(pd.DataFrame([facts], columns=[*set(keys.values())], index=[0]), keys)
    return bool(found)


@given(numbers, numbers)
def test_numbers_are_compared_as_numbers(a: float, b: float) -> None:
    for sign, compared in (("=", operator.eq), ("!=", operator.ne), (">", operator.gt), ("<=", operator.le)):
        assert holds_for(Condition("key", sign, repr(b)), {"key": a}) == compared(a, b)
        assert holds_for(Condition("key", sign, repr(b)), {"key": repr(a)}) == compared(a, b)


@pytest.mark.parametrize(
    ("fact", "condition", "holds"),
    [
        ("0.001", "k=1e-3", True),
        ("[256,128]", "k=[256, 128]", True),
        ("adam", "k!=sgd", True),
        ("adam", "k>5", False),
        ("10", "k>9", True),
        (None, "k=1", False),
        (None, "k!=1", True),
        (math.nan, "k<1", False),
        (math.nan, "k!=1", True),
    ],
)
def test_a_condition_holds_or_not(fact: str | float | None, condition: str, holds: bool) -> None:
    assert holds_for(parse(condition), {} if fact is None else {"k": fact}) is holds


FACTS = {
    "trust": '["mine"]',
    "run": "seed=0",
    "seed": "1",
    "optimizer": "adam",
    "loss": 0.5,
    "name": "two words",
    "model.layer_sizes": "[512,128]",
}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("loss < 1 and optimizer == 'adam'", True),
        ("loss<1 and optimizer=sgd", False),
        ("loss>1 or optimizer=adam", True),
        ("not optimizer=adam", False),
        ("not (loss > 1 or seed == 2)", True),
        ("0.1 < loss <= 0.5", True),
        ("0.6 < loss", False),
        ("1 == seed and 2 != seed", True),
        ("name='two words'", True),
        ("name=two words", True),
        ('name == "two words" and seed=1', True),
        ("model.layer_sizes == [512, 128] and seed = 1", True),
        ("missing != 3 and not missing == 3", True),
        ("loss > -1 and loss >= 5e-1", True),
        ("-1 < loss", True),
        ("-1 < loss < +0.4", False),
        ("run='seed=0'", True),
        ("run!='seed=0' or seed=2", False),
        ("run=seed=0", True),
        ("seed=1\nand loss<1", True),
        ("trust=[mine]", True),
        ("trust=['mine']", True),
        ("trust!=[other]", True),
    ],
)
def test_conditions_are_combined(text: str, holds: bool) -> None:
    assert holds_for(parse(text), FACTS) is holds


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').abort()",
        "loss > f(1)",
        "loss if seed else 1",
        "loss in (1, 2)",
        "loss > seed > 1 + 1",
        "a.b()",
    ],
)
def test_nothing_else_is_an_expression(text: str) -> None:
    with suppress(Refused):
        assert isinstance(parse(text), Condition)


@pytest.mark.parametrize("text", ["seed=1 & loss<1", "seed=1 && loss<1", "seed=1 AND loss<1"])
def test_how_conditions_are_joined_is_said(text: str) -> None:
    with pytest.raises(Refused, match="joined by and, or, not") as refused:
        parse(text, ["status=FINISHED"])
    remedy = refused.value.problems[0].remedy
    assert remedy == """'filter=["status=FINISHED","seed=1 and loss<1"]'"""
    assert isinstance(parse("seed=1 and loss<1"), Combined)


@pytest.mark.parametrize("text", ["seed=1 | loss<1", "seed=1||loss<1", "seed=1 OR loss<1"])
def test_how_alternatives_are_joined_is_said(text: str) -> None:
    with pytest.raises(Refused, match="joined by and, or, not") as refused:
        parse(text)
    assert refused.value.problems[0].remedy == """'filter="seed=1 or loss<1"'"""


@pytest.mark.parametrize("text", ["seed=0 or", "seed=0 and and epochs=1", "seed=0 and (epochs=1 or epochs=2"])
def test_half_a_condition_is_no_text(text: str) -> None:
    with pytest.raises(Refused, match="expected whole conditions") as refused:
        parse(text)
    key, _, value = text.partition("=")
    assert shlex.split(refused.value.problems[0].remedy) == [f"""filter="{key}='{value}'\""""]
    assert parse(f"{key}='{value}'") == Condition(key, "=", value)


@pytest.mark.parametrize(
    "text", ["epochs", "=5", "", ">", "epochs>", "epochs>many", "optimizer<adam", "epochs>1 or seed", "val_loss=>0.5"]
)
def test_a_wrong_condition_says_what_is_expected(text: str) -> None:
    with pytest.raises(Refused, match="filter: got"):
        parse(text)


def test_keys_may_be_shortened() -> None:
    known = ["optimizer.name", "optimizer.learning_rate", "optimizer.schedule.decay", "a.rate", "b.rate", "loss"]
    assert resolve("filter", "optimizer", known) == "optimizer.name"
    assert resolve("filter", "learning_rate", known) == "optimizer.learning_rate"
    assert resolve("filter", "loss", known) == "loss"
    with pytest.raises(Refused, match=r"rate can be a.rate or b.rate; write the whole key"):
        resolve("filter", "rate", known)
    with pytest.raises(Refused, match=r"sort: no run has learning; did you mean 'optimizer.learning_rate'") as refused:
        sort_key("-learning", frame([run(0.5, **dict.fromkeys(known, "1"))]))
    assert refused.value.problems[0].remedy == "sort=-optimizer.learning_rate"
    with pytest.raises(Refused, match=r"sort: no run has learning_rat; did you mean"):
        resolve("sort", "learning_rat", ["learning_rate"])


def run(objective: float, **values: str | float) -> Row:
    parameters = {key: value for key, value in values.items() if isinstance(value, str)}
    metrics = {key: value for key, value in values.items() if isinstance(value, float)}
    return row(str(objective), "", "FINISHED", parameters, objective, metrics=metrics)


def test_runs_that_fit() -> None:
    runs = frame([run(0.1, a="1", val_loss=1.0), run(0.2, a="2", val_loss=2.0), run(0.3, a="3")])

    def found(*conditions: str) -> list[str]:
        return filter_runs(runs, conditions)["run_id"].tolist()

    assert found("val_loss>=1", "a!=1") == ["0.2"]
    assert found("status=FINISHED") == ["0.1", "0.2", "0.3"]
    names = frame([run(0.1, **{"loss.name": "huber"}, loss=1.0), run(0.2, **{"loss.name": "log_cosh"}, loss=2.0)])
    for condition, expected in {
        "loss=huber": ["0.1"],
        "loss!=huber": ["0.2"],
        "loss>1.5 and loss=log_cosh": ["0.2"],
    }.items():
        assert filter_runs(names, [condition])["run_id"].tolist() == expected
    assert found("a=1 or (val_loss>1 and not a=3)") == ["0.1", "0.2"]
    with pytest.raises(Refused, match=r"no run has val_los; did you mean 'val_loss'") as refused:
        found("val_los>1 and a=2", "a=2")
    assert refused.value.problems[0].remedy == """'filter=["val_loss>1 and a=2","a=2"]'"""


def test_configs_in_another_order() -> None:
    values = [run(0.9, a="10", loss=0.5), run(0.8, a="9", loss=0.1), run(0.7, a="none", loss=0.3), run(0.6, a="2")]
    comparison = compare(frame(values), "", Objective("val_accuracy", False, ""))
    assert comparison.configs.index.tolist() == [1, 2, 3, 4]
    for sort, ranks in {"a": [4, 2, 1, 3], "-a": [1, 2, 4, 3], "loss": [2, 3, 1, 4], "-loss": [1, 3, 2, 4]}.items():
        sorted_by = sort_configs(comparison, sort)
        assert sorted_by.configs.index.tolist() == sorted_by.runs["rank"].tolist() == ranks
    with pytest.raises(Refused, match="sort: no run has lost; did you mean 'loss'"):
        sort_key("lost", frame(values))


def test_a_metric_is_averaged_over_the_seeds() -> None:
    values = [("a", "0", 1.0), ("a", "1", 4.0), ("b", "0", 2.0), ("b", "1", 2.0)]
    comparison = compare(
        frame(run(0.5, model=name, seed=seed, loss=loss) for name, seed, loss in values),
        "",
        Objective("val_accuracy", False, ""),
    )
    assert sort_configs(comparison, "loss").configs["params.model"].tolist() == ["b", "a"]
    assert of_configs(comparison, "seed") == {1: "", 2: ""}
    assert set(of_configs(comparison, "model").values()) == {"a", "b"}

"""Conditions on runs, and orders of configs."""

import math
import operator
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.config import Refused
from experiments.config.objective import Objective
from experiments.ranking.comparison import Run, compare
from experiments.ranking.filters import (
    OPERATORS,
    Condition,
    facts,
    fitting,
    of_config,
    ordered,
    parse,
    resolve,
    sort_key,
)

keys = st.from_regex(r"\A[a-z_][a-z0-9_./@-]{0,20}\Z").filter(lambda key: not key.endswith("\n"))
numbers = st.floats(allow_nan=False)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20).map(str.strip)


@given(keys, st.sampled_from(sorted(OPERATORS)), numbers, st.sampled_from(["", " "]))
def test_a_condition_is_read_as_it_is_written(key: str, sign: str, value: float, blank: str) -> None:
    assert parse(f"{key}{blank}{sign}{blank}{value!r}") == Condition(key, sign, repr(value))


@given(keys, texts)
def test_text_may_hold_anything(key: str, text: str) -> None:
    if not text.startswith(tuple("=<>!")):
        assert parse(f"{key}={text}").value == text


@given(st.text(max_size=30))
def test_any_text_is_a_condition_or_refused(text: str) -> None:
    with suppress(Refused):
        condition = parse(text)
        assert condition.key
        assert condition.operator in text


@given(numbers, numbers)
def test_numbers_are_compared_as_numbers(a: float, b: float) -> None:
    for sign, compared in (("=", operator.eq), ("!=", operator.ne), (">", operator.gt), ("<=", operator.le)):
        assert Condition("key", sign, repr(b)).holds(a) == compared(a, b)
        assert Condition("key", sign, repr(b)).holds(repr(a)) == compared(a, b)


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
    assert parse(condition).holds(fact) is holds


def test_an_operator_in_the_wrong_order_is_mended() -> None:
    with pytest.raises(Refused) as refused:
        parse("val_loss=>0.5", ["seed=1"])
    assert refused.value.problems[0].remedy == """'filter=["seed=1","val_loss>=0.5"]'"""


@pytest.mark.parametrize(
    "text", ["epochs", "=5", "", ">", "epochs>", "epochs>many", "optimizer<adam", "epochs>1 or seed=2"]
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
        sort_key("-learning", [run(0.5, **dict.fromkeys(known, "1"))])
    assert refused.value.problems[0].remedy == "sort=-optimizer.learning_rate"
    with pytest.raises(Refused, match=r"sort: no run has learning_rat; did you mean"):
        resolve("sort", "learning_rat", ["learning_rate"])


def run(objective: float, **values: str | float) -> Run:
    parameters = {key: value for key, value in values.items() if isinstance(value, str)}
    metrics = {key: value for key, value in values.items() if isinstance(value, float)}
    return Run(str(objective), "", "FINISHED", parameters, objective, metrics=metrics)


def test_runs_that_fit() -> None:
    runs = [run(0.1, a="1", val_loss=1.0), run(0.2, a="2", val_loss=2.0), run(0.3, a="3")]
    known = {item.run_id: facts(item) for item in runs}
    assert fitting(runs, [parse("val_loss>=1"), parse("a!=1")], known) == [runs[1]]
    assert fitting(runs, [parse("status=FINISHED")], known) == runs


def test_configs_in_another_order() -> None:
    values = [run(0.9, a="10", loss=0.5), run(0.8, a="9", loss=0.1), run(0.7, a="none", loss=0.3), run(0.6, a="2")]
    comparison = compare(values, "", Objective("val_accuracy", False, ""))
    assert [rank for rank, _ in ordered(comparison).ranked] == [1, 2, 3, 4]
    assert [rank for rank, _ in ordered(comparison, "a").ranked] == [4, 2, 1, 3]
    assert [rank for rank, _ in ordered(comparison, "-a").ranked] == [1, 2, 4, 3]
    assert [rank for rank, _ in ordered(comparison, "loss").ranked] == [2, 3, 1, 4]
    assert [rank for rank, _ in ordered(comparison, "-loss").ranked] == [1, 3, 2, 4]
    with pytest.raises(Refused, match="sort: no run has lost; did you mean 'loss'"):
        sort_key("lost", values)


def test_a_metric_is_averaged_over_the_seeds() -> None:
    def of(name: str, seed: str, loss: float) -> Run:
        return replace(run(0.5, model=name, seed=seed, loss=loss), run_id=name + seed)

    comparison = compare(
        [of("a", "0", 1.0), of("a", "1", 4.0), of("b", "0", 2.0), of("b", "1", 2.0)],
        "",
        Objective("val_accuracy", False, ""),
    )
    assert [item.settings["model"] for _, item in ordered(comparison, "loss").ranked] == ["b", "a"]
    assert [of_config(standing, "seed") for standing in comparison.standings] == ["", ""]
    assert {of_config(standing, "model") for standing in comparison.standings} == {"a", "b"}

import math
import shlex

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from experiments.config.problems import Problem, Refused, assign, closest, dotted, quoted, shown, suggest, visible

OPTIMIZERS = ["adadelta", "adam", "adamax", "adamw", "nadam", "rmsprop", "sgd"]
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
values = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(st.from_regex(r"\A[a-z_]{1,8}\Z"), inner), max_leaves=8
)


def read(override: str) -> object:
    return OverridesParser.create().parse_override(override).value()


@given(values)
def test_a_shown_value_is_read_back_by_hydra(value: object) -> None:
    assert read(f"key={shown(value)}") == value


@pytest.mark.parametrize(
    "text", ["true", "Null", "nan", "-inf", "12", "1e5", "a b", "", "it's", "é", "[1]", "a,b", "\\'"]
)
def test_text_that_hydra_would_take_for_something_else_stays_text(text: str) -> None:
    assert read(f"key={shown(text)}") == text


def test_plain_values_are_shown_plainly() -> None:
    assert shown([512, "relu", 0.5, None, True]) == "[512,relu,0.5,null,true]"
    assert shown([{"Dense": {"units": "classes", "activation": "${loss.output_activation}"}}]) == (
        "[{Dense:{units:classes,activation:${loss.output_activation}}}]"
    )
    assert math.isnan(read(f"key={shown(math.nan)}"))  # type: ignore[arg-type]


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_a_quoted_word_reaches_the_command_as_it_is(text: str) -> None:
    assert shlex.split(quoted(text)) == [text]


@pytest.mark.parametrize(
    ("key", "value", "typed"),
    [
        ("epochs", 5, "epochs=5"),
        ("model.layer_sizes", [512, 128], "model.layer_sizes=[512,128]"),
        ("tracking.experiment", "${data.name}", "'tracking.experiment=${data.name}'"),
        ("tracking.run_name", "first try", "\"tracking.run_name='first try'\""),
    ],
)
def test_an_override_is_quoted_only_where_a_shell_needs_it(key: str, value: object, typed: str) -> None:
    assert assign(key, value) == typed


@given(st.lists(st.from_regex(r"\A[a-z_]{1,8}\Z") | st.integers(0, 99)).map(lambda path: ["key", *path]))
def test_a_dotted_path_names_every_part(path: list[str | int]) -> None:
    parts = dotted(path).replace("[", ".").replace("]", "").split(".")
    assert parts == [str(part) for part in path]


@pytest.mark.parametrize(
    ("word", "meant"),
    [("adma", "adam"), ("Adam", "adam"), ("adamx", "adamax"), ("rmsprob", "rmsprop"), ("sdg", "sgd"), ("lbfgs", None)],
)
def test_the_word_that_was_meant(word: str, meant: str | None) -> None:
    assert closest(word, OPTIMIZERS) == meant


def test_a_suggestion_names_what_was_meant_or_what_is_known() -> None:
    assert suggest("adma", OPTIMIZERS) == "did you mean 'adam'?"
    assert suggest("x", ["b", "a"]) == "known: a, b"
    assert suggest("x", []) == "there are none"
    assert suggest("1", [f"name{index:02}" for index in range(30)]).endswith("name19, …")


def test_all_problems_of_a_refusal_are_shown() -> None:
    problems = [Problem("epochs", "got 0, expected more", "epochs=5"), Problem("x", "is unknown")]
    assert str(Refused(problems)) == ("error: epochs: got 0, expected more\n       try  epochs=5\nerror: x: is unknown")
    assert Refused(problems[0]).problems == problems[:1]


@given(st.text())
def test_what_is_shown_has_no_effect_on_a_terminal(text: str) -> None:
    shown = visible(text)
    assert all(character in "\t\n" or character.isprintable() or ord(character) >= 0xA0 for character in shown)
    shown.encode()


def test_control_characters_are_shown_as_python_writes_them() -> None:
    assert visible("a\x1b]0;x\x07\u202e\x9bé\n") == "a\\x1b]0;x\\x07\\u202e\\x9bé\n"


def test_a_problem_is_a_line_of_bounded_length() -> None:
    lines = str(Problem("k" * 9999, "got 'a\nb\x1b' " + 3_000_000 * "x", "y" * 9999)).splitlines()
    assert len(lines) == 1
    assert len(lines[0]) < 700
    assert "try" not in str(Problem("run", "is unknown", "run='\x1b'"))


def test_a_refusal_has_at_most_40_lines() -> None:
    lines = str(
        Refused([Problem(f"{number}.png", "there is no such file", "x=1") for number in range(2000)])
    ).splitlines()
    assert len(lines) <= 40
    assert lines[-1] == "error: … and 1,981 more"
    twenty = [Problem("x", "y", str(number)) for number in range(20)]
    assert len(str(Refused(twenty)).splitlines()) == 40


def test_a_remedy_that_several_problems_share_is_shown_once_with_the_last_of_them() -> None:
    refused = Refused(
        [Problem("a", "is wrong", "x=1"), Problem("b", "is wrong", "y=1"), Problem("c", "is wrong", "x=1")]
    )
    assert str(refused).splitlines() == [
        "error: a: is wrong", "error: b: is wrong", "       try  y=1", "error: c: is wrong", "       try  x=1"
    ]  # fmt: skip
    assert refused.reason == "a: is wrong; b: is wrong (try y=1); c: is wrong (try x=1)"
    many = str(Refused([Problem(str(number), "is wrong", "x=1") for number in range(99)])).splitlines()
    assert (many[-2], many.count("       try  x=1")) == ("       try  x=1", 1)


def test_a_reason_is_one_line() -> None:
    refused = Refused([Problem("epochs", "got 0", "epochs=5"), Problem("data.path", "has\nlines")])
    assert refused.reason == "epochs: got 0 (try epochs=5); data.path: has\\nlines"

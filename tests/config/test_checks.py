# ruff: noqa: E501 - tables are easier to read with a case on each line
import copy
import re
import shlex
from collections.abc import Iterator
from functools import cache
from typing import Any

import hydra
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from experiments.cli.checks import CONF
from experiments.config import Config, PredictConfig, Problem, Refused, check
from experiments.config.checks import find_problems, resolve


@cache
def compose(*overrides: str, config_name: str = "config") -> Any:
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra.compose(config_name, list(overrides))


def plain(*overrides: str) -> dict[str, Any]:
    return copy.deepcopy(OmegaConf.to_container(compose(*overrides), resolve=True))  # type: ignore[return-value]


def changed(key: str, value: Any, *overrides: str) -> dict[str, Any]:
    config = plain(*overrides)
    *parents, last = key.split(".")
    section = config
    for parent in parents:
        section = section[parent]
    section[last] = value
    return config


def problems_of(*overrides: str) -> list[Problem]:
    try:
        check(compose(*overrides), Config, compose)
    except Refused as refused:
        return refused.problems
    return []


@pytest.mark.parametrize(
    ("typed", "count", "remedy"),
    [
        ("model.layer_sizes=[-5,64,'8']", 2, "model.layer_sizes=[512,64,8]"),
        ("metrics=[acuracy,auc,precison]", 2, "metrics=[accuracy,auc,Precision]"),
        (
            "model.layers=[Flaten,{Dnse:{units:5,activation:rleu}},{Dense:{units:classes,activation:softmax}}]",
            3,
            "model.layers=[Flatten,{Dense:{units:5,activation:relu}},{Dense:{units:classes,activation:softmax}}]",
        ),
    ],
)
def test_one_remedy_mends_all_entries_of_a_list(typed: str, count: int, remedy: str) -> None:
    model = ["model=sequential"] * typed.startswith("model.layers=")
    found = problems_of(*model, typed)
    assert [shlex.split(problem.remedy) for problem in found] == [[remedy]] * count
    assert problems_of(*model, remedy) == []


def test_a_wrong_argument_of_a_metric_is_one_problem() -> None:
    [problem] = problems_of("metrics=[accuracy,{auc:3}]")
    assert (problem.where, problem.what) == ("metrics[1].auc", "got 3, expected a mapping")


# Hypothesis also draws words of the code that it tests, right values among them.
TEXT = st.text(max_size=8).filter(lambda text: text not in {"float32", "sparse", "one_hot", "auto"})
BELOW_1 = st.integers(max_value=0) | st.floats() | TEXT | st.none() | st.booleans() | st.just([1])
NOT_POSITIVE = st.floats(max_value=0) | st.sampled_from([float("nan"), float("inf")]) | TEXT | st.booleans()
NOT_A_FRACTION = st.floats(min_value=1) | st.floats(max_value=0, exclude_max=True) | TEXT | st.none()
WRONG = {
    "epochs": BELOW_1,
    "batch_size": BELOW_1,
    "seed": st.integers(max_value=-1) | st.integers(min_value=2**32) | st.floats() | TEXT | st.none(),
    "data.scale": NOT_POSITIVE | st.none(),
    "data.validation_size": st.floats(max_value=0, exclude_max=True) | st.floats(1, 9).filter(lambda x: x % 1) | TEXT,
    "data.limit": BELOW_1.filter(lambda value: value is not None),
    "data.name": st.sampled_from(["", "../mnist", "a/b", None, 3]),
    "model.layer_sizes": st.just([]) | st.lists(BELOW_1, min_size=1) | TEXT | st.none(),
    "model.dropout": NOT_A_FRACTION,
    "model.regularizer": st.integers() | st.just({}) | st.just({"L1": {}, "L2": {}}) | st.just([]),
    "optimizer.learning_rate": NOT_POSITIVE | st.none() | st.just([0.1]),
    "optimizer.rho": NOT_A_FRACTION,
    "optimizer.clipnorm": NOT_POSITIVE,
    "optimizer.gradient_accumulation_steps": BELOW_1.filter(lambda value: value is not None) | st.just(1),
    "optimizer.schedule": TEXT | st.integers() | st.none(),
    "loss.labels": TEXT | st.none() | st.integers(),
    "loss.from_logits": TEXT | st.integers() | st.none(),
    "metrics": TEXT | st.none() | st.lists(st.integers(), min_size=1),
    "precision": TEXT | st.none() | st.integers(),
    "runtime.threads": BELOW_1,
    "runtime.xla": TEXT | st.integers() | st.none(),
    "trust": st.just(["a/b"]) | st.just([""]) | st.just([1]) | TEXT,
    "tracking.enabled": TEXT | st.integers() | st.none(),
    "tracking.tags": st.lists(TEXT) | st.just({"a": {"b": 1}}) | st.none(),
}


@pytest.mark.parametrize("key", WRONG)
@settings(deadline=None)  # pydantic builds its validators at first use
@given(data=st.data())
def test_a_wrong_value_is_a_problem_that_names_the_key(key: str, data: st.DataObject) -> None:
    value = data.draw(WRONG[key])
    problems = find_problems(changed(key, value), Config, plain())
    assert problems
    assert all(problem.where.startswith(key) for problem in problems), problems


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("epochs", st.integers(1)),
        ("seed", st.integers(0, 2**32 - 1)),
        ("data.validation_size", st.integers(0) | st.floats(0, 1, exclude_max=True)),
        ("model.layer_sizes", st.lists(st.integers(1), min_size=1)),
        ("optimizer.learning_rate", st.floats(0, exclude_min=True, allow_infinity=False)),
        ("optimizer.epsilon", st.integers(1)),
        ("model.dropout", st.floats(0, 1, exclude_max=True)),
        ("model.regularizer", st.sampled_from(["l2", {"L2": {"l2": 0.1}}, {"L2": None}, None])),
        ("runtime.threads", st.integers(1, 1024) | st.just("auto")),
        ("runtime.xla", st.booleans() | st.just("auto")),
        ("trust", st.lists(st.sampled_from(["mypackage", "my.package"]))),
    ],
)
@settings(deadline=None)  # pydantic builds its validators at first use
@given(data=st.data())
def test_a_right_value_passes(key: str, values: st.SearchStrategy[Any], data: st.DataObject) -> None:
    assert find_problems(changed(key, data.draw(values)), Config, plain()) == []


def keys(tree: Any, path: str = "") -> Iterator[str]:
    for key, value in tree.items():
        yield f"{path}{key}"
        if isinstance(value, dict):
            yield from keys(value, f"{path}{key}.")


@settings(deadline=None)  # pydantic builds its validators at first use
@given(
    st.sampled_from(list(keys(plain()))),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
        max_leaves=6,
    ),
)
def test_no_value_whatsoever_makes_the_checks_fail(key: str, value: Any) -> None:
    for problem in find_problems(changed(key, value), Config, plain()):
        assert problem.where
        assert problem.what


@settings(deadline=None)  # pydantic builds its validators at first use
@given(st.sampled_from([key for key in keys(plain()) if not key.startswith(("optimizer.", "loss."))]))
def test_a_missing_key_is_named(key: str) -> None:
    config = plain()
    *parents, last = key.split(".")
    section = config
    for parent in parents:
        section = section[parent]
    del section[last]
    optional = key.startswith("tracking.") and key not in ("tracking.enabled", "tracking.experiment")
    optional |= key in ("objective_mode", "task")  # which runs of before did not record
    named = [problem.where for problem in find_problems(config, Config, plain())]
    assert named == ([] if optional else [key])


@pytest.mark.parametrize(
    ("overrides", "where", "what", "remedy"),
    [
        (("epochs=0",), "epochs", "got 0, expected a whole number of at least 1", "epochs=5"),
        (("epochs=2.5",), "epochs", "got 2.5, expected a whole number", "epochs=5"),
        (
            ("model.layer_sizes=[512,-5]",),
            "model.layer_sizes[1]",
            "got -5, expected a whole number of at least 1",
            "model.layer_sizes=[512,512]",
        ),
        (
            ("precision=float31",),
            "precision",
            "got float31, expected float32 or mixed_float16 or mixed_bfloat16; did you mean 'float32'?",
            "precision=float32",
        ),
        (
            ("runtime.threads=many",),
            "runtime.threads",
            "got many, expected a whole number or auto",
            "runtime.threads=auto",
        ),
        (
            ("optimizer.schedule=cosine",),
            "optimizer.schedule",
            "is a group of files, which is chosen with a slash",
            "optimizer/schedule=cosine",
        ),
        (("epochs=???",), "epochs", "is not set, expected a value", "epochs=5"),
        (("epochs=${nope}",), "epochs", "Interpolation key 'nope' not found", "epochs=5"),
        (
            ("tracking.experiment=${nope}",),
            "tracking.experiment",
            "Interpolation key 'nope' not found",
            "'tracking.experiment=${data.name}'",
        ),
        (("metrics=['${nope}']",), "metrics[0]", "Interpolation key 'nope' not found", "metrics=[accuracy]"),
        (("~epochs",), "epochs", "is missing", "+epochs=5"),
        (("+epohcs=3",), "epohcs", "no such key; did you mean 'epochs'?", "~epohcs epochs=3"),
        (
            ("+model.class_name=x",),
            "model.class_name",
            "got 'x', but a config names Keras objects only, as {Dense: {units: 10}}; classes of your own package are allowed by trust=[mypackage]",
            "~model.class_name",
        ),
        (
            ("loss=hinge", "model.output_activation=softmax"),
            "model.output_activation",
            "got softmax, but the loss hinge expects outputs around -1 and 1: tanh or linear last",
            "model.output_activation=tanh",
        ),
        (
            ("loss.from_logits=true",),
            "model.output_activation",
            "got softmax, but the loss sparse_categorical_crossentropy expects logits (loss.from_logits=true): a linear last layer",
            "loss.output_activation=linear",
        ),
        (
            ("loss.output_activation=linear",),
            "model.output_activation",
            "got linear, but the loss sparse_categorical_crossentropy expects probabilities: softmax or sigmoid last",
            "loss.output_activation=softmax",
        ),
        (
            ("loss.labels=one_hot",),
            "loss.labels",
            "got one_hot, but sparse_categorical_crossentropy reads sparse labels",
            "loss.labels=sparse",
        ),
        (
            ("callbacks=early_stopping",),
            "callbacks.early_stopping.monitor",
            "got val_loss, but no validation set is held out",
            "data.validation_size=0.1",
        ),
        (
            ("objective=val_acuracy", "data.validation_size=9"),
            "objective",
            "got val_acuracy, which is not recorded; did you mean 'val_accuracy'?",
            "objective=val_accuracy",
        ),
        (
            ("callbacks=reduce_lr_on_plateau", "optimizer/schedule=cosine", "data.validation_size=9"),
            "callbacks.reduce_lr_on_plateau",
            "sets the learning rate, which the schedule cosine_decay sets already",
            "optimizer/schedule=constant",
        ),
        (
            ("model=lenet5", "+model.dropout=0.5"),
            "model.dropout",
            "nothing in model.layers refers to it as ${model.dropout}",
            "~model.dropout",
        ),
    ],
)
def test_a_problem_is_shown_once_with_a_remedy(overrides: tuple[str, ...], where: str, what: str, remedy: str) -> None:
    assert problems_of(*overrides) == [Problem(where, what, remedy)]


def test_a_sequential_model_ends_as_its_loss_expects() -> None:
    layers = "model.layers=[Flatten,{Dense:{units:classes,activation:relu}}]"
    [problem] = problems_of("model=sequential", layers)
    assert problem.where == "model.layers[-1].activation"
    assert problems_of("model=sequential", "model.layers=[Flatten,{Dense:{units:classes}},Softmax]") == []
    assert problems_of("model=sequential", "model.layers=[Flatten,Rescaling]") == []  # the layers do not say


def test_all_problems_are_found_at_once() -> None:
    found = problems_of("epochs=0", "seed=???", "batch_size=${batch_size}", "model.layer_sizes=[0,1,-1]", "+x=1")
    assert {problem.where for problem in found} == {
        "epochs", "seed", "batch_size", "model.layer_sizes[0]", "model.layer_sizes[2]", "x",
    }  # fmt: skip


def test_code_is_found_wherever_it_is_and_only_once() -> None:
    found = problems_of("+_target_=os.system", "+tracking.tags._target_=x", "metrics=[{auc:{_target_:x}}]")
    found_at = sorted(problem.where for problem in found)
    assert found_at == ["_target_", "metrics[0].auc._target_", "tracking.tags._target_"]


def test_the_defaults_pass() -> None:
    assert check(compose(), Config).epochs == 5
    assert check(compose(config_name="predict"), PredictConfig).run == "latest"


def test_metrics_are_named_as_they_are_recorded() -> None:
    config = check(compose("metrics=[accuracy,{auc:{name:area}},{mypackage.Mine:{}}]", "trust=[mypackage]"), Config)
    assert config.metric_names == ["loss", "accuracy", "area", "Mine"]


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("runtime.threads=100000", "runtime.threads: got 100000, expected a whole number of at most 1024 or auto"),
        (f"model.layer_sizes={[1] * 3000}", "model.layer_sizes: got 3,000 layers, expected at most 500"),
        ("data.scale=5e-324", "data.scale: got 5e-324, expected a number of at least 1e-30"),
    ],
)
def test_what_no_machine_can_do_is_refused(override: str, told: str) -> None:
    [problem] = problems_of(override)
    assert told in str(problem)


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("model=convnet",),
        ("model=lenet5",),
        ("tracking.experiment=a-${loss.name}",),
        ("epochs=${batch_size}", "batch_size=3"),
        ("metrics=[accuracy,'${loss.name}']",),
        ("+tracking.tags.a=${seed}", "+tracking.tags.b='\\${seed}'", "+tracking.tags.c=${tracking.tags.a}"),
        ("tracking.run_name=${oc.env:HOME,x}",),
        ("+tracking.tags.a=${model.layer_sizes[0]}",),
    ],
)
def test_references_are_resolved_as_omegaconf_does(overrides: tuple[str, ...]) -> None:
    composed = compose(*overrides)
    assert resolve(composed, {}) == (OmegaConf.to_container(composed, resolve=True), [])


@pytest.mark.parametrize(
    ("override", "where"),
    [
        (f"batch_size={10**30}", "batch_size"),
        (f"+optimizer.gradient_accumulation_steps={10**20}", "optimizer.gradient_accumulation_steps"),
        (f"optimizer.ema_overwrite_frequency={10**20}", "optimizer.ema_overwrite_frequency"),
        (f"runtime.evaluation_batch_size={10**20}", "runtime.evaluation_batch_size"),
        (f"metrics=[{{top_k_categorical_accuracy:{{k:{10**20}}}}}]", "metrics[0].top_k_categorical_accuracy.k"),
    ],
)
def test_numbers_that_tensorflow_cannot_hold_are_refused(override: str, where: str) -> None:
    (problem,) = problems_of(override)
    assert problem.where == where
    assert re.search("expected (a whole number of at most|one within)", problem.what)


@pytest.mark.parametrize(
    ("override", "where", "remedy"),
    [
        (f"epochs={10**4000}", "epochs", "epochs=5"),
        (f"model.layer_sizes=[8,{2**63}]", "model.layer_sizes[1]", "model.layer_sizes=[512]"),
        (f"+optimizer.beta_1=-{2**64}", "optimizer.beta_1", ""),
        (f"+tracking.tags.x={2**64}", "tracking.tags.x", ""),
        (f"+callbacks.a={{name:EarlyStopping,patience:{2**65}}}", "callbacks.a.patience", ""),
        (f"metrics=[{{auc:{{num_thresholds:{2**70}}}}}]", "metrics[0].auc.num_thresholds", "metrics=[accuracy]"),
    ],
)
def test_a_number_beyond_64_bits_is_refused_wherever_it_is(override: str, where: str, remedy: str) -> None:
    [problem] = problems_of(override)
    assert problem.where == where
    assert problem.what.startswith("holds a whole number of more than 64 bits")
    assert problem.remedy == remedy


def ten_of(name: str) -> str:
    return 10 * f"${{{name}}}"


BOMBS = {
    "text": {"x1": "a" * 10} | {f"x{n}": ten_of(f"x{n - 1}") for n in range(2, 10)},
    "nothing": {"x1": ""} | {f"x{n}": ten_of(f"x{n - 1}") for n in range(2, 10)},
    "relative": {"x1": "a" * 10} | {f"x{n}": 10 * f"${{.x{n - 1}}}" for n in range(2, 10)},
    "resolver": {"x1": "a" * 10} | {f"x{n}": 10 * f"${{oc.select:x{n - 1},b}}" for n in range(2, 10)},
    "computed": {f"n{n}": f"x{n}" for n in range(1, 10)}
    | {"b": {"x1": "a"} | {f"x{n}": 10 * f"${{b.${{n{n - 1}}}}}" for n in range(2, 10)}, "x9": "${b.x9}"},
    "sections": {"x1": ["a" * 10]} | {f"x{n}": {str(m): f"${{x{n - 1}}}" for m in range(10)} for n in range(2, 10)},
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS.keys())
def test_references_that_multiply_are_refused(bomb: dict[str, Any]) -> None:
    config = OmegaConf.merge(compose(), {"tracking": {"run_name": "${x9}"}})
    OmegaConf.set_struct(config, False)
    for name, value in bomb.items():
        config[name] = value
    with pytest.raises(Refused, match=r"its references \$\{...\} stand for"):
        check(config, Config)


def test_a_few_references_are_resolved() -> None:
    config = OmegaConf.merge(
        compose(), {"tracking": {"run_name": "${data.name}-${oc.select:epochs}-${optimizer.${oc.select:x,name}}"}}
    )
    checked = check(config, Config)
    assert checked.tracking.run_name == f"{config.data.name}-{config.epochs}-{config.optimizer.name}"

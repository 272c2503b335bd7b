"""What `compose_usable` makes of sweeps; single overrides are tested through the command line, in test_cli.py."""

import hydra
import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from experiments.config import Problem, Refused, check
from experiments.config.commands import CompareConfig, PredictConfig
from experiments.config.composition import compose_usable
from experiments.config.overrides import ids_as_text

pytestmark = pytest.mark.usefixtures("hydra_here")


def usable(*overrides: str, config_name: str = "config", sweep: bool = True) -> tuple[DictConfig, list[Problem]]:
    return compose_usable(overrides, config_name, GlobalHydra.instance().config_loader(), sweep)


def test_each_choice_of_a_sweep_is_looked_at() -> None:
    _, problems = usable("optimizer=adam,adma,sgdd", "optimizer/schedule=glob(cos*)")
    assert [(problem.what, problem.remedy) for problem in problems] == [
        ("there is no adma; did you mean 'adam'?", "optimizer=adam,sgd"),
        ("there is no sgdd; did you mean 'sgd'?", "optimizer=adam,sgd"),
    ]


def test_a_key_of_a_sweep_is_looked_at_once() -> None:
    _, problems = usable("epohcs=range(1,9)", "sead=1,2", "optimizer.learning_rte=interval(0.1,1)")
    assert [problem.where for problem in problems] == ["epohcs", "sead", "optimizer.learning_rte"]


def test_what_can_be_used_is_composed_in_the_order_it_was_typed() -> None:
    config, problems = usable("+a=1", "a=2", "epochs=[", "optimizer=adam", "optimizer.beta_1.x=3", sweep=False)
    assert (config.a, config.optimizer.name, config.optimizer.beta_1) == (2, "adam", 0.9)
    assert [problem.where for problem in problems] == ["epochs=[", "optimizer.beta_1.x"]


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("optimizer=sgd", "optimizer.momentum=0.9", "model.layer_sizes=[64,32]"),
        ("+tracking.tags.a=1", "++tracking.tags.b={c:2}", "++epochs=3", "+tracking.tags={d:3}"),
        ("~optimizer.rho", "~epochs=5", "batch_size=${seed}", "tracking.run_name='a, b'"),
        ("callbacks=[early_stopping,csv_log]", "~callbacks.csv_log", "hydra.job.num=3", "hydra.run.dir=x"),
        ("model=lenet5", "optimizer/schedule=cosine", "experiment=debug", "seed=1", "seed=2", "tracking=off"),
    ],
)
def test_what_is_composed_is_what_hydra_composes(overrides: tuple[str, ...]) -> None:
    loader = GlobalHydra.instance().config_loader()
    config, problems = usable(*overrides, sweep=False)
    expected = loader.load_configuration("config", list(overrides), RunMode.RUN)
    expected.hydra.overrides.hydra = []
    assert problems == []
    assert OmegaConf.to_container(config) == OmegaConf.to_container(expected)


def test_without_a_config_there_is_nothing_to_compose_from() -> None:
    with pytest.raises(Refused, match="--config-name: there is no 'predct'; did you mean 'predict'"):
        usable(config_name="predct")


@pytest.mark.parametrize(
    ("typed", "remedy"), [("run=best", "runs=[]"), ("run=latest", "runs=[]"), ("run=3fe4", "runs=[3fe4]")]
)
def test_compare_takes_ids_only(typed: str, remedy: str) -> None:
    _, [problem] = usable(typed, config_name="compare", sweep=False)
    assert (problem.where, problem.remedy) == ("run", remedy)
    composed, _ = usable(remedy, config_name="compare", sweep=False)
    check(composed, CompareConfig)


@pytest.mark.parametrize(
    ("typed", "ids"),
    [
        ("run=12e45678", "12e45678"),
        ("sweep=00e1", "00e1"),
        ("runs=[1e5,12345678,3fe4,beef]", ["1e5", "12345678", "3fe4", "beef"]),
        ("runs=12345678", ["12345678"]),
        ("run='1e5'", "1e5"),
        ("run=a@1e5", "a@1e5"),
    ],
)
def test_ids_of_runs_stay_text(typed: str, ids: str | list[str]) -> None:
    command = "compare" if typed.startswith(("sweep", "runs")) else "predict"
    composed = hydra.compose(command, [ids_as_text(typed)])
    checked = check(composed, CompareConfig if command == "compare" else PredictConfig)
    assert getattr(checked, typed.partition("=")[0]) == ids


def test_other_values_stay_as_they_were_typed() -> None:
    assert ids_as_text("optimizer.learning_rate=1e5") == "optimizer.learning_rate=1e5"

"""The size of a sweep, counted before it is expanded, and the settings of the grid."""

import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode

from experiments.config import Problem, Refused
from experiments.config.composition import compose_usable
from experiments.config.sweep_values import spaced
from experiments.sweeps.composer import Composer
from experiments.sweeps.jobs import prepare
from experiments.sweeps.parts import check_settings
from experiments.sweeps.proposers.grid import Grid, Settings, combinations, preset_overrides, propose, without_repeats
from tests.sweeps.processes import QUICK, sweep

pytestmark = pytest.mark.usefixtures("hydra_here")


def loader() -> ConfigLoader:
    return GlobalHydra.instance().config_loader()


def expand(*overrides: str, max_runs: int = 1000) -> list[list[str]]:
    return combinations(OverridesParser.create(loader()).parse_overrides(list(overrides)), max_runs)


def refusal(*overrides: str) -> Problem:
    with pytest.raises(Refused) as caught:
        expand(*overrides)
    [problem] = caught.value.problems
    return problem


EMPTY = {
    "seed=range(0)": "",
    "seed=range(3,1)": "'seed=range(3,1,-1)'",
    "seed=range(0,1,-1)": "'seed=range(0,1,1)'",
    "seed=range(1,1,0.5)": "",
    "seed=range(0,3,0)": "'seed=range(0,3)'",
    "seed=range(0,3,-0.0)": "'seed=range(0,3)'",
    "seed=range(nan)": "'seed=range(3)'",
    "seed=range(0,1,nan)": "'seed=range(3)'",
    "seed=range(inf)": "'seed=range(3)'",
    "seed=glob(*)": "",
    "optimizer=glob(nope*)": "",
}


@pytest.mark.parametrize(("override", "remedy"), EMPTY.items())
def test_an_override_without_values_is_refused(override: str, remedy: str) -> None:
    problem = refusal(override)
    assert (problem.where, problem.remedy) == (override.partition("=")[0], remedy)
    _, problems = compose_usable([override], "config", loader(), sweep=True)
    assert problems == [problem], "the command is refused before the sweep is prepared"
    if remedy:
        assert expand(remedy.strip("'"))


@pytest.mark.parametrize(
    ("overrides", "number"),
    [
        (["seed=range(10000000000)"], "10,000,000,000 runs (10,000,000,000 values of seed)"),
        (["seed=shuffle(range(10000000000))"], "10,000,000,000 runs"),
        (["seed=range(0,1,1e-300)"], "10^300 runs"),
        (["seed=range(0,1e308,1e-308)", "epochs=range(0,1e308,1e-308)"], "10^1232 runs"),
        ([f"+tracking.tags.t{number}=a,b" for number in range(30)], "1,073,741,824 runs (2 values of"),
        (["seed=range(40)", "epochs=range(1,41)"], "1,600 runs (40 values of seed, 40 values of epochs)"),
    ],
)
def test_a_sweep_that_is_too_large_is_refused_at_once(overrides: list[str], number: str) -> None:
    started = time.monotonic()
    _, problems = compose_usable(overrides, "config", loader(), sweep=True)
    problem = refusal(*overrides)
    assert time.monotonic() - started < 5
    assert problems == []
    assert problem.where == "hydra.sweeper.max_runs"
    assert f"the sweep has {number}" in problem.what
    assert "more than the 1,000 that are allowed" in problem.what


def test_the_limit_can_be_raised() -> None:
    assert refusal("seed=range(1001)").remedy == "hydra.sweeper.max_runs=1001"
    assert len(expand("seed=range(1001)", max_runs=1001)) == 1001


def test_an_interval_has_no_values() -> None:
    problem = refusal("optimizer.learning_rate=interval(0.1,1)")
    assert (problem.where, problem.remedy) == ("optimizer.learning_rate", "hydra/sweeper=optuna")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"params": 3}, ("hydra.sweeper.params", "got 3, expected a mapping")),
        ({"params": ["seed=1,2"]}, ("hydra.sweeper.params[0]", "got 'seed=1,2', expected a mapping")),
        ({"skip_invalid": "maybe"}, ("hydra.sweeper.skip_invalid", "got maybe, expected true or false")),
        ({"skip_invalid": 3}, ("hydra.sweeper.skip_invalid", "got 3, expected true or false")),
        ({"max_runs": 0}, ("hydra.sweeper.max_runs", "got 0, expected a whole number of at least 1")),
        ({"max_runs": "all"}, ("hydra.sweeper.max_runs", "got all, expected a whole number")),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], expected: tuple[str, str]) -> None:
    with pytest.raises(Refused) as caught:
        check_settings("sweeper", Settings, settings)
    [problem] = caught.value.problems
    assert problem.where == expected[0]
    assert problem.what.startswith(expected[1])


def test_the_values_of_a_preset_are_checked_as_those_of_the_command() -> None:
    values = {"optimizer": "adam,sgd", "model.dropout": None, "metrics": ["accuracy"], "epochs": 3}
    written, _ = preset_overrides(values, loader())
    assert written == ["optimizer=adam,sgd", "model.dropout=null", "metrics=[accuracy]", "epochs=3"]
    with pytest.raises(Refused, match="only a search has keys that depend on a choice") as refused:
        preset_overrides({"optimizer": {"sgd": {"optimizer.momentum": "0,0.9"}}}, loader())
    assert refused.value.problems[0].remedy == "hydra/sweeper=optuna"
    with pytest.raises(Refused) as caught:
        preset_overrides(
            {"seed": "range(0)", "epochs": "range(", "optimizer": "choice()", "metrics": 60_000 * "["}, loader()
        )
    assert [problem.where for problem in caught.value.problems] == [
        "hydra.sweeper.params.seed",
        "hydra.sweeper.params.epochs",
        "hydra.sweeper.params.optimizer",
        "hydra.sweeper.params.metrics",
    ]


def test_a_value_given_twice_runs_once(capsys: pytest.CaptureFixture[str]) -> None:
    """Twice the same run would count as two seeds. What differs in how it runs, not in its result, is another run."""
    master = loader().load_configuration("config", [], RunMode.MULTIRUN)
    wanted = expand("data=digits", "seed=0,1,0", "runtime.threads=1,2")
    jobs = without_repeats(prepare(wanted, Composer(loader(), master)))
    assert [job.name for job in jobs] == [f"seed={seed} runtime.threads={threads}" for seed in "01" for threads in "12"]
    assert capsys.readouterr().err == "2 of 6 combinations repeat another one and are left out\n"


def test_runs_need_folders_of_their_own() -> None:
    sweep_config = loader().load_configuration("config", ["hydra.sweep.subdir=${optimizer.name}"], RunMode.MULTIRUN)
    with pytest.raises(Refused) as caught:
        prepare(expand("data=digits", "optimizer=adam,sgd", "seed=0,1,2"), Composer(loader(), sweep_config))
    [problem] = caught.value.problems
    assert problem.where == "hydra.sweep.subdir"
    assert "3 runs would write into" in problem.what
    assert "adam: optimizer=adam seed=0 and optimizer=adam seed=1 and 1 more" in problem.what
    assert problem.remedy == "'hydra.sweep.subdir=${hydra.job.num}'"
    assert len(prepare(expand("data=digits", "optimizer=adam,sgd"), Composer(loader(), sweep_config))) == 2


def test_an_endless_sweep_leaves_nothing(tmp_path: Path) -> None:
    status, output = sweep(tmp_path, *QUICK, "seed=range(0,1,1e-300)")
    assert status == 2
    assert output.startswith("error: hydra.sweeper.max_runs: the sweep has 10^300 runs")
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


def made(params: Any, *typed: str) -> Grid:
    sweep_config = loader().load_configuration("config", [], RunMode.MULTIRUN)
    prepared = partial(prepare, composer=Composer(loader(), sweep_config))
    return propose(Settings(params=params), ["data=digits", *typed], loader(), prepared)


def proposed(params: Any, *typed: str) -> list[str]:
    """The combinations of a preset's values, without what all have."""
    jobs = made(params, *typed).jobs
    return [" ".join(text for text in job.overrides if text != "data=digits") for job in jobs]


def test_several_grids_are_run_one_after_the_other() -> None:
    grids = [{"optimizer": "adam,sgd", "batch_size": "32"}, {"optimizer": "rmsprop", "batch_size": "16,64"}]
    assert proposed(grids, "epochs=1") == [
        "optimizer=adam batch_size=32 epochs=1",
        "optimizer=sgd batch_size=32 epochs=1",
        "optimizer=rmsprop batch_size=16 epochs=1",
        "optimizer=rmsprop batch_size=64 epochs=1",
    ]
    assert len(proposed([*grids, grids[0]])) == 4, "what two grids have in common runs once"


def test_the_command_line_replaces_one_of_the_keys_that_change_together() -> None:
    together = {"batch_size,epochs": [[32, 1], [64, 2], [16, 1]]}
    assert proposed(together, "epochs=5") == [f"batch_size={size} epochs=5" for size in (32, 64, 16)]
    assert proposed(together, "batch_size=8") == ["epochs=1 batch_size=8", "epochs=2 batch_size=8"]
    assert proposed(together, "batch_size=8", "epochs=1,3") == [f"batch_size=8 epochs={n}" for n in (1, 3)]


def test_what_is_swept_is_recorded_as_it_is_run() -> None:
    def swept(params: Any, *typed: str) -> Mapping[str, str]:
        return made(params, *typed).swept

    assert swept({"optimizer": "adam,sgd", "seed": "0,1"}, "optimizer=rmsprop") == {"seed": "0,1"}
    assert swept([{"optimizer": "adam,sgd"}, {"optimizer": "lion", "seed": "0,1"}, {"optimizer": "nadam,muon"}]) == {
        "optimizer": "adam,sgd | lion | nadam,muon",
        "seed": "0,1",
    }
    assert proposed({"+batch_size": "8,16"}, "++batch_size=4") == ["++batch_size=4"]


@pytest.mark.parametrize(
    ("params", "where"),
    [
        ({"batch_size,epochs": [[64, 1]], "epochs": "1,2"}, "epochs"),
        ({"epochs": "1,2", "batch_size, epochs": [[64, 1]]}, "batch_size, epochs"),
        ({"batch_size,batch_size": [[64, 1]]}, "batch_size,batch_size"),
    ],
)
def test_a_key_that_comes_twice_is_refused(params: dict[str, Any], where: str) -> None:
    with pytest.raises(Refused) as caught:
        proposed({**params, "seed": "range("})
    found = {problem.where: problem.what for problem in caught.value.problems}
    assert list(found) == [f"hydra.sweeper.params.{where}", "hydra.sweeper.params.seed"]
    assert "a second time" in found[f"hydra.sweeper.params.{where}"]


def test_keys_change_together() -> None:
    together = {"batch_size, epochs": [[32, 1], [64, 2]], "optimizer": "adam,sgd"}
    assert proposed(together) == [
        "batch_size=32 epochs=1 optimizer=adam",
        "batch_size=32 epochs=1 optimizer=sgd",
        "batch_size=64 epochs=2 optimizer=adam",
        "batch_size=64 epochs=2 optimizer=sgd",
    ]


@pytest.mark.parametrize("value", ["1,2", [1, 2], [[1, 2], [3]], {"a": 1}])
def test_values_of_keys_that_change_together_are_lists(value: Any) -> None:
    with pytest.raises(Refused, match="expected a list of lists with a value for each of batch_size, epochs"):
        proposed({"batch_size,epochs": value})


def test_too_many_runs_of_several_grids_are_refused() -> None:
    with pytest.raises(Refused, match="the sweep has 1,200 runs"):
        proposed([{"epochs": "range(1,601)"}, {"epochs": "range(601,1201)"}])


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("x=linspace(0,1,5)", "x=0,0.25,0.5,0.75,1"),
        ("x=logspace(1e-4,1e-1,4)", "x=0.0001,0.001,0.01,0.1"),
        ("x=linspace(1,-1,3)", "x=1,0,-1"),
        ("x=choice(1,2)", "x=choice(1,2)"),
    ],
)
def test_numbers_at_equal_distances(text: str, written: str) -> None:
    assert spaced(text) == written


@pytest.mark.parametrize(
    "text", ["x=linspace(1,2)", "x=logspace(0,1,3)", "x=logspace(-1,1,3)", "x=linspace(a,1,3)", "x=linspace(0,1,1)"]
)
def test_numbers_at_equal_distances_are_three_numbers(text: str) -> None:
    with pytest.raises(Refused, match="expected two numbers") as refused:
        spaced(text)
    assert spaced(text, strict=False) == text
    remedy = refused.value.problems[0].remedy.strip("'")
    assert spaced(remedy) != remedy

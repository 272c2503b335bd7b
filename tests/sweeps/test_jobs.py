"""The jobs of a sweep, composed and checked before one starts."""

import pickle

import pytest
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf, open_dict

from experiments.config import Refused
from experiments.sweeps.composer import Composer
from experiments.sweeps.jobs import prepare

OVERRIDES = {
    "optimizer": ["adam", "sgd"],
    "+optimizer.clipnorm": ["1.0"],
    "model": ["lenet5", "mlp"],
    "seed": ["0", "7"],
    "callbacks": ["[early_stopping,csv_log]"],
    "metrics": ["[accuracy,auc]"],
    "data": ["digits"],
    "tracking.experiment": ["'a, b'"],
}


pytestmark = pytest.mark.usefixtures("hydra_here")


def loader() -> ConfigLoader:
    return GlobalHydra.instance().config_loader()


def master(*overrides: str) -> DictConfig:
    return loader().load_configuration("config", list(overrides), RunMode.MULTIRUN)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.fixed_dictionaries({}, optional={key: st.sampled_from(values) for key, values in OVERRIDES.items()}))
def test_a_job_is_what_hydra_itself_composes(chosen: dict[str, str]) -> None:
    overrides = [f"{key}={value}" for key, value in chosen.items()]
    sweep = master("hydra.sweep.dir=there")
    ours = Composer(loader(), sweep).compose(overrides)
    assert OmegaConf.to_container(ours) == OmegaConf.to_container(loader().load_sweep_config(sweep, overrides))


def test_a_job_does_not_change_the_next() -> None:
    composer = Composer(loader(), master())
    first = composer.compose(["seed=1", "data=digits"])
    with open_dict(first):
        first.data.name = "changed"
    assert composer.compose(["seed=2", "data=digits"]).data.name == "digits"


def test_jobs_have_names_folders_and_checked_configs() -> None:
    jobs = prepare([["data=digits", "seed=0"], ["data=digits", "seed=1"]], Composer(loader(), master()))
    assert [job.name for job in jobs] == ["seed=0", "seed=1"]
    assert [job.config.seed for job in jobs] == [0, 1]
    assert [job.folder.name for job in jobs] == ["0", "1"]
    assert jobs[0].folder.parent == jobs[1].folder.parent, "one folder for the sweep, whenever a job was composed"
    assert pickle.loads(jobs[1].composed).hydra.runtime.output_dir == str(jobs[1].folder)


def test_seeds_of_a_search_without_fixed_overrides_are_part_of_one_config() -> None:
    seeds = [["data=digits", f"seed={seed}"] for seed in range(2)]
    jobs = prepare(seeds, Composer(loader(), master()), common=[])
    assert [job.told_apart_by for job in jobs] == [tuple(each) for each in seeds]


def test_all_problems_of_all_jobs_are_named_once() -> None:
    combinations = [[f"epochs={epochs}", f"seed={seed}", "data=digits"] for epochs in (1, 0) for seed in (0, 1, -1)]
    with pytest.raises(Refused) as refused:
        prepare(combinations, Composer(loader(), master()))
    assert [problem.where for problem in refused.value.problems] == ["seed", "epochs"]
    assert "in 2 of 6 combinations: epochs=1 seed=-1 and 1 more" in str(refused.value)
    assert "in 3 of 6 combinations: epochs=0 seed=0 and 2 more" in str(refused.value)
    assert [problem.remedy for problem in refused.value.problems] == ["seed=0", "epochs=5"]


def test_what_cannot_run_is_left_out_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    combinations = [["data=digits", f"epochs={epochs}"] for epochs in (2, 0, 3)]
    jobs = prepare(combinations, Composer(loader(), master()), skip_invalid=True)
    assert [job.config.epochs for job in jobs] == [2, 3]
    told = capsys.readouterr().err
    assert told.startswith("1 of 3 combinations are left out:\n  epochs: got 0")


def test_nothing_is_left_to_run() -> None:
    with pytest.raises(Refused, match="epochs"):
        prepare([["data=digits", "epochs=0"]], Composer(loader(), master()), skip_invalid=True)


def test_a_config_that_is_nested_too_deeply_is_refused() -> None:
    deep = "tracking.tags=" + "{a:" * 300 + "1" + "}" * 300
    with pytest.raises(Refused, match="nested more than 100 levels deep"):
        prepare([["data=digits", deep]], Composer(loader(), master()))


def test_what_hydra_cannot_compose_is_refused() -> None:
    with pytest.raises(Refused, match="nonsense"):
        prepare([["data=digits", "model.nonsense=1"], ["data=digits"]], Composer(loader(), master()))


def test_a_job_writes_into_its_own_folder_only() -> None:
    """A preset among those that are swept may say otherwise."""
    jobs = [["data=digits", "seed=0"], ["data=digits", "hydra.output_subdir=.."]]
    with pytest.raises(Refused, match=r"hydra.output_subdir: got .., expected the name of a folder"):
        prepare(jobs, Composer(loader(), master()))

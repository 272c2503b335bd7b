"""The study of a search: exact after it was closed at any moment, with every sampler and pruner."""

import math
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, get_args

import optuna
import pytest
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from experiments.cli.checks import CONF
from experiments.config import Refused, RunFailed
from experiments.config.objective import Goal
from experiments.sweeps.search.parsing import parse
from experiments.sweeps.search.plan import describe, differences, latest_same
from experiments.sweeps.search.pruners import AnyPruner
from experiments.sweeps.search.samplers import AnySampler
from experiments.sweeps.search.settings import Settings
from experiments.sweeps.search.space import Space
from experiments.sweeps.search.study import FILE, Study

pytestmark = pytest.mark.usefixtures("hydra_here")
EPOCHS = 9
GOALS = [Goal("val_accuracy", False)]
OPENED: list[Study] = []
SPACES = {
    "numbers": ["optimizer.learning_rate=tag(log,interval(1e-4,1e-1))", "model.dropout=interval(0,0.5)"],
    "points": ["optimizer=adam,sgd,rmsprop", "batch_size=range(1,9)"],
}
FINITE = ("grid", "brute_force")
EXACT = ["tpe", "random", "grid", "qmc", "brute_force"]  # nsga2 has generations, which it does not promise to repeat
PRUNERS = ["median", "percentile", "hyperband", "successive_halving", "patient", "threshold", "off"]


def space_for(sampler: str) -> Space:
    return parse(SPACES["points" if sampler in FINITE else "numbers"], {}, GlobalHydra.instance().config_loader())


def settings(sampler: str = "random", pruner: str = "off", **more: Any) -> Settings:
    def of_file(kind: str, name: str) -> Any:
        return OmegaConf.to_container(OmegaConf.load(CONF / "hydra" / "sweeper" / kind / f"{name}.yaml"))

    chosen = {"sampler": of_file("sampler", sampler), "pruner": of_file("pruner", pruner)}
    if pruner == "threshold":
        chosen["pruner"]["lower"] = 0.1
    return Settings(**chosen, **more)


def trials_of(file: Path) -> list[FrozenTrial]:
    storage = RDBStorage(f"sqlite:///{file}")
    try:
        return optuna.load_study(study_name="search", storage=storage).trials
    finally:
        storage.remove_session()
        storage.engine.dispose()


@pytest.fixture(autouse=True)
def _files_are_closed() -> Iterator[None]:
    yield
    while OPENED:
        OPENED.pop().close()


def opened(file: Path, sampler: str, pruner: str) -> tuple[Study, Space]:
    chosen, space = settings(sampler, pruner), space_for(sampler)
    study = Study(["maximize"], chosen.sampler.build(space, 3), chosen.pruner.build(EPOCHS))
    study.open(file, describe(space, GOALS, chosen, "f"))
    OPENED.append(study)
    return study, space


def curve(overrides: list[str]) -> Iterator[float]:
    """Values by epoch that follow from the overrides alone."""
    quality = math.fmod(sum(map(ord, "".join(overrides))) / 97, 1)
    yield from (quality * (1 - 0.7**epoch) for epoch in range(1, EPOCHS + 1))


def carry_out(file: Path, sampler: str, pruner: str, trials: int, interrupted: bool) -> list[tuple[Any, ...]]:
    """Search; if it is interrupted, the study is forgotten and opened again, at another moment of each trial."""
    study, space = opened(file, sampler, pruner)

    def again() -> Study:
        study.close()
        return opened(file, sampler, pruner)[0]

    while len(study.trials) < trials and not study.exhausted:
        number, overrides = study.ask(space)
        moments = [(1,), (4,), ("ended",), ("told",), (1, 4, "ended", "told")][number % 5] if interrupted else ()
        values, epoch, stops = list(curve(overrides)), 0, False
        while epoch < EPOCHS and not stops:
            epoch += 1
            if now := epoch in moments:
                study = again()
            for repeated in range(1, epoch + 1) if now else [epoch]:
                stops = study.report(number, repeated, values[repeated - 1])
                assert not (stops and repeated < epoch)
        if "ended" in moments:
            study = again()
            answers = [study.report(number, repeated, values[repeated - 1]) for repeated in range(1, epoch + 1)]
            assert answers[-1] == stops
        state = TrialState.PRUNED if stops else TrialState.COMPLETE
        study.tell(number, state, {"pruned": epoch if stops else 0}, None if stops else [values[-1]])
        study = again() if "told" in moments and not study.exhausted else study
    study.close()
    found = trials_of(file)
    return [(t.number, t.state, t.params, t.values, t.intermediate_values, t.system_attrs) for t in found]


@pytest.mark.one_version
@pytest.mark.parametrize(
    ("sampler", "pruner"), [*((sampler, "median") for sampler in EXACT), *(("tpe", pruner) for pruner in PRUNERS[1:])]
)
def test_an_interrupted_search_is_the_same_as_one_that_was_not(tmp_path: Path, sampler: str, pruner: str) -> None:
    whole = carry_out(tmp_path / "whole.sqlite", sampler, pruner, 11, interrupted=False)
    pieces = carry_out(tmp_path / "pieces.sqlite", sampler, pruner, 11, interrupted=True)
    assert pieces == whole
    assert len({str(each[2]) for each in whole}) == 11
    if pruner not in ("off", "patient"):
        assert {each[1] for each in whole} == {TrialState.PRUNED, TrialState.COMPLETE}


@pytest.mark.parametrize("pruner", ["median", "successive_halving", "hyperband"])
def test_a_trial_whose_run_had_ended_keeps_its_curve(tmp_path: Path, pruner: str) -> None:
    """The search was interrupted after the run had ended, or in a run of another seed: no epoch is repeated."""

    def carry_out(file: Path, interrupted: bool) -> list[tuple[Any, ...]]:
        study, space = opened(file, "tpe", pruner)
        for _ in range(6):
            number, overrides = study.ask(space)
            ended = 0
            for epoch, value in enumerate(curve(overrides), start=1):
                if study.report(number, epoch, value):
                    ended = epoch
                    break
            if interrupted:
                study.close()
                study, _ = opened(file, "tpe", pruner)
                study.repeat(number)
            state = TrialState.PRUNED if ended else TrialState.COMPLETE
            study.tell(number, state, {"pruned": ended}, None if ended else [list(curve(overrides))[-1]])
        study.close()
        found = trials_of(file)
        return [(t.number, t.state, t.params, t.values, t.intermediate_values, t.system_attrs) for t in found]

    whole, pieces = (carry_out(tmp_path / f"{each}.sqlite", each) for each in (False, True))
    assert pieces == whole


def test_the_best_is_one_of_those_with_the_most_seeds(tmp_path: Path) -> None:
    study, space = opened(tmp_path / FILE, "random", "off")
    for values in ([[0.9]], [[0.7], [0.8]], [[0.8], [0.9]]):
        number, _ = study.ask(space)
        study.tell(number, TrialState.COMPLETE, {"values": values}, [sum(value for [value] in values) / len(values)])
    assert [best.number for best in study.best] == [2]
    number, _ = study.ask(space)
    study.tell(number, TrialState.COMPLETE, {"values": [[0.9], [1.0]]}, [0.95], {"parameters": 1})
    assert [best.number for best in study.best] == [2]


@pytest.mark.parametrize("sampler", FINITE)
def test_a_finite_space_is_exhausted(tmp_path: Path, sampler: str) -> None:
    found = carry_out(tmp_path / FILE, sampler, "off", 100, interrupted=False)
    assert len(found) == len({str(each[2]) for each in found}) == 24


def test_a_genetic_search_goes_on(tmp_path: Path) -> None:
    found = carry_out(tmp_path / FILE, "nsga2", "off", 8, interrupted=True)
    assert [each[0] for each in found] == list(range(8))


def test_an_epoch_that_is_repeated_gets_the_same_answer(tmp_path: Path) -> None:
    study, space = opened(tmp_path / FILE, "random", "threshold")
    number, _ = study.ask(space)
    answers = [study.report(number, epoch, value) for epoch, value in ((1, 0.5), (2, 0.05), (1, 0.5), (2, 0.05))]
    assert answers == [False, True, False, True]


def test_a_trial_is_in_the_file_whole_before_it_starts(tmp_path: Path) -> None:
    study, space = opened(tmp_path / FILE, "tpe", "median")
    number, overrides = study.ask(space)
    [trial] = trials_of(tmp_path / FILE)
    assert (trial.number, trial.state) == (number, TrialState.RUNNING)
    assert space.of(trial.params) == overrides


def test_what_has_changed_is_named(tmp_path: Path) -> None:
    study, space = opened(tmp_path / FILE, "random", "off")
    study.close()
    file = tmp_path / FILE
    assert differences(file, describe(space, GOALS, settings("random", "off"), "f")) == []
    other = parse(["model.dropout=interval(0,0.6)", "batch_size=1,2"], {}, GlobalHydra.instance().config_loader())
    changed = settings("random", "off").model_copy(update={"constraints": {"parameters": 9}, "seeds": [1]})
    now = describe(other, [Goal("val_loss", True)], changed, "f")
    found = {each.where: each.what for each in differences(file, now)}
    assert found == {
        "optimizer.learning_rate": "was tag(log,interval(1e-4,1e-1)) when the search began, is not searched now",
        "model.dropout": "was interval(0,0.5) when the search began, is interval(0,0.6) now",
        "batch_size": "was not searched when the search began, is 1,2 now",
        "objective": "was val_accuracy max when the search began, is val_loss min now",
        "hydra.sweeper.seeds": "was [] when the search began, is [1] now",
        "hydra.sweeper.constraints": "was {} when the search began, is {'parameters': 9} now",
    }
    [problem] = differences(file, describe(space, GOALS, settings("random", "off"), "other"))
    assert "code, data, versions, flags or values of all trials were others" in problem.what


@pytest.mark.parametrize("content", [b"", b"no database at all, but long enough to be one" * 50])
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes) -> None:
    _, space = opened(tmp_path / "other", "random", "off")
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(Refused, match="cannot be read"):
        differences(tmp_path / FILE, describe(space, GOALS, settings("random", "off"), "f"))


def test_a_grid_goes_on_with_its_seed_only(tmp_path: Path) -> None:
    """Its trials are places in an order that the seed decides."""
    study, space = opened(tmp_path / FILE, "grid", "off")
    study.close()
    now = describe(space, GOALS, settings("grid", "off").model_copy(update={"seed": 1}), "f")
    [problem] = differences(tmp_path / FILE, now)
    assert problem.where == "hydra.sweeper.seed"
    assert problem.what == "was 0 when the search began, is 1 now"
    [problem, _] = differences(tmp_path / FILE, describe(space, GOALS, settings("random", "off"), "f"))
    assert problem.what == "was grid when the search began, is another one now"


def test_fewer_trials_than_have_ended_or_go_on_are_refused(tmp_path: Path) -> None:
    study, space = opened(tmp_path / FILE, "random", "off")
    for _ in range(3):
        number, _ = study.ask(space)
        study.tell(number, TrialState.FAIL, {})
    study.close()

    def new_study() -> Study:
        return Study(["maximize"], settings().sampler.build(space, 3), settings().pruner.build(EPOCHS))

    found = describe(space, GOALS, settings("random", "off"), "f")
    enough, too_few = (settings().model_copy(update={"n_trials": count}) for count in (3, 2))
    assert latest_same([tmp_path], found, space, new_study, enough) == tmp_path
    with pytest.raises(Refused, match=r"got 2, but 3 trials .* have ended\s+try  hydra\.sweeper\.n_trials=3"):
        latest_same([tmp_path], found, space, new_study, too_few)
    study, space = opened(tmp_path / FILE, "random", "off")
    study.ask(space)
    study.close()
    with pytest.raises(Refused, match=r"but 4 trials .* have ended, or go on \(1\)\s+try  hydra\.sweeper\.n_trials=4"):
        latest_same([tmp_path], found, space, new_study, enough)


DAMAGES = (
    "UPDATE alembic_version SET version_num = 'zzz'",
    "UPDATE study_user_attributes SET value_json = '{broken' WHERE key = 'space'",
    'UPDATE trial_params SET distribution_json = \'{"name": "Evil", "attributes": {}}\'',
    "UPDATE trial_user_attributes SET value_json = '7' WHERE key = 'sampled'",
    "INSERT INTO trial_user_attributes (trial_id, key, value_json) VALUES (1, 'values', '7')",
    "UPDATE trial_params SET param_value = 0, distribution_json = "
    '\'{"name": "CategoricalDistribution", "attributes": {"choices": ["${oc.env:SECRET}"]}}\'',
    "UPDATE trial_params SET param_value = 1e6",
    "DELETE FROM trial_params",
    "UPDATE trials SET state = 'COMPLETED'",
    "DROP TABLE trials",
)


@pytest.mark.parametrize("statement", [*DAMAGES, None])
def test_a_study_that_cannot_be_read_is_refused_and_an_older_one_goes_on(tmp_path: Path, statement: str | None) -> None:
    folders = [tmp_path / "new", tmp_path / "old"]
    for folder in folders:
        folder.mkdir()
        study, space = opened(folder / FILE, "random", "off")
        study.ask(space)
        study.close()
    found = describe(space, GOALS, settings("random", "off"), "f")

    def new_study() -> Study:
        return Study(["maximize"], settings().sampler.build(space, 3), settings().pruner.build(EPOCHS))

    assert latest_same(folders, found, space, new_study, settings()) == folders[0]
    if statement:
        with closing(sqlite3.connect(folders[0] / FILE)) as file, file:
            file.execute(statement)
    else:
        (folders[0] / FILE).write_bytes(b"")
    before = (folders[0] / FILE).read_bytes()
    assert latest_same(folders, found, space, new_study, settings()) == folders[1]
    with pytest.raises(Refused, match="cannot be read"):
        latest_same(folders[:1], found, space, new_study, settings())
    assert (folders[0] / FILE).read_bytes() == before


def test_a_file_that_cannot_be_written_ends_the_search_in_one_line(tmp_path: Path) -> None:
    study, space = opened(tmp_path / FILE, "random", "off")
    with closing(sqlite3.connect(tmp_path / FILE)) as other:
        other.execute("DROP TABLE trial_params")
    with pytest.raises(RunFailed, match=r"study\.sqlite cannot be written: no such table: trial_params"):
        study.ask(space)


@pytest.mark.parametrize(("kind", "schema"), [("sampler", AnySampler), ("pruner", AnyPruner)])
def test_each_method_has_a_file_with_its_defaults(kind: str, schema: Any) -> None:
    methods = get_args(get_args(schema)[0])
    files = {file.stem for file in (CONF / "hydra" / "sweeper" / kind).glob("*.yaml")}
    assert files == {get_args(method.model_fields["name"].annotation)[0] for method in methods}
    for name in files:
        built = getattr(settings(**{kind: name}), kind)
        defaults = {key: field.default for key, field in type(built).model_fields.items() if not field.is_required()}
        given = built.model_dump()
        differing = {key for key, value in defaults.items() if given[key] != value}
        assert differing <= {"lower"}


@pytest.mark.parametrize("sampler", FINITE)
def test_a_finite_sampler_refuses_infinitely_many_values(sampler: str) -> None:
    with pytest.raises(Refused, match="has infinitely many values"):
        settings(sampler).sampler.build(space_for("tpe"), 0)


def test_a_grid_refuses_keys_that_depend_on_a_choice() -> None:
    params = {"optimizer": {"sgd": {"optimizer.momentum": "0,0.9"}, "adam": None}}
    with pytest.raises(Refused, match="knows no keys that depend on a choice"):
        settings("grid").sampler.build(parse([], params, GlobalHydra.instance().config_loader()), 0)

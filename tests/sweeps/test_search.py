"""A search: which trials it proposes, and what becomes of it through the command line."""

import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from optuna.trial import FrozenTrial

from experiments.config import Problem, Refused
from experiments.sweeps.composer import Composer
from experiments.sweeps.jobs import Job, Outcome, prepare
from experiments.sweeps.proposers.optuna import Search, propose
from experiments.sweeps.search.study import FILE
from tests.prepared import Started
from tests.sweeps.processes import children, query, sweep, wait_until
from tests.sweeps.search.test_study import settings, trials_of

RunCli = Callable[..., CompletedProcess[str]]
DIGITS = ("data=digits", "data.limit=300", "data.validation_size=0.25", "epochs=4", "model.layer_sizes=[8]")
SPACE = ("optimizer=choice(adam,sgd)", "optimizer.learning_rate=tag(log,interval(1e-3,1e-1))")
SEARCH = ("hydra/sweeper=optuna", "hydra.launcher.workers=1", *DIGITS)
MEDIAN = ("hydra/sweeper/pruner=median", "hydra.sweeper.pruner.n_startup_trials=2")
FINITE = ("batch_size=16,32,64", "optimizer=adam,sgd")


def study(folder: Path) -> list[FrozenTrial]:
    [file] = folder.glob(f"mlruns/multirun/*/*/{FILE}")
    return trials_of(file)


def facts(trials: list[FrozenTrial]) -> list[tuple[Any, ...]]:
    """All of trials that has to be the same in the same search."""
    return [(each.number, each.state.name, each.params, each.values, each.intermediate_values) for each in trials]


@pytest.fixture
def search(hydra_here: None, tmp_path: Path) -> Iterator[Callable[..., Search]]:
    """Make searches on digits, whose studies are in an empty folder."""
    loader = GlobalHydra.instance().config_loader()
    composer = Composer(loader, loader.load_configuration("config", [], RunMode.MULTIRUN))
    made: list[Search] = []

    def make(
        *overrides: str, prepare_jobs: Callable[..., list[Job]] = prepare, begins: bool = True, **keys: Any
    ) -> Search:
        fixed = [*DIGITS, "tracking=off"]
        found = propose(settings(**keys), [*fixed, *overrides], loader, partial(prepare_jobs, composer=composer))
        if begins:
            found.begin(tmp_path)
        made.append(found)
        return found

    yield make
    for each in made:
        each.close()


def carry_out(search: Search, result: Callable[[Job], Outcome]) -> list[Job]:
    """Run all jobs, one at a time; return them."""
    jobs = []
    while job := search.next():
        jobs.append(job)
        search.tell(job, result(job))
    return jobs


def by_batch_size(job: Job) -> Outcome:
    return Outcome(job.config.batch_size / 100 + job.config.seed / 1000)


def test_trials_are_proposed_up_to_the_total(search: Callable[..., Search]) -> None:
    found = search(*SPACE, n_trials=5)
    jobs = carry_out(found, by_batch_size)
    assert found.done == found.total == 5
    assert [job.tags for job in jobs] == [{"trial": str(number)} for number in range(5)]
    assert [job.number for job in jobs] == list(range(5))
    assert all(job.name.startswith("optimizer=") for job in jobs), "what all trials have is no part of a name"
    assert not any(job.asks for job in jobs), "there is no pruner"


def test_the_same_seed_proposes_the_same_trials(search: Callable[..., Search], tmp_path: Path) -> None:
    first = [job.overrides for job in carry_out(search(*SPACE, sampler="tpe", n_trials=12), by_batch_size)]
    (tmp_path / FILE).unlink()
    assert first == [job.overrides for job in carry_out(search(*SPACE, sampler="tpe", n_trials=12), by_batch_size)]
    (tmp_path / FILE).unlink()
    other = [job.overrides for job in carry_out(search(*SPACE, sampler="tpe", n_trials=12, seed=1), by_batch_size)]
    assert not set(first) & set(other)


@pytest.mark.parametrize("sampler", ["random", "tpe", "grid", "brute_force", "qmc"])
def test_a_finite_space_ends_when_every_point_was_tried(search: Callable[..., Search], sampler: str) -> None:
    """No point is run twice: a repeated one is answered by the first."""
    results: dict[str, Outcome] = {}
    ran: list[str] = []

    def result(job: Job) -> Outcome:
        if known := results.get(job.name):
            return Outcome(known.objective, repeats="run 1")
        ran.append(job.name)
        return results.setdefault(job.name, by_batch_size(job))

    found = search(*FINITE, sampler=sampler, n_trials=50)
    carry_out(found, result)
    assert len(ran) == len(set(ran)) == found.done == 6


@pytest.mark.parametrize("sampler", ["grid", "brute_force"])
def test_a_grid_whose_points_are_all_but_one_known_ends_with_that_one(
    search: Callable[..., Search], sampler: str
) -> None:
    """After many repeats, other samplers draw at random; a grid has its own order."""
    sizes = ",".join(map(str, range(1, 14)))
    found = search(f"batch_size={sizes}", sampler=sampler, n_trials=50)
    jobs = carry_out(found, lambda job: Outcome(0.5, repeats="" if job.number == 12 else "run 1"))
    assert len(jobs) == len({job.name for job in jobs}) == 13
    assert found.done == 1


def test_what_equals_a_trial_under_way_counts_toward_the_total(search: Callable[..., Search]) -> None:
    found = search("optimizer=adam,sgd,rmsprop", n_trials=2, reuse=False, sampler="random", seed=7)
    first = found.next()
    assert first
    assert found.next() is None, "the second trial is equal to the first"
    found.tell(first, Outcome(0.5))
    assert [job.name for job in carry_out(found, lambda job: Outcome(0.5))] == [first.name]
    assert found.done == 2


def test_a_trial_that_cannot_run_has_failed_and_is_no_hindrance_later(
    search: Callable[..., Search], capsys: pytest.CaptureFixture[str]
) -> None:
    def all_but_one(*arguments: Any, first: int = 0, **keywords: Any) -> list[Job]:
        if first == 1:
            raise Refused(Problem("batch_size", "does not go with the others"))
        return prepare(*arguments, first=first, **keywords)

    found = search("batch_size=range(1,9)", n_trials=3, prepare_jobs=all_but_one)
    assert len(carry_out(found, by_batch_size)) == 2
    assert "trial 1 cannot run: batch_size: does not go with the others" in capsys.readouterr().err
    again = search("batch_size=range(1,9)", n_trials=3)
    assert again.done == 3
    assert again.next() is None


def test_what_equals_a_trial_under_way_waits_for_it(search: Callable[..., Search]) -> None:
    found = search("batch_size=16,32", n_trials=50)
    first = found.next()
    second = found.next()
    assert first
    assert second
    assert first.config.batch_size != second.config.batch_size
    assert found.next() is None, "both points are under way"
    found.tell(first, Outcome(0.5))
    waiting = []
    while job := found.next():
        waiting.append(job)
        found.tell(job, Outcome(0.5, repeats="run 1"))
    assert {job.config.batch_size for job in waiting} <= {first.config.batch_size}
    found.tell(second, Outcome(0.6))
    carry_out(found, lambda job: Outcome(0.6, repeats="run 2"))
    assert found.done == 2


@pytest.mark.parametrize(("counted", "tried"), [(True, 4), (False, 6)])
def test_failed_trials_count_if_so_asked(search: Callable[..., Search], counted: bool, tried: int) -> None:
    found = search(*SPACE, n_trials=4, count_failed=counted)
    failing = {0, 1}
    jobs = carry_out(found, lambda job: Outcome(reason="NaN") if job.number in failing else Outcome(0.5))
    assert len(jobs) == tried


def test_no_trial_begins_after_the_timeout(search: Callable[..., Search], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(1000))
    monkeypatch.setattr("time.monotonic", lambda: float(next(clock)))
    found = search(*SPACE, n_trials=40, timeout=3.5)
    assert len(carry_out(found, by_batch_size)) == 3
    after = "hydra.sweeper.timeout=3.5 was over after 3 of 40 trials"
    assert found.remarks == [f"{after}; the same command with resume=true goes on"]


def test_a_search_says_that_no_trial_keeps_the_constraints(search: Callable[..., Search]) -> None:
    found = search(*SPACE, "tracking=mlflow", n_trials=2, constraints={"parameters": 9})
    carry_out(found, lambda job: Outcome(0.5, measures={"parameters": 10.0}))
    assert found.remarks == ["no trial keeps hydra.sweeper.constraints, so none is the best"]


def test_a_value_is_the_mean_over_the_seeds_of_promising_configs(search: Callable[..., Search], tmp_path: Path) -> None:
    found = search("batch_size=range(1,100)", n_trials=12, seeds=[0, 1, 2])
    jobs = carry_out(found, by_batch_size)
    by_trial: dict[int, list[Job]] = {}
    for job in jobs:
        by_trial.setdefault(int(job.tags["trial"]), []).append(job)
    assert [job.config.seed for job in by_trial[0]] == [0, 1, 2]
    runs = {number: len(of_trial) for number, of_trial in by_trial.items()}
    assert all(runs[number] == 3 for number in range(5)), "the first five configs are run with all seeds"
    for number in range(5, 12):
        first = by_trial[number][0].config.batch_size
        better = sum(by_trial[other][0].config.batch_size > first for other in range(number))
        assert (runs[number] > 1) == (better < (number + 1) / 2)
    assert len(jobs) < 36
    found.close()
    trials = trials_of(tmp_path / FILE)
    for trial in trials:
        first = by_trial[trial.number][0].config.batch_size
        assert trial.values == pytest.approx([first / 100 + (runs[trial.number] - 1) / 2000])


def test_a_failed_later_seed_is_there_when_the_search_goes_on(search: Callable[..., Search], tmp_path: Path) -> None:
    keys = {"n_trials": 1, "seeds": [0, 1, 2]}
    found = search("batch_size=range(1,100)", **keys)
    carry_out(found, lambda job: Outcome(0.5) if job.config.seed == 0 else Outcome(reason="it crashed"))
    found.close()
    again = search("batch_size=range(1,100)", begins=False, **keys)
    assert [job.config.seed for job in again.begin(tmp_path)] == [0, 1]


def test_all_configs_are_run_with_all_seeds_on_request(search: Callable[..., Search]) -> None:
    found = search("batch_size=range(1,100)", n_trials=8, seeds=[3, 4], seeds_for="all")
    assert [job.config.seed for job in carry_out(found, by_batch_size)] == [3, 4] * 8


def test_epochs_are_pruned_on_the_first_seed_only(search: Callable[..., Search]) -> None:
    found = search(*SPACE, pruner="threshold", n_trials=2, seeds=[0, 1])
    first = found.next()
    assert first
    assert first.asks
    assert not found.epoch(first, 1, {"val_accuracy": 0.5})
    found.tell(first, Outcome(0.5))
    second = found.next()
    assert second
    assert (second.config.seed, second.asks) == (1, False)
    assert not found.epoch(second, 1, {"val_accuracy": 0.0})
    found.tell(second, Outcome(0.5))
    third = found.next()
    assert third
    assert found.epoch(third, 1, {"val_accuracy": 0.0})
    found.tell(third, Outcome(0.0, pruned=1))
    assert found.next() is None, "a config that was stopped gets no other seed"


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A search that stops some of its trials, and its output."""
    folder = tmp_path_factory.mktemp("search")
    status, output = sweep(folder, *SEARCH, *SPACE, *MEDIAN, "hydra.sweeper.n_trials=8")
    assert status == 0, output
    return folder, output


def test_a_search_runs_stops_and_ranks_its_trials(done: tuple[Path, str]) -> None:
    folder, output = done
    lines = output.splitlines()
    assert lines[0] == "8 trials, one at a time, ranked by val_accuracy"
    states = [trial.state.name for trial in study(folder)]
    pruned = states.count("PRUNED")
    assert 0 < pruned < 6
    assert sum("stopped after epoch" in line for line in lines) == pruned
    assert [line.split()[0] for line in lines[1:9]] == [f"[{number}/8]" for number in range(1, 9)]
    table = [line for line in lines if re.match(r" *(\d+)? +(adam|sgd) ", line)]
    assert sum("PRUNED" in line for line in table) == pruned
    assert len(table) == 8


def test_the_parent_keeps_the_study_and_the_best_config(
    done: tuple[Path, str], fork_cli: RunCli, tmp_path: Path
) -> None:
    folder, _ = done
    [best] = folder.glob("mlruns/artifacts/*/artifacts/search/best.yaml")
    assert facts(study(folder)) == facts(trials_of(best.with_name(FILE)))
    pictures = {file.name for file in best.parent.glob("*.png")}
    assert pictures == {"history.png", "parallel_coordinates.png"}, "8 trials are too few for importances"
    value = max(trial.value for trial in study(folder) if trial.state.name == "COMPLETE")
    assert f" of a search of 8: val_accuracy {value:.6g}." in best.read_text().splitlines()[1]
    presets = tmp_path / "own" / "experiment"
    presets.mkdir(parents=True)
    shutil.copy(best, presets / "best.yaml")
    again = fork_cli("--config-dir", "own", "experiment=best")
    assert again.returncode == 0, again.stderr
    assert f"final_val_accuracy {value:.4f}" in again.stdout


def test_the_parent_has_the_best_values_and_the_epochs_as_metrics(done: tuple[Path, str]) -> None:
    folder, _ = done
    trials = study(folder)
    of_sweep = "SELECT m.key, m.step, m.value FROM metrics m JOIN tags t USING (run_uuid) WHERE t.key = 'sweep'"
    recorded = {(key, step): value for key, step, value in query(folder, of_sweep)}
    states = [trial.state.name for trial in trials]
    assert recorded["pruned_trials", 0] == states.count("PRUNED")
    assert recorded["finished_trials", 0] == states.count("COMPLETE")
    assert recorded["failed_trials", 0] == 0
    assert recorded["epochs", 0] == sum(len(trial.intermediate_values) for trial in trials)
    values = [trial.value if trial.state.name == "COMPLETE" else 0.0 for trial in trials]
    for number in range(len(trials)):
        assert recorded["best_so_far", number] == max(values[: number + 1])
    [report] = folder.glob("mlruns/artifacts/*/artifacts/report.html")
    assert f"8 trials: {states.count('COMPLETE')} finished, {states.count('PRUNED')} stopped early; " in (
        report.read_text()
    )


def test_what_cannot_be_drawn_does_not_fail_a_search(
    search: Callable[..., Search], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = search("batch_size=range(1,9)", "tracking=mlflow", n_trials=3)
    carry_out(found, by_batch_size)
    assert set(found.files()) > {"search/history.png", "search/study.sqlite", "search/best.yaml"}
    monkeypatch.setattr("experiments.sweeps.search.pictures._png", lambda figure: 1 / 0)
    assert set(found.files()) == {"search/study.sqlite", "search/best.yaml"}
    assert capsys.readouterr().err == "the search could not be drawn: ZeroDivisionError: division by zero\n"


def test_its_runs_are_recorded_with_trial_and_epoch(done: tuple[Path, str]) -> None:
    folder, _ = done
    tags = "SELECT t.value, r.status, p.value FROM tags t JOIN runs r USING (run_uuid)"
    pruned = " LEFT JOIN tags p ON p.run_uuid = t.run_uuid AND p.key = 'pruned' WHERE t.key = 'trial'"
    recorded = {int(trial): (status, after) for trial, status, after in query(folder, tags + pruned)}
    for trial in study(folder):
        after = str(trial.user_attrs["pruned"]) if trial.state.name == "PRUNED" else None
        assert recorded[trial.number] == ("FINISHED", after)
        if after:
            assert trial.last_step == int(after) < 4


def test_a_stopped_run_is_left_out_and_can_be_made_again(done: tuple[Path, str], fork_cli: RunCli) -> None:
    folder, _ = done
    [[stopped], *_] = query(folder, "SELECT run_uuid FROM tags WHERE key = 'pruned'")
    again = fork_cli(f"run={stopped}", module="reproduce", cwd=folder)
    assert again.returncode == 0, again.stderr
    assert "identical: all" in again.stdout
    refused = fork_cli(f"run={stopped}", module="promote", cwd=folder)
    assert refused.returncode == 2
    assert "is PRUNED; only a finished run can be promoted" in refused.stderr
    best = max((trial for trial in study(folder) if trial.state.name == "COMPLETE"), key=lambda trial: trial.value)
    predicted = fork_cli("run=best", module="predict", cwd=folder)
    number = query(folder, f"SELECT run_uuid FROM tags WHERE key = 'trial' AND value = '{best.number}'")[0][0]
    assert number in predicted.stdout, predicted.stdout


def test_a_search_that_was_killed_ends_as_one_that_was_not(
    done: tuple[Path, str], fork_start: Callable[..., Started], fork_cli: RunCli, tmp_path: Path
) -> None:
    command = ("-m", *SEARCH, *SPACE, *MEDIAN, "hydra.sweeper.n_trials=8")
    process = fork_start(*command)
    wait_until(lambda: len(children(tmp_path)) >= 3)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    ended = fork_cli(*command, "resume=true")
    assert ended.returncode == 0, ended.stderr
    assert re.match(r"resume: \d of 8 trials have ended, (0 go|1 goes) on\n", ended.stdout)
    assert facts(study(tmp_path)) == facts(study(done[0]))
    trials = [value for [value] in query(tmp_path, "SELECT value FROM tags WHERE key = 'trial'")]
    assert sorted(trials) == [str(number) for number in range(8)]
    assert {status for _, status, _ in children(tmp_path)} == {"FINISHED"}


def test_an_interrupted_search_shows_and_records_its_trials(
    fork_start: Callable[..., Started], fork_cli: RunCli, tmp_path: Path
) -> None:
    process = fork_start("-m", *SEARCH, *SPACE)
    wait_until(lambda: [status for _, status, _ in children(tmp_path)].count("FINISHED") >= 2)
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(timeout=60) == 130
    shown = (tmp_path / "out").read_text()
    assert re.search(r"^ *1 +(adam|sgd) +0\.\d+ +0\.\d+ ", shown, re.MULTILINE), shown
    [(best,)] = query(tmp_path, "SELECT value FROM latest_metrics WHERE key = 'best_objective'")
    assert best == max(value for [value] in query(tmp_path, "SELECT value FROM latest_metrics WHERE key = 'objective'"))
    assert list(tmp_path.glob("mlruns/artifacts/*/artifacts/report.html"))


def test_a_search_under_way_is_not_resumed(
    fork_start: Callable[..., Started], fork_cli: RunCli, tmp_path: Path
) -> None:
    command = ("-m", *SEARCH, *SPACE)
    process = fork_start(*command)
    wait_until(lambda: children(tmp_path))
    refused = fork_cli(*command, "resume=true")
    assert refused.returncode == 2, refused.stdout
    where = rf"this search is under way, in process {process.pid} \({tmp_path}/mlruns/multirun/\S+\)"
    assert re.fullmatch(rf"error: resume: {where}\n       try  resume=false\n", refused.stderr)
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert {status for _, status, _ in children(tmp_path)} <= {"FINISHED", "KILLED"}


def test_a_larger_total_goes_on_and_another_space_is_refused(
    done: tuple[Path, str], fork_cli: RunCli, tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(done[0], folder)
    other = "optimizer.learning_rate=tag(log,interval(1e-3,1))"
    refused = fork_cli("-m", *SEARCH, SPACE[0], other, *MEDIAN, "resume=true", cwd=folder)
    assert refused.returncode == 2
    what = "was tag(log,interval(1e-3,1e-1)) when the search began, is tag(log,interval(1e-3,1)) now"
    assert f"error: optimizer.learning_rate: {what}\n       try  resume=false\n" == refused.stderr
    command = ("-m", *SEARCH, *SPACE, *MEDIAN, "hydra.sweeper.n_trials=9", "resume=true")
    dry = fork_cli(*command, "hydra.sweeper.dry_run=true", cwd=folder)
    assert "resume: 8 of 9 trials have ended, 0 go on\ntime: about " in dry.stdout
    assert " for at most 1 run, 1 at a time, by " in dry.stdout
    assert facts(study(folder)) == facts(study(done[0]))
    more = fork_cli(*command, cwd=folder)
    assert more.returncode == 0, more.stderr
    head = ["resume: 8 of 9 trials have ended, 0 go on", "1 trial, one at a time, ranked by val_accuracy"]
    assert more.stdout.splitlines()[:2] == head
    assert facts(study(folder))[:8] == facts(study(done[0]))
    assert len(study(folder)) == 9


def test_a_search_without_a_record_and_with_failing_trials(fork_cli: RunCli, tmp_path: Path) -> None:
    rates = "optimizer.learning_rate=1e30,0.01"
    command = ("-m", *SEARCH, rates, "optimizer=sgd", "hydra/sweeper/sampler=brute_force", "hydra.sweeper.n_trials=2")
    ended = fork_cli(*command, "tracking=off")
    assert ended.returncode == 0, ended.stderr + ended.stdout
    assert "FAILED" in ended.stdout
    assert sorted(trial.state.name for trial in study(tmp_path)) == ["COMPLETE", "FAIL"]


def test_a_search_does_not_go_on_with_what_was_changed(
    done: tuple[Path, str], fork_cli: RunCli, tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(done[0], folder)
    more = ("hydra.sweeper.n_trials=9", "resume=true")
    seeds = fork_cli("-m", *SEARCH, *SPACE, *more, "hydra.sweeper.seeds=[1,2]", cwd=folder)
    assert seeds.returncode == 2
    assert "error: hydra.sweeper.seeds: was [] when the search began, is [1, 2] now" in seeds.stderr
    flags = fork_cli("-m", *SEARCH, *SPACE, *more, cwd=folder, TF_ENABLE_ONEDNN_OPTS="0")
    assert flags.returncode == 2
    assert "code, data, versions, flags or values of all trials were others" in flags.stderr


def test_what_has_finished_before_is_not_run_again(fork_cli: RunCli, tmp_path: Path) -> None:
    single = fork_cli(*DIGITS, "optimizer=adam", "batch_size=16")
    assert single.returncode == 0, single.stderr
    command = ("-m", *SEARCH, *FINITE, "hydra/sweeper/pruner=off", "hydra.sweeper.n_trials=20")
    first = fork_cli(*command)
    assert first.returncode == 0, first.stderr
    assert len(children(tmp_path)) == 5, "one of six was known"
    again = fork_cli(*command)
    assert again.returncode == 0, again.stderr
    assert len(children(tmp_path)) == 5, "all six were known"
    anew = fork_cli(*command, "hydra.sweeper.reuse=false", "hydra.sweeper.n_trials=2")
    assert anew.returncode == 0, anew.stderr
    assert len(children(tmp_path)) == 7


def test_several_objectives_have_a_front_and_constraints_are_kept(fork_cli: RunCli, tmp_path: Path) -> None:
    sizes = "model.layer_sizes=choice([4],[32],[8])"
    several = (*SEARCH, sizes, "hydra/sweeper/pruner=off", "epochs=2", "objective=[val_accuracy,parameters]")
    ended = fork_cli("-m", *several, "hydra/sweeper/sampler=brute_force")
    assert ended.returncode == 0, ended.stderr
    found = {tuple(trial.values) for trial in study(tmp_path)}
    assert {parameters for _, parameters in found} == {310, 610, 2410}
    best = max(found)
    front = {
        one for one in found if not any((a >= one[0] and b < one[1]) or (a > one[0] and b <= one[1]) for a, b in found)
    }
    marked = [line.split()[2:4] for line in ended.stdout.splitlines() if re.search(r"\d  \*  ", line)]
    assert {(value, parameters.replace(",", "")) for value, parameters in marked} == {
        (f"{value:.4f}", f"{parameters:.0f}") for value, parameters in front
    }
    files = {file.name for file in tmp_path.glob("mlruns/artifacts/*/artifacts/search/front/*.yaml")}
    assert len(files) == len(front)
    [preset] = tmp_path.glob("mlruns/artifacts/*/artifacts/search/best.yaml")
    assert f"val_accuracy {best[0]:.6g}, parameters {best[1]:.6g}." in preset.read_text()
    compared = fork_cli("sweep=latest", module="compare")
    assert compared.stdout.count("  *  ") == len(front), compared.stdout

    limit = "hydra.sweeper.constraints={parameters: 500}"
    constrained = fork_cli("-m", *SEARCH, sizes, "epochs=2", "hydra/sweeper/sampler=brute_force", limit)
    assert constrained.returncode == 0, constrained.stderr
    table = [line.split() for line in constrained.stdout.splitlines() if re.match(r" *(1 )? +\[", line)]
    assert [(line[0], "INFEASIBLE" in line) for line in table] == [("1", False), ("[8]", True), ("[32]", True)] or [
        (line[0], "INFEASIBLE" in line) for line in table
    ] == [("1", False), ("[32]", True), ("[8]", True)]
    again = fork_cli("sweep=latest", module="compare")
    assert again.stdout.count("INFEASIBLE") == 2, again.stdout


@pytest.mark.parametrize(
    ("params", "refusal"),
    [
        (
            'nothing: 3, optimizer.learning_rat: "interval(0.1,0.2)"',
            "error: nothing: there is no such key; known: batch_size, ",
        ),
        ('optimizer.learning_rat: "interval(0.1,0.2)"', "did you mean 'learning_rate'?\n"),
        ("optimizer: {adam: null, sgdd: null}", "error: optimizer: there is no sgdd; did you mean 'sgd'? (in 1 of 2"),
        ("batch_size: [16, 32]", "there is no key to search; batch_size is one value, a list, where several are text"),
        ('"batch_size,epochs": [[64, 2], [32, 3]]', "a search has no keys that change together; a grid has: hydra/sw"),
    ],
)
def test_mistakes_in_the_file_of_a_space_are_named(fork_cli: RunCli, tmp_path: Path, params: str, refusal: str) -> None:
    file = tmp_path / "conf" / "search" / "own.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(f"# @package hydra.sweeper\nparams: {{{params}}}\n")
    ended = fork_cli("--config-dir", "conf", "-m", "hydra/sweeper=optuna", *DIGITS, "search=own")
    assert ended.returncode == 2, ended.stdout
    assert refusal in ended.stderr
    assert not (tmp_path / "mlruns").exists()


@pytest.mark.parametrize(
    ("word", "refusal"),
    [
        ("n_trials=5", "n_trials: there is no such key; it is a key of hydra/sweeper=optuna\n"),
        ("hydra.sweeper.timeout=5", "hydra.sweeper.timeout: there is no such key; it is a key of hydra/sweeper=opt"),
        ("workers=5", "workers: there is no such key; did you mean 'hydra.launcher.workers'?\n"),
        ("optimizer.learning_rate=interval(1e-4,1)", "optimizer.learning_rate: an interval has no values to try one"),
    ],
)
def test_what_is_for_searches_says_so_in_a_grid(fork_cli: RunCli, word: str, refusal: str) -> None:
    ended = fork_cli("-m", *DIGITS, "optimizer=adam,sgd", word)
    assert ended.returncode == 2, ended.stdout
    assert ended.stderr.startswith(f"error: {refusal}")
    assert re.search(r"\n       try  hydra/(sweeper=optuna|launcher)|\n       try  hydra\.launcher", ended.stderr)


def test_hydras_own_plugin_for_optuna_is_refused(run_cli: RunCli, tmp_path: Path) -> None:
    plugin = tmp_path / "site" / "hydra_plugins" / "hydra_optuna_sweeper"
    plugin.mkdir(parents=True)
    (plugin / "__init__.py").touch()
    node = (
        "ConfigStore.instance().store(group='hydra/sweeper/sampler', name='tpe', node={'_target_': 'x'}, provider='x')"
    )
    (plugin / "config.py").write_text(f"from hydra.core.config_store import ConfigStore\n{node}\n")
    refused = run_cli("-m", *SEARCH, *FINITE, PYTHONPATH=str(tmp_path / "site"))
    assert refused.returncode == 2
    what = "the package hydra-optuna-sweeper has a sweeper of the same name, and Hydra cannot tell them apart"
    assert refused.stderr == f"error: hydra/sweeper: {what}\n       try  pip uninstall hydra-optuna-sweeper\n"


def test_without_reuse_a_resumed_search_runs_everything_anew(fork_cli: RunCli, tmp_path: Path) -> None:
    random = ("hydra/sweeper/pruner=off", "hydra/sweeper/sampler=random", "hydra.sweeper.reuse=false")
    space = ("optimizer=adam,sgd,rmsprop,nadam,adamax", "hydra.sweeper.seed=2")
    command = ("-m", *SEARCH, *space, *random, "epochs=1", "resume=true")
    first = fork_cli(*command, "hydra.sweeper.n_trials=3")
    assert first.returncode == 0, first.stderr
    more = fork_cli(*command, "hydra.sweeper.n_trials=5")
    assert more.returncode == 0, more.stderr
    assert "known" not in more.stdout
    assert len(children(tmp_path)) == 5
    assert len({fingerprint for fingerprint, _, _ in children(tmp_path)}) < 5
    assert "the best of 5 trials" in more.stdout, more.stdout
    fewer = fork_cli(*command, "hydra.sweeper.n_trials=4")
    assert fewer.returncode == 2
    what = "error: hydra.sweeper.n_trials: got 4, but 5 trials of this search have ended\n"
    assert fewer.stderr == f"{what}       try  hydra.sweeper.n_trials=5\n"


@pytest.mark.parametrize(
    ("words", "refusal"),
    [
        (["seed=0,1"], "error: seed: a seed is no hyperparameter"),
        (["epochs=3"], "error: hydra.sweeper.params: there is no key to search"),
        ([*FINITE, "data.validation_size=0"], "error: objective: got test_accuracy, but a search chooses by it"),
        ([*FINITE, "objective=test_accuracy"], "error: objective: got test_accuracy, but a search chooses by it"),
        ([*FINITE, "hydra.sweeper.n_trials=0"], "error: hydra.sweeper.n_trials: got 0, expected"),
        ([*FINITE, "hydra.sweeper.seeds=[1,1]"], "error: hydra.sweeper.seeds: got [1, 1], expected each seed once"),
        ([*FINITE, "hydra/sweeper/pruner=medain"], "error: hydra/sweeper/pruner: there is no medain; did you mean"),
        (
            [*FINITE, "hydra/sweeper/pruner=percentile", "hydra.sweeper.pruner.n_warmup_steps=-1"],
            "error: hydra.sweeper.pruner.n_warmup_steps: got -1",
        ),
        ([*FINITE, "hydra/sweeper/pruner=threshold"], "error: hydra.sweeper.pruner: has neither a lower nor an upper"),
        (
            [*FINITE, "hydra/sweeper/pruner=threshold", "+hydra.sweeper.pruner={lower: 0.9, upper: 0.1}"],
            "error: hydra.sweeper.pruner.lower: got 0.9, which is not below hydra.sweeper.pruner.upper=0.1",
        ),
        (
            [*FINITE, "hydra.sweeper.sampler={group: true, multivariate: false}"],
            "error: hydra.sweeper.sampler.group: got true, but groups are of keys that are chosen together",
        ),
        ([*FINITE, "hydra.sweeper.sampler.n_ei_candidates=1000000000"], "error: hydra.sweeper.sampler.n_ei_candidates"),
        (
            [*FINITE, "hydra.sweeper.constraints={val_accuracy: 0.3}"],
            "error: hydra.sweeper.constraints.val_accuracy: is to be high, and a constraint is the largest value",
        ),
        (
            [*FINITE, "hydra.sweeper.n_trials=3,4", "hydra.sweeper.seeds=0,1"],
            "error: hydra.sweeper.n_trials: got 3,4, but this has one value in a sweep\n"
            "       try  hydra.sweeper.n_trials=3\n"
            "error: hydra.sweeper.seeds: got several values without brackets, expected a list\n"
            "       try  hydra.sweeper.seeds=[0,1]\n",
        ),
        (
            [*FINITE, "hydra.sweeper.prunner=off"],
            "error: hydra.sweeper.prunner: there is no such key; did you mean 'pruner'?\n",
        ),
        (
            [*FINITE, "hydra/sweeper/pruner=median", "hydra.sweeper.pruner.percentile=10"],
            "error: hydra.sweeper.pruner.percentile: there is no such key; it is a key of hydra/sweeper/pruner=perc",
        ),
        (
            [*FINITE, "hydra.sweeper.constraints.parameters=5"],
            "error: hydra.sweeper.constraints.parameters: hydra.sweeper.constraints is null, it has no keys of its "
            "own\n"
            "       try  'hydra.sweeper.constraints={parameters: 5}'\n",
        ),
        (
            ["optimizer.learning_rate=log(interval(1e-4,1))"],
            "error: optimizer.learning_rate=log(interval(1e-4,1)): cannot be read as KEY=VALUE (HydraException while "
            "evaluating 'log(interval(1e-4,1))': Unknown function 'log')\n"
            "       try  'optimizer.learning_rate=tag(log,interval(1e-4,1))'\n",
        ),
        ([*FINITE, "hydra/launcher=basic"], "error: hydra/launcher: takes all jobs as one batch"),
        ([*FINITE, "objective=[val_accuracy,parameters]"], "error: objective: got 2: a trial can be stopped early for"),
        (
            [*FINITE, "hydra.sweeper.constraints={parametres: 9}"],
            "error: hydra.sweeper.constraints.parametres: is neither a cost nor a metric of the validation set; did",
        ),
        ([*FINITE, "hydra.sweeper.constraints={parameters: 9}", "tracking=off"], "error: tracking: costs of runs are"),
        (
            [*FINITE, "hydra.sweeper.constraints={val_loss: 1}", "hydra.sweeper.seeds=[0,1]"],
            "error: hydra.sweeper.constraints.val_loss: differs from seed to seed; with several seeds, parameters and",
        ),
        (
            ["batch_size=int(interval(1,2000000))", "hydra/sweeper/sampler=brute_force"],
            "error: hydra/sweeper/sampler: got brute_force, which tries all values, but batch_size=int(interval(1,2",
        ),
        ([*FINITE, "+tracking.tags.trial=x"], "error: tracking.tags.trial: is a tag that sweeps set themselves"),
        (["optimizer=adam,sgd", "optimizer.momentum=interval(0,1)"], "error: optimizer.momentum: not all choices have"),
        (
            ["epochs=interval(1,1)"],
            "error: epochs: got 1.0, expected a whole number\n       try  'epochs=int(interval(1,1))'\n",
        ),
        (["batch_size=choice(8,0)"], "error: batch_size: got 0"),
        (
            ["optimizer.clipnorm=choice(null,1)"],
            "error: optimizer.clipnorm=choice(null,1): cannot be read as KEY=VALUE (TypeError while evaluating "
            "'choice(null,1)': mismatch type argument args[0]: NoneType is incompatible with Union[str, int, float, "
            "bool, Dict[Any, Any], List[Any], ChoiceSweep])\n       try  optimizer.clipnorm=null,1\n",
        ),
        (
            [
                *FINITE,
                "hydra/sweeper/pruner=hyperband",
                "hydra.sweeper.pruner.min_resource=10",
                "hydra.sweeper.pruner.max_resource=2",
            ],
            "error: hydra.sweeper.pruner.max_resource: got 2, which is below hydra.sweeper.pruner.min_resource=10",
        ),
        (
            [*FINITE, "hydra.sweeper.constraints={parameters: -1, val_accuracy: 1}"],
            "error: hydra.sweeper.constraints.parameters: got -1, expected a number of at least 0\n"
            "error: hydra.sweeper.constraints.val_accuracy: is to be high",
        ),
        (
            ["loss=sparse_categorical_crossentropy,poisson", "objective=val_loss"],
            "error: objective: a search needs one",
        ),
    ],
)
def test_a_search_that_cannot_be_is_refused(fork_cli: RunCli, tmp_path: Path, words: list[str], refusal: str) -> None:
    ended = fork_cli("-m", "hydra/sweeper=optuna", *DIGITS, *words)
    assert ended.returncode == 2, ended.stdout
    assert ended.stderr.startswith(refusal), ended.stderr
    assert not (tmp_path / "mlruns").exists()

# ruff: noqa: E501 - tables are easier to read with a case on each line
"""``python -m experiments.compare`` on a store with a sweep, single runs and somebody else's; nothing is trained."""

import csv
import io
import itertools
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
import pytest

from experiments.cli.checks import CONF
from experiments.compare import compare_runs
from experiments.config import CompareConfig, Refused, check
from experiments.config.overrides import ids_as_text
from experiments.tracking.client import open_store

# MLflow's own, of SQLAlchemy.
pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")

RunCli = Callable[..., subprocess.CompletedProcess[str]]
REACHED = {"adam": (0.971, 0.974, 0.972), "rmsprop": (0.970, 0.973, 0.9712), "sgd": (0.90, 0.91, 0.89)}


class Store:
    """A store that is filled by MLflow's own client."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.client = open_store(f"sqlite:///{folder / 'mlruns' / 'mlflow.db'}")
        self.clock = 1_700_000_000_000
        self.experiments: dict[str, str] = {}

    def run(
        self,
        experiment: str,
        parameters: dict[str, str],
        objective: float | None = None,
        status: str = "FINISHED",
        /,
        **tags: str,
    ) -> str:
        from mlflow.entities import Metric, Param

        if experiment not in self.experiments:
            self.experiments[experiment] = self.client.create_experiment(experiment)
        self.clock += 1000
        tags = {key.replace("__", "."): value for key, value in tags.items()}
        name = " ".join(f"{key}={value}" for key, value in parameters.items())
        run = self.client.create_run(self.experiments[experiment], self.clock, tags, name)
        metrics = []
        if objective is not None:
            curve = [0.5, 0.9, objective]
            metrics = [Metric("val_accuracy", value, self.clock + step, step) for step, value in enumerate(curve)]
            metrics += [Metric("loss", 1 - value, self.clock + step, step) for step, value in enumerate(curve)]
            metrics += [
                Metric("objective", objective, self.clock, 2),
                Metric("test_accuracy", objective, self.clock, 2),
            ]
        self.client.log_batch(run.info.run_id, metrics, [Param(*item) for item in parameters.items()])
        self.client.set_terminated(run.info.run_id, status, self.clock + 2500)
        return str(run.info.run_id)


OURS = {"objective": "val_accuracy", "dataset": "digits", "dataset__digest": "d" * 64}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A sweep of three optimizers and three seeds with a failure, runs by the test set, on other data, of others."""
    made = Store(tmp_path_factory.mktemp("compare"))
    made.lost, made.resumed = (made.run("workers died", {"seed": "0,1"}, sweep="identity") for _ in range(2))
    for parent, tries in ((made.lost, [None]), (made.resumed, [None, 0.9])):
        for objective, seed in itertools.product(tries, "01"):
            parameters, status = ({}, "FAILED") if objective is None else ({"seed": seed}, "FINISHED")
            tags = {"mlflow__parentRunId": parent, "fingerprint__config": seed, **OURS}
            made.run("workers died", parameters, objective, status, **tags)
    parent = made.run("digits", {"seed": "0,1,2"}, sweep="identity")
    for name, reached in REACHED.items():
        own = {"adam": {"optimizer.beta_1": "0.9"}, "rmsprop": {"optimizer.rho": "0.9"}, "sgd": {}}[name]
        for seed, objective in enumerate(reached):
            parameters = {"epochs": "3", "seed": str(seed), "optimizer.name": name, "data.name": "digits", **own}
            parameters["runtime.threads"] = str(1 + seed % 2)
            made.adam = made.run("digits", parameters, objective, mlflow__parentRunId=parent, **OURS)
    lost = {"epochs": "3", "seed": "0", "optimizer.name": "lion", "data.name": "digits"}
    made.lion = made.run(
        "digits", lost, None, "FAILED", mlflow__parentRunId=parent, failure="the loss became nan", **OURS
    )
    by_test = {**OURS, "objective": "test_accuracy"}
    made.by_test = made.run("by test", {"epochs": "1", "data.name": "digits"}, 0.5, **by_test)
    made.run("by test", {"epochs": "2", "data.name": "digits"}, 0.6, **by_test)
    made.other = made.run("mnist", {"epochs": "1", "data.name": "mnist"}, 0.7, **{**OURS, "dataset": "mnist"})
    made.run("mnist", {"epochs": "1", "data.name": "digits"}, 0.7, **OURS)
    made.run("theirs", {"lr": "1"}, None)
    made.sweep = parent
    return made


@pytest.fixture
def call(
    store: Store, hydra_here: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Compare in this process; return what was printed."""
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.chdir(store.folder)

    def compare(*overrides: str) -> str:
        compare_runs(check(hydra.compose("compare", [*map(ids_as_text, overrides)]), CompareConfig))
        return capsys.readouterr().out

    return compare


def rows(output: str) -> list[list[str]]:
    return [line.split() for line in output.splitlines() if re.match(r" *\d |  +\w", line)][1:]


def test_the_latest_sweep_grouped_over_its_seeds(call: Callable[..., str], store: Store) -> None:
    output = call()
    assert output.startswith(f"seed=0,1,2, run {store.sweep} (10 runs)\n")
    assert [row[:2] for row in rows(output)[:3]] == [["1", "adam"], ["2", "rmsprop"], ["3", "sgd"]]
    assert rows(output)[0][2:6] == ["0.9723", "0.0038", "3", "="]
    assert "=" not in rows(output)[2]
    assert "▁" in rows(output)[0][6]
    assert "FAILED optimizer" not in output
    assert "FAILED epochs=3 seed=0 optimizer.name=lion data.name=digits: the loss became nan" in output
    assert "beta_1" not in output.split("FAILED")[0], "it follows from the optimizer"
    assert "threads" not in output, "the machine decided it"
    assert "error rate 5 % for all configs together; a difference below 0.0" in output
    assert call("sweep=latest") == call(f"sweep={store.sweep}") == call(f"sweep={store.sweep[:8]}") == output


def test_runs_that_failed_before_they_recorded_a_parameter_are_told_apart(
    call: Callable[..., str], store: Store
) -> None:
    lost, resumed = call(f"sweep={store.lost}"), call(f"sweep={store.resumed}")
    assert [output.splitlines()[0].partition(" (")[2] for output in (lost, resumed)] == ["2 runs)", "2 runs)"]
    assert ("FAILED" in lost, "FAILED" in resumed) == (True, False)


def test_runs_by_their_ids(call: Callable[..., str], store: Store) -> None:
    told = json.loads(call("format=json"))
    ids = [run["run_id"] for standing in told["standings"] for run in standing["runs"][:1]]
    output = call(f"runs=[{ids[0]},{ids[1][:8]}]")
    assert [row[1] for row in rows(output)] == ["adam", "rmsprop"]
    assert rows(output)[0][-1] == ids[0][:8]
    assert "one seed each" in output


def test_an_experiment(call: Callable[..., str]) -> None:
    assert [row[1] for row in rows(call("tracking.experiment=by test"))] == ["2", "1"]


def test_curves_are_read_whole(call: Callable[..., str]) -> None:
    [standing, *_] = json.loads(call("format=json"))["standings"]
    assert standing["runs"][0]["curves"] == {
        "loss": pytest.approx([0.5, 0.1, 0.029]),
        "val_accuracy": [0.5, 0.9, 0.971],
    }


@pytest.mark.parametrize(
    ("condition", "left"),
    [
        ("val_accuracy>0.95", ["adam", "rmsprop"]),
        ("optimizer=sgd", ["sgd"]),
        ("optimizer.name != sgd", ["adam", "rmsprop"]),
        ("seconds<=2.5", ["adam", "rmsprop", "sgd"]),
        ("ranked_by=val_accuracy", ["adam", "rmsprop", "sgd"]),
        ("rho=0.9", ["rmsprop"]),
    ],
)
def test_a_filter(call: Callable[..., str], condition: str, left: list[str]) -> None:
    told = json.loads(call(f'filter="{condition}"', "format=json"))
    names = [standing["runs"][0]["parameters"]["optimizer.name"] for standing in told["standings"]]
    assert names == left


def test_several_filters_and_an_order(call: Callable[..., str]) -> None:
    told = list(
        csv.DictReader(io.StringIO(call('filter=["status=FINISHED","seed<2"]', "sort=-optimizer", "format=csv")))
    )
    assert [row["optimizer.name"] for row in told] == ["sgd", "sgd", "rmsprop", "rmsprop", "adam", "adam"]
    assert call("format=markdown").startswith("|  | optimizer | val_accuracy | ± 95 % | n | = | curve | seconds |\n")


REFUSALS = [
    (["sweep=latest", "runs=[abcd1234]"], "runs: got a sweep and runs, expected one of them", "runs=[]"),
    (["filter=nonsense"], "filter: got 'nonsense', expected a key, one of", """'filter="status=FINISHED"'"""),
    (["filter=[nonsense,'seed<2']"], "filter: got 'nonsense', expected a key, one of", """'filter="seed<2"'"""),
    (['filter="optimizer>adam"'], "text is compared with = and !=", """'filter="optimizer=adam"'"""),
    (['filter="val_acuracy>0.95"'], "no run has val_acuracy; did you mean 'val_accuracy'?", """'filter="val_accuracy>0.95"'"""),
    (['filter="nope>1"'], "no run has nope; known: ", "filter=[]"),
    (['filter="epochs>99"'], "filter: none of the 10 runs fits: epochs>99; epochs is 3", "filter=[]"),
    (['filter=["seed<2","optimizer=nadam"]'], "seed<2 and optimizer=nadam; seed goes from 0 to 2; optimizer.name is adam or lion or", """'filter="seed<2"'"""),
    (['filter="val_accuracy>0.95, optimizer=adam && epochs=3"'], "expected conditions joined by and, or, not", """'filter="val_accuracy>0.95 and optimizer=adam and epochs=3"'"""),
    (['filter="optimizer=adam & val_accuracy>0.95"'], "expected conditions joined by", """'filter="optimizer=adam and val_accuracy>0.95"'"""),
    (['filter="val_acuracy>0.95 and epochs=3"'], "no run has val_acuracy; did you mean 'val_accuracy'?", """'filter="val_accuracy>0.95 and epochs=3"'"""),
    (["sort=optimzer.name"], "sort: no run has optimzer.name; did you mean 'optimizer.name'?", "sort=optimizer.name"),
    (["sort=-beta"], "sort: no run has beta; did you mean 'optimizer.beta_1'?", "sort=-optimizer.beta_1"),
    (["sort=lr"], "sort: no run has lr; known: ", "sort=null"),
    (["sweep=" + "0" * 31 + "a"], "sweep: there is no run", "sweep=latest"),
    (["runs=1e5"], "runs: there is no run '1e5' in this store", "runs=[] sweep=latest"),
    (["runs=best"], "runs: got best, expected ids of runs, or how they begin: runs=[ID,ID]; without runs", "runs=[]"),
    (["runs=[abcd1234,latest]"], "runs: got latest, expected ids of runs", "runs=[]"),
    (["runs=[nosuchrun]"], "runs: there is no run 'nosuchrun' in this store", "runs=[] sweep=latest"),
    (["runs=[x]"], "runs: there is no run 'x' in this store; give at least 4 characters of its id", "runs=[] sweep=latest"),
    (["tracking.experiment=digit"], "there is no experiment digit; did you mean 'digits'?", "tracking.experiment=digits"),
    (["tracking.experiment=zzz"], "there is no experiment zzz; known: ", "tracking.experiment=mnist"),
    (["tracking.experiment=mnist", "sweep=latest"], "sweep: no sweep is recorded", "sweep=null tracking.experiment=mnist"),
    (["tracking.experiment=theirs"], "says what it is ranked by", "tracking.experiment=mnist"),
    (["report=missing/page.html"], "report: there is no folder", "report=page.html"),
    (["format=html"], "format: got html, expected text or csv or json or markdown", ""),
]  # fmt: skip


@pytest.mark.parametrize(("overrides", "what", "remedy"), REFUSALS, ids=lambda item: str(item)[:40])
def test_refusals(call: Callable[..., str], overrides: list[str], what: str, remedy: str) -> None:
    with pytest.raises(Refused) as caught:
        call(*overrides)
    [problem] = caught.value.problems
    assert what in str(problem)
    if remedy:
        assert shlex.split(remedy) == shlex.split(problem.remedy) or remedy == problem.remedy
        if "report" not in overrides[0]:
            words = shlex.split(problem.remedy)
            given = [word.partition("=")[0] for word in words]
            replaced = [*(word for word in overrides if word.partition("=")[0] not in given), *words]
            assert call(*replaced) == call(*overrides, *words)


def test_a_refused_order_reads_no_curves(call: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.tracking.curves.with_curves", lambda *_: pytest.fail("curves are read"))
    with pytest.raises(Refused, match="sort: no run has"):
        call("sort=-learning")


def test_an_order_by_another_metric_is_shown(call: Callable[..., str]) -> None:
    output = call("sort=-test_accuracy")
    assert output.splitlines()[1].split()[-3:] == ["test_accuracy", "curve", "seconds"]
    assert [row[6] for row in rows(output)[:2]] == ["0.9723", "0.9714"]


def test_runs_that_cannot_be_compared_have_rankings_of_their_own(call: Callable[..., str], store: Store) -> None:
    chosen = f"runs=[{store.by_test},{store.other},{store.adam}]"
    groups = [
        "test_accuracy, higher is better, on digits dddddddddddd",
        "val_accuracy, higher is better, on mnist dddddddddddd",
        "val_accuracy, higher is better, on digits dddddddddddd",
    ]
    text = call(chosen)
    places = [text.index(f"measured as {group}:") for group in groups]
    assert text.startswith("chosen runs (3 runs)\n")
    assert min(places) > 0
    rows = list(csv.DictReader(io.StringIO(call(chosen, "format=csv"))))
    assert sorted(row["measured_as"] for row in rows) == sorted(groups)
    read = json.loads(call(chosen, "format=json"))
    assert sorted(group["measured_as"] for group in read) == sorted(groups)
    assert [len(group["standings"]) for group in read] == [1, 1, 1]
    assert call(chosen, "format=markdown").count("### measured as ") == 3
    assert "measured as" not in call(chosen, f"filter='measured_as={groups[0]}'")
    page = call(chosen, "report=groups.html", "sort=test_accuracy")
    assert f"report: groups.html, of the runs measured as {groups[2]}" in page


def test_a_sweep_and_its_runs_are_not_confused(call: Callable[..., str], store: Store) -> None:
    for typed, remedy in (
        (f"sweep={store.other}", f"sweep=null runs=[{store.other}]"),
        (f"sweep={store.lion}", f"sweep={store.sweep}"),
        (f"runs=[{store.sweep}]", f"runs=[] sweep={store.sweep}"),
        (f"runs=[{store.other},{store.sweep},{store.lion}]", f"runs=[{store.other},{store.lion}]"),
        (f"runs=[{store.other[:8]},abcd1234,{store.lion},x]", f"runs=[{store.other[:8]},{store.lion}]"),
    ):
        with pytest.raises(Refused, match=re.escape(f"try  {remedy}") + "$"):
            call(typed)
        assert call(typed, *remedy.split()) == call(*remedy.split())


def test_the_report_is_written_whole_or_not_at_all(
    call: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page.html"
    before = os.umask(0o027)
    assert call(f"report={page}").endswith(f"report: {page}\n")
    os.umask(before)
    assert page.stat().st_mode & 0o777 == 0o640
    text = page.read_text()
    assert "<html" in text
    assert "rmsprop" in text
    monkeypatch.setattr("experiments.ranking.report.page", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        call(f"report={page}")
    assert page.read_text() == text
    assert [file.name for file in tmp_path.iterdir()] == ["page.html"]


def test_through_the_shell(store: Store) -> None:
    """The quotes that the help tells to type."""
    [line] = [line for line in (CONF / "compare.yaml").read_text().splitlines() if "val_accuracy>0.97" in line]
    typed = line.split("experiments.compare ")[1].split("  ")[0]
    command = f"{sys.executable} -m experiments.compare {typed} tracking.experiment=digits sort=-val_accuracy"
    done = subprocess.run(command, shell=True, cwd=store.folder, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("experiment digits (")
    assert [row[1] for row in rows(done.stdout)] == ["adam", "rmsprop"]


def test_an_experiment_of_mlflow_is_no_preset(run_cli: Callable[..., Any]) -> None:
    done = run_cli("experiment=digits", "sweep=latest", module="compare")
    assert (done.returncode, done.stdout) == (2, "")
    assert "error: experiment: is a preset of experiments.run" in done.stderr
    assert "try  tracking.experiment=digits" in done.stderr


def test_how_far_a_sweep_is(tmp_path: Path, hydra_here: None, fork_cli: RunCli) -> None:
    """A trial with two seeds counts once; a run of another sweep that is kept counts, too."""
    made, tags = Store(tmp_path), {"sweep": "a" * 64, "sweep__total": "9", "sweep__unit": "trials", "sweep__kept": "1"}
    sweep = made.run("digits", {}, None, "RUNNING", **tags)
    nothing = fork_cli("sweep=latest", module="compare")
    assert nothing.stdout == f"sweep {sweep[:8]} is under way: 1 of 9 trials ended\n", nothing.stderr
    for trial, seed, objective, status, more in [
        ("0", "0", 0.8, "FINISHED", {}),
        ("0", "1", 0.9, "FINISHED", {}),
        ("1", "0", 0.7, "FINISHED", {}),
        ("1", "1", None, "RUNNING", {}),
        ("2", "0", 0.3, "FINISHED", {"pruned": "1"}),
        ("3", "0", None, "FAILED", {}),
        ("4", "0", None, "KILLED", {}),
    ]:
        parameters = {"epochs": "3", "seed": seed, "data.name": "digits", "batch_size": trial}
        made.run("digits", parameters, objective, status, mlflow__parentRunId=sweep, trial=trial, **OURS, **more)
    counts = "4 of 9 trials ended, 1 {}, 1 failed, 1 stopped early; best val_accuracy 0.8500"
    seen = fork_cli("sweep=latest", module="compare")
    under_way = f"sweep {sweep[:8]} is under way: {counts.format('running')}"
    assert seen.stdout.splitlines()[0] == under_way, seen.stderr
    as_csv = fork_cli("sweep=latest", "format=csv", module="compare")
    assert as_csv.stderr.splitlines()[0] == under_way
    assert as_csv.stdout.count("\n") == 8
    made.client.set_terminated(sweep, "KILLED")
    counts = counts.format("under way when it was")
    state = f"sweep {sweep[:8]} was interrupted: {counts}; the same command with resume=true goes on"
    assert fork_cli("sweep=latest", module="compare").stdout.splitlines()[0] == state
    made.client.set_terminated(sweep, "FINISHED")
    assert not fork_cli("sweep=latest", module="compare").stdout.startswith("sweep ")

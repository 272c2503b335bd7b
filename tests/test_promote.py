"""From a recorded run to MLflow's registry and on, against a real store; runs to choose from are made up beside one."""

import os
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hydra
import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput

from experiments.cli.checks import CONF
from experiments.config import PromoteConfig, Refused, check
from experiments.config.overrides import ids_as_text
from experiments.promote import promote
from experiments.tracking.runs import look_up
from tests.prepared import Prepared

RunCli = Callable[..., subprocess.CompletedProcess[str]]
Promote = Callable[..., str]
# MLflow itself, in this process, uses what SQLAlchemy has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
STEPS = (
    "create_registered_model",
    "create_model_version",
    "set_model_version_tag",
    "update_model_version",
    "set_logged_model_tags",
    "set_registered_model_alias",
)


DATA = ("dataset", "dataset.digest")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, prepared: Prepared) -> Path:
    """A folder in which one debug run was recorded."""
    place = tmp_path_factory.mktemp("promoted")
    done = prepared("experiments.run", "experiment=debug", cwd=place, env=os.environ)
    assert (done.returncode, done.stderr) == (0, "")
    return place


@pytest.fixture
def client(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MlflowClient]:
    uri = f"sqlite:///{folder / 'mlruns' / 'mlflow.db'}"
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(folder)
    mlflow.set_tracking_uri(uri)
    yield MlflowClient(uri, registry_uri=uri)
    mlflow.set_tracking_uri(None)


@pytest.fixture
def promoted(client: MlflowClient, capsys: pytest.CaptureFixture[str]) -> Promote:
    """The command, in this process: returns what it prints."""

    def call(*overrides: str) -> str:
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            config = hydra.compose("promote", [*map(ids_as_text, overrides)])
        promote(check(config, PromoteConfig))
        return capsys.readouterr().out

    return call


@pytest.fixture
def real(client: MlflowClient) -> Any:
    """The debug run."""
    (run,) = client.search_runs(_experiments(client), "tags.overrides = 'experiment=debug'")
    return run


def _experiments(client: MlflowClient) -> list[str]:
    return [item.experiment_id for item in client.search_experiments() if item.name == "digits"]


def made_up(client: MlflowClient, value: float, status: str = "FINISHED", model: bool = True, **tags: str) -> str:
    """Record a run as ours would be, without training; return its id."""
    (experiment,) = _experiments(client)
    ours = {"objective": "val_accuracy", "dataset": "digits", "dataset.digest": "d" * 64, "overrides": "made up"}
    run = client.create_run(experiment, run_name="made up", tags={**ours, **tags})
    client.log_metric(run.info.run_id, "objective", value)
    if model:
        logged = client.create_logged_model(experiment, "model", run.info.run_id)
        client.log_outputs(run.info.run_id, [LoggedModelOutput(logged.model_id, 0)])
        client.finalize_logged_model(logged.model_id, "READY")
    client.set_terminated(run.info.run_id, status)
    return run.info.run_id


def test_the_best_run_is_promoted_and_the_printed_commands_work(folder: Path, fork_cli: RunCli, client: Any) -> None:
    done = fork_cli(module="promote", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    first, chosen, predict, serve = done.stdout.splitlines()
    assert chosen.startswith("chosen as the only run measured as val_accuracy, higher is better, on digits ")
    assert re.fullmatch(r"digits@champion is version 1 \(run [0-9a-f]{32}, val_accuracy 0\.\d{4}\)", first)
    assert serve.endswith(" mlflow models serve -m models:/digits@champion --env-manager local")
    assert f"sqlite:///{folder}/mlruns/mlflow.db" in serve
    words = shlex.split(predict)
    assert words[:4] == ["predict", "python", "-m", "experiments.predict"]
    told = fork_cli(*words[4:], module="predict", cwd=folder)
    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout.startswith(f"run {re.search('[0-9a-f]{32}', first)[0]}")
    assert {path.name for path in folder.iterdir()} == {"mlruns"}


@pytest.mark.filterwarnings("ignore:.*type hint is inferred as AnyType")  # MLflow's, of a function of its own
def test_the_registered_model_loads_as_a_server_loads_it(promoted: Promote, real: Any) -> None:
    promoted(f"run={real.info.run_id}", "alias=served")
    model = mlflow.pyfunc.load_model("models:/digits@served")
    assert model.metadata.run_id == real.info.run_id
    assert model.predict(np.zeros((2, 8, 8, 1), np.float32)).sum() == pytest.approx(2, abs=1e-4)


def test_a_version_carries_its_evidence(promoted: Promote, client: MlflowClient, real: Any) -> None:
    promoted("run=latest", "name=evident")
    version = client.get_model_version_by_alias("evident", "champion")
    assert version.tags["run_id"] == version.run_id == real.info.run_id
    assert float(version.tags["value"]) == real.data.metrics["objective"]
    for key in ("objective", "dataset", "dataset.digest", "fingerprint"):
        assert version.tags[key] == real.data.tags[key]
    text = version.description
    assert f"**val_accuracy {real.data.metrics['objective']:.4f}** of run {real.info.run_id}" in text
    assert "- command: `python -m experiments.run 'experiment=debug'`" in text
    assert f"- data: digits, sha256 {real.data.tags['dataset.digest']}" in text
    assert f"| test_accuracy | {real.data.metrics['test_accuracy']:.6g} |" in text
    assert "- chosen: as the latest" in text
    assert "sweep" not in text
    assert '"evident"' in client.get_logged_model(real.outputs.model_outputs[0].model_id).tags["mlflow.modelVersions"]


def test_a_run_of_a_sweep_says_what_it_was_chosen_from(promoted: Promote, client: MlflowClient) -> None:
    parent = made_up(client, 0.5, model=False, sweep="identity")
    client.log_metric(parent, "finished_runs", 16)
    same = {"objective": "val_recall", "fingerprint.config": "same"}
    made_up(client, 0.1, **same)
    run_id = made_up(client, 0.5, **same, **{"mlflow.parentRunId": parent, "git.commit": "abc"})
    told = promoted("run=best", "name=swept")
    assert run_id in told
    text = client.get_model_version_by_alias("swept", "champion").description
    assert "- chosen: as the only run measured as val_recall, higher is better, on digits dddddddddddd" in text
    assert f"- sweep: run {parent}, made up, 16 finished runs" in text
    assert "- code: commit abc\n" in text


def test_promoting_again_changes_nothing(promoted: Promote, client: MlflowClient, real: Any) -> None:
    command = (f"run={real.info.run_id}", "name=again")
    assert "again@champion is version 1 (run" in promoted(*command)
    before = client.get_model_version("again", "1")
    assert ", as before\n" in promoted(*command)
    assert len(client.search_model_versions("name = 'again'")) == 1
    assert vars(client.get_model_version("again", "1")) == vars(before)


def test_it_says_what_was_replaced_and_warns_where_that_was_better(promoted: Promote, client: MlflowClient) -> None:
    worse, better = made_up(client, 0.8), made_up(client, 0.9)
    promoted(f"run={worse}", "name=replaced")
    told = promoted(f"run={better}", "name=replaced")
    assert told.startswith(
        f"replaced@champion was version 1 (run {worse}, val_accuracy 0.8000), "
        f"is now version 2 (run {better}, val_accuracy 0.9000)\n"
    )
    assert "did better" not in told
    back = promoted(f"run={worse}", "name=replaced")
    assert f"is now version 1 (run {worse}" in back
    assert "version 2 did better, by the same measure; to go back: " in back
    assert back.splitlines()[1].endswith(f"python -m experiments.promote run={better} name=replaced")
    assert len(client.search_model_versions("name = 'replaced'")) == 2


def test_what_cannot_be_compared_is_not(promoted: Promote, client: MlflowClient) -> None:
    promoted(f"run={made_up(client, 0.9)}", "name=apart")
    for tags in ({"objective": "val_loss"}, {"dataset.digest": "e" * 64}):
        other = made_up(client, 0.8, **tags)
        with pytest.raises(
            Refused, match=r"(?s)apart@champion is version \d, measured as .*try  force=true"
        ) as refused:
            promoted(f"run={other}", "name=apart")
        assert f"{other} was measured as {tags.get('objective', 'val_accuracy')}" in str(refused.value)
        assert "did better" not in promoted(f"run={other}", "name=apart", "force=true")
        promoted(f"run={made_up(client, 0.9)}", "name=apart", "force=true")
    assert "did better" not in promoted(f"run={made_up(client, 0.7, objective='val_loss')}", "name=less")
    assert "did better" in promoted(f"run={made_up(client, 0.8, objective='val_loss')}", "name=less")


def test_a_run_on_less_data_is_neither_the_best_nor_a_champion(promoted: Promote, client: MlflowClient) -> None:
    """Ten validation images, all right, are no proof; seeds are averaged; a lone lucky seed is not the best."""
    objective = {"objective": "val_precision"}

    def record(value: float, **parameters: Any) -> str:
        run_id = made_up(client, value, **objective)
        for key, setting in {"data.validation_size": 0.2, "data.limit": "null", **parameters}.items():
            client.log_param(run_id, key, setting)
        return run_id

    steady = [record(value, seed=seed, epochs=2) for seed, value in enumerate((0.90, 0.91))]
    for seed, value in enumerate((0.95, 0.5)):
        record(value, seed=seed, epochs=1)
    record(0.99, seed=0, epochs=3)
    debug = record(1.0, seed=0, epochs=2, **{"data.limit": 100, "data.validation_size": 0.1})
    assert f"(run {debug}" in promoted("run=best", "name=debugged")  # the newest can be compared with no other
    with pytest.raises(Refused, match="the two cannot be compared"):
        promoted(f"run={steady[0]}", "name=debugged")
    latest = record(0.2, seed=0, epochs=4)
    told = promoted("run=best", "name=whole")
    assert f"(run {steady[1]}, val_precision 0.9100)" in told
    assert "chosen as the best of 6 runs of 4 configs, by val_precision" in told
    assert "mean 0.9050 over 2 seeds" in told
    with pytest.raises(Refused, match="limit=100"):
        promoted(f"run={debug}", "name=whole")
    assert latest not in told


@pytest.mark.parametrize("step", STEPS)
def test_a_crash_between_the_steps_is_repaired(
    promoted: Promote, client: MlflowClient, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    run_id, name = made_up(client, 0.5), f"crash_{step}"

    class Crash(BaseException):
        pass

    def crash(*_: Any, **__: Any) -> None:
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, step, crash)
        with pytest.raises(Crash):
            promoted(f"run={run_id}", f"name={name}")
    told = promoted(f"run={run_id}", f"name={name}")
    assert told.startswith(f"{name}@champion is version 1 (run {run_id}, val_accuracy 0.5000)\n")
    (version,) = client.search_model_versions(f"name = '{name}'")
    assert version.tags.keys() == {*("run_id", "value", "objective", "objective.mode", "measured_as"), *DATA}
    assert version.description.startswith("**val_accuracy 0.5000**")
    (output,) = client.get_run(run_id).outputs.model_outputs
    assert name in client.get_logged_model(output.model_id).tags["mlflow.modelVersions"]


def test_a_version_that_somebody_registered_by_hand_is_taken(promoted: Promote, client: MlflowClient) -> None:
    run_id = made_up(client, 0.5)
    (output,) = client.get_run(run_id).outputs.model_outputs
    client.create_registered_model("manual")
    client.create_model_version("manual", f"models:/{output.model_id}", run_id, description="mine")
    assert "manual@champion is version 1 (run" in promoted(f"run={run_id}", "name=manual")
    version = client.get_model_version("manual", "1")
    assert (version.description, version.tags["value"]) == ("mine", "0.5")


@pytest.mark.parametrize(
    ("recorded", "message"),
    [
        ({"status": "FAILED"}, "is FAILED; only a finished run can be promoted"),
        ({"model": False}, "(FINISHED) left no model"),
        ({"model": False, "sweep": "identity"}, "is a sweep; choose one of its runs"),
    ],
)
def test_a_run_that_cannot_be_used_is_refused(
    promoted: Promote, client: MlflowClient, recorded: dict[str, Any], message: str
) -> None:
    run_id = made_up(client, 0.5, **recorded)
    with pytest.raises(Refused, match=re.escape(message)):
        promoted(f"run={run_id}", "name=never")
    assert not client.search_registered_models("name = 'never'")


def test_the_test_set_chooses_nothing(promoted: Promote, client: MlflowClient) -> None:
    (experiment,) = _experiments(client)
    hidden = client.search_runs([experiment], "tags.objective LIKE 'val_%'")
    for run in hidden:
        client.delete_run(run.info.run_id)
    made_up(client, 0.5, objective="test_accuracy")
    try:
        with pytest.raises(Refused, match="the test set must not choose a model"):
            promoted("run=best")
    finally:
        for run in hidden:
            client.restore_run(run.info.run_id)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("promote alias=v1", "alias: got 'v1', expected letters"),
        ("promote name=a/b", "name: got 'a/b', expected letters"),
    ],
)
def test_refusals_are_quick_and_say_what_there_is(
    folder: Path, run_cli: RunCli, tmp_path: Path, command: str, message: str
) -> None:
    (tmp_path / "mlflow.py").write_text("import os\nos._exit(99)\n")
    module, argument = command.split()
    done = run_cli(argument, module=module, cwd=folder, PYTHONPATH=str(tmp_path))
    assert done.returncode == 2, done.stderr
    assert message in done.stderr


def test_names_that_the_registry_lacks(folder: Path, client: MlflowClient, promoted: Promote, real: Any) -> None:
    promoted(f"run={real.info.run_id}")
    tracking: Any = SimpleNamespace(uri=None, enabled=True, experiment="")
    assert look_up("digits@champion", tracking).run_id == real.info.run_id
    assert look_up("digits@latest", tracking).run_id == real.info.run_id
    with pytest.raises(Refused, match="there is no 'nothing@latest' in this store's registry"):
        look_up("nothing@latest", tracking)
    with pytest.raises(Refused, match="there is no 'digits@champoin' in this store's registry; did you mean"):
        look_up("digits@champoin", tracking)
    with pytest.raises(Refused, match="there is no run"):
        look_up("0123456789abcdef0123456789abcdef", tracking)

"""The parent run of a sweep, on a real store, in one process."""

import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from experiments.config.schema import Tracking
from experiments.tracking import lock
from experiments.tracking.client import experiment, open_store
from experiments.tracking.process import process_name
from experiments.tracking.sweep_record import Opened, Sweep, SweepRecord

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's own


def asked_for(uri: str) -> Sweep:
    return Sweep(Tracking(enabled=True, uri=uri, experiment="e"), ["e"], ["seed=0,1"], "the same", {"seed": "0,1"})


def test_who_may_not_resume_a_sweep_leaves_it_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(lock, "PATIENCE", 0.1)
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = open_store(uri)
    sweep = asked_for(uri)
    first, second = SweepRecord(uri, own_process=False), SweepRecord(uri, own_process=False)
    first.open(sweep, resume=False)
    parent = first.begin()
    tags = {"mlflow.parentRunId": parent, "host": socket.gethostname(), "process": process_name(os.getpid())}
    child = client.create_run(experiment(client, "e", uri), tags=tags).info.run_id
    assert second.open(sweep, resume=True) == Opened(parent, under_way=True)
    second.abandon()  # it leaves after its refusal
    assert [client.get_run(run).info.status for run in (parent, child)] == ["RUNNING", "RUNNING"]
    client.set_terminated(child, "FINISHED")
    first.end("FINISHED", [])
    assert client.get_run(parent).info.status == "FINISHED"


def test_a_sweep_that_is_refused_before_it_begins_leaves_the_store_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    refused = SweepRecord(uri, own_process=False)
    assert refused.open(asked_for(uri), resume=True) == Opened("")
    refused.abandon()
    assert list(tmp_path.iterdir()) == []
    first = SweepRecord(uri, own_process=False)
    first.open(asked_for(uri), resume=False)
    parent = first.begin()
    first.end("FINISHED", [])
    refused = SweepRecord(uri, own_process=False)
    assert refused.open(asked_for(uri), resume=True) == Opened(parent, [])
    refused.abandon()
    assert open_store(uri).get_run(parent).info.status == "FINISHED"


def test_a_dead_worker_is_not_taken_for_an_earlier_one_of_the_same_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A system that counts its processes to 32768 gives numbers out again during a long sweep."""
    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = open_store(uri)
    record = SweepRecord(uri, own_process=False)
    record.open(asked_for(uri), resume=False)
    parent = record.begin()
    tags = {"mlflow.parentRunId": parent, "process": "77 1.00", "fingerprint.config": "seed=0"}
    tags["host"] = socket.gethostname()
    earlier = client.create_run(experiment(client, "e", uri), tags=tags).info.run_id
    client.set_terminated(earlier, "FINISHED")
    dead = record.settle(77, "FAILED", "killed", "seed=1", {"fingerprint.config": "seed=1"})
    assert (dead.status, dead.run_id == earlier) == ("FAILED", False)
    assert record.settle(77, "FAILED", "killed", "seed=0", {"fingerprint.config": "seed=0"}).run_id == earlier
    record.end("FAILED", [])


def test_an_added_key_can_be_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And be a parameter, though MLflow takes neither + nor @ in a name."""
    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    swept = {"+optimizer.clipnorm": "1,2", "optimizer@other": "adam,sgd"}
    record = SweepRecord(uri, own_process=False)
    record.open(replace(asked_for(uri), swept=swept), resume=False)
    parent = record.begin()
    assert open_store(uri).get_run(parent).data.params == {"optimizer.clipnorm": "1,2", "optimizer:other": "adam,sgd"}
    record.end("FINISHED", [])


def test_a_sweep_ends_where_none_of_its_runs_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was interrupted before, or all workers died while they imported TensorFlow."""
    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    record = SweepRecord(uri, own_process=False)
    record.open(asked_for(uri), resume=False)
    parent = record.begin()
    row = {
        "seed": "0",
        "objective": None,
        "measured_as": "val_accuracy",
        "status": "not run",
        "run_id": "",
        "name": "a",
    }
    record.end("KILLED", [row])
    assert open_store(uri).get_run(parent).info.status == "KILLED"

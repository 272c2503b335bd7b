"""Models, configs and reports of the record that are damaged or foreign: refused, and never executed."""

import json
import os
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import hydra
import pytest
from mlflow.entities import LoggedModelOutput

from experiments.cli.checks import CONF
from experiments.config import PredictConfig, Refused, check
from experiments.config.files import plain_value
from experiments.config.schema import Tracking
from experiments.engine import saved_models
from experiments.engine.saved_models import SavedModel
from experiments.predict import predict
from experiments.task import of
from experiments.tracking import sqlite
from experiments.tracking.artifacts import stored_text
from experiments.tracking.client import open_store
from experiments.tracking.curves import confusion_matrices
from experiments.tracking.rerun import checked_config
from experiments.tracking.runs import look_up
from tests.composed import digits, keras

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's own


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model of the digits."""
    file = tmp_path_factory.mktemp("model") / "model.keras"
    network = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(10, "softmax")])
    network.build((None, 8, 8, 1))
    network.save(file)
    return file


def tampered(model: Path, file: Path, change: Callable[[Any], Any]) -> Path:
    """A copy of a model, with another config."""
    with zipfile.ZipFile(model) as source, zipfile.ZipFile(file, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name == "config.json":
                changed = change(json.loads(content))
                content = changed if isinstance(changed, bytes) else json.dumps(changed).encode()
            target.writestr(name, content)
    return file


def used(file: Path, trust: tuple[str, ...] = ()) -> Any:
    """What the model makes of the digits, as `predict` has it."""
    saved = SavedModel(file, "run 3f2a: its model")
    return saved_models.predict(saved, saved_models.load(saved, trust), digits().test.x, of("classification"), "test")


def refusal(file: Path) -> str:
    with pytest.raises(Refused) as refused:
        used(file)
    return str(refused.value)


def test_a_model_is_used(model: Path) -> None:
    assert used(model).shape == (100, 10)


CONTENTS = {"empty": b"", "text": b"no model", "archive of nothing": b"PK\x05\x06" + bytes(18)}


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS.keys())
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "model.keras"
    file.write_bytes(content)
    assert refusal(file).startswith("error: run 3f2a: its model: is damaged, or not a model that Keras saved (")


def test_a_model_that_is_no_whole_file_is_refused(model: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.keras").write_bytes(model.read_bytes()[:-100])
    os.mkfifo(tmp_path / "fifo.keras")
    (tmp_path / "folder.keras").mkdir()
    tampered(model, tmp_path / "weights.keras", lambda config: config)
    with zipfile.ZipFile(tmp_path / "weights.keras", "w") as archive, zipfile.ZipFile(model) as source:
        archive.writestr("config.json", source.read("config.json"))
        archive.writestr("model.weights.h5", b"no weights")
    for name in ("cut", "fifo", "folder", "missing", "weights"):
        file = tmp_path / f"{name}.keras"
        assert refusal(file).startswith("error: run 3f2a: its model: is damaged, or not a model that Keras saved (")


def layer(**entry: Any) -> Callable[[Any], Any]:
    """A change of the last layer's entry."""

    def change(config: Any) -> Any:
        config["config"]["layers"][-1] |= entry
        return config

    return change


def activation(value: Any) -> Callable[[Any], Any]:
    def change(config: Any) -> Any:
        config["config"]["layers"][-1]["config"]["activation"] = value
        return config

    return change


def units(count: int) -> Callable[[Any], Any]:
    """A change of the number of units of the last layer."""

    def change(config: Any) -> Any:
        config["config"]["layers"][-1]["config"]["units"] = count
        return config

    return change


LAMBDA = {"class_name": "__lambda__", "config": {"value": "4wEAAAA=", "defaults": None, "closure": None}}
CONFIGS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "list": (lambda config: [config], "is damaged, or not a model"),
    "number": (lambda config: 3, "is damaged, or not a model"),
    "empty": (lambda config: {}, "is damaged, or not a model"),
    "no JSON": (lambda config: b"{", "is damaged, or not a model"),
    "too deep": (lambda config: b"[" * 100_000, "is damaged, or not a model"),
    "long number": (lambda config: b'{"a": ' + b"9" * 5000 + b"}", "is damaged, or not a model"),
    "too deep layers": (activation(json.loads("[" * 500 + "]" * 500)), "is damaged, or not a model"),
    "no module": (layer(module=None), "is damaged, or not a model"),
    "module that is a list": (layer(module=["keras"]), "needs the code of ['keras']"),
    "unknown layer": (layer(class_name="Dance"), "is damaged, or not a model"),
    "number for a name": (layer(class_name=3), "is damaged, or not a model"),
    "lambda layer": (layer(class_name="Lambda"), "the model holds code (Lambda)"),
    "lambda activation": (activation(LAMBDA), "the model holds code (__lambda__)"),
    "function of Python": (
        activation({"module": "builtins", "class_name": "function", "config": "eval"}),
        "is damaged",
    ),
    "class of Python": (layer(module="builtins", class_name="eval"), "is damaged, or not a model"),
    "function of a package": (
        activation({"module": "os", "class_name": "function", "config": "system"}),
        "needs the code of os",
    ),
    "tool of Keras": (layer(module="keras.utils", class_name="get_file"), "is damaged, or not a model"),
    "other shape": (layer(config={"name": "d", "units": 1}), "is damaged, or not a model"),
    "more weights than saved": (
        units(20_000_000),
        "its layers have 1,300,000,000 weights, and its file of weights has",
    ),
    "other input than built for": (layer(build_config={"input_shape": [None, 2**40]}), "is damaged, or not a model"),
    "saved model": (layer(class_name="TFSMLayer", config={"filepath": "x"}), "the model holds code (TFSMLayer)"),
}


@pytest.mark.parametrize(("change", "told"), CONFIGS.values(), ids=CONFIGS.keys())
def test_a_foreign_model_is_refused(model: Path, tmp_path: Path, change: Callable[[Any], Any], told: str) -> None:
    assert told in refusal(tampered(model, tmp_path / "model.keras", change))


def test_functions_of_a_trusted_package_are_found(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_activations.py").write_text("def double(x):\n    return 2 * x\n")
    monkeypatch.syspath_prepend(tmp_path)
    entry = {"module": "my_activations", "class_name": "function", "config": "double", "registered_name": "double"}
    file = tampered(model, tmp_path / "model.keras", activation(entry))
    assert used(file, ("my_activations",)).shape == (100, 10)
    gone = tampered(model, tmp_path / "gone.keras", activation(entry | {"config": "triple"}))
    with pytest.raises(Refused, match="code that cannot be imported"):
        used(gone, ("my_activations",))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tracking, str, Path]:
    """A store with a finished run, and where its artifacts lie."""
    file = tmp_path_factory.mktemp("store") / "mlflow.db"
    client = open_store(sqlite.address(file))
    run = client.create_run("0", tags={"objective": "val_accuracy"})
    client.log_param(run.info.run_id, "runtime.threads", "2")
    client.set_terminated(run.info.run_id)
    artifacts = Path(run.info.artifact_uri.removeprefix("file://"))
    (artifacts / "config").mkdir(parents=True)
    return Tracking(enabled=True, uri=sqlite.address(file)), run.info.run_id, artifacts


BOMB = "a: &a [x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n" for before, name in pairwise("abcdefghi")
)
YAMLS = {
    "bomb": BOMB,
    "recursive": "&a [*a]",
    "recursive mapping": "data: &a {path: *a}",
    "deep": "[" * 2000 + "]" * 2000,
    "code": "!!python/object/apply:os.abort []",
    "number without end": "a: " + "9" * 5000,
    "not closed": "a: [",
    "list": "[1, 2]",
    "nothing": "",
    "control characters": "a: \x00",
    "date that is none": "a: 2001-99-99",
    "data that is none": "data: 3",
}


@pytest.mark.parametrize("text", YAMLS.values(), ids=YAMLS.keys())
def test_a_foreign_config_is_refused(store: tuple[Tracking, str, Path], text: str) -> None:
    tracking, run_id, artifacts = store
    (artifacts / "config" / "config.yaml").write_text(text)
    with pytest.raises(Refused):
        checked_config(look_up(run_id, tracking))


def test_a_config_that_is_no_ordinary_file_is_refused(store: tuple[Tracking, str, Path]) -> None:
    tracking, run_id, artifacts = store
    file = artifacts / "config" / "config.yaml"
    file.unlink(missing_ok=True)
    os.mkfifo(file)
    with pytest.raises(Refused, match="has no readable config"):
        checked_config(look_up(run_id, tracking))
    file.unlink()
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(Refused, match="has no readable config"):
        _ = look_up(run_id, tracking).config
    file.unlink()
    file.mkdir()
    with pytest.raises(Refused, match="has no readable config"):
        _ = look_up(run_id, tracking).config
    file.rmdir()


def test_a_parameter_is_plain_data() -> None:
    assert [plain_value(text) for text in ("2", "true", "auto", "[1,2]")] == [2, True, "auto", [1, 2]]
    for text in (BOMB, "&a [*a]", "!!python/name:os.abort", "9" * 5000, "["):
        assert plain_value(text) == text


class Artifacts(BaseHTTPRequestHandler):
    """Serves the artifacts in a folder as MLflow's server does."""

    folder: Path

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        name, listed = address.path.partition("/artifacts")[2].strip("/"), parse_qs(address.query).get("path")
        content = (self.folder / name).read_bytes() if listed is None else json.dumps(self.files(listed[0])).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(content)

    def files(self, name: str) -> dict[str, Any]:
        found = sorted((self.folder / name).glob("*"))
        return {"files": [{"path": each.name, "is_dir": each.is_dir(), "file_size": 1} for each in found]}

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def remote(model: Path, tmp_path: Path) -> Iterator[tuple[str, str, Path]]:
    """A store with a run whose artifacts lie on a server: its address, the run's id, and its model there."""
    folder = tmp_path / "served"
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Artifacts,), {"folder": folder}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    uri = sqlite.address(tmp_path / "mlflow.db")
    client = open_store(uri)
    place = f"http://127.0.0.1:{server.server_port}/mlflow-artifacts/artifacts"
    run = client.create_run(client.create_experiment("remote", place))
    logged = client.create_logged_model(run.info.experiment_id, "model", run.info.run_id)
    client.finalize_logged_model(logged.model_id, "READY")
    client.log_outputs(run.info.run_id, [LoggedModelOutput(logged.model_id, 0)])
    client.set_terminated(run.info.run_id)
    config, file = (
        folder / place_of.removeprefix(place).lstrip("/") / name
        for place_of, name in (
            (run.info.artifact_uri, "config/config.yaml"),
            (logged.artifact_location, "data/model.keras"),
        )
    )
    for path, content in ((config, b"data: {name: digits, scale: 16, path: null}"), (file, model.read_bytes())):
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
    with server:
        yield uri, run.info.run_id, file
        server.shutdown()


def test_a_downloaded_model_does_not_stay(
    remote: tuple[str, str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    uri, run_id, file = remote
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        composed = hydra.compose("predict", [f"run={run_id}", f"tracking.uri='{uri}'", "format=json"])
    predict(check(composed, PredictConfig))
    assert len(json.loads(capsys.readouterr().out)["predictions"]) == 10
    assert list((tmp_path / "temporary").iterdir()) == []
    file.write_bytes(b"no model")
    place = rf"run {run_id}: http://.*/{file.parts[-4]}/artifacts/data/model.keras"
    with pytest.raises(Refused, match=f"error: {place}: is damaged") as refused:
        predict(check(composed, PredictConfig))
    assert str(tmp_path / "temporary") not in str(refused.value)
    assert list((tmp_path / "temporary").iterdir()) == []


MATRICES = ["text", None, 3, [], [[]], [1, 2], [[1], [2, 3]], [[1, 2]], [[[1], 2], [3, 4]], [[1, -2], [3, 4]]]
MATRICES += [[[1, 2.5], [3, 4]], [["1", 2], [3, 4]], [[1, None], [3, 4]], [[1, 10**400], [3, 4]], {"a": 1}]


@pytest.mark.parametrize("matrix", MATRICES, ids=str)
def test_a_matrix_that_is_none_is_left_out(store: tuple[Tracking, str, Path], matrix: Any) -> None:
    tracking, run_id, artifacts = store
    client = open_store(str(tracking.uri))
    (artifacts / "report.json").write_text(json.dumps({"confusion_matrix": matrix}))
    assert confusion_matrices(client, [run_id]) == {}


def test_reading_leaves_no_temporary_files(
    store: tuple[Tracking, str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    tracking, run_id, artifacts = store
    client = open_store(str(tracking.uri))
    (artifacts / "note.txt").write_text("x")
    assert stored_text(client, client.get_run(run_id), "note.txt") == "x"
    assert list(tmp_path.iterdir()) == []


def test_a_matrix_is_read_and_a_damaged_report_has_none(store: tuple[Tracking, str, Path]) -> None:
    tracking, run_id, artifacts = store
    client = open_store(str(tracking.uri))
    report = artifacts / "report.json"
    report.write_text(json.dumps({"confusion_matrix": [[1, 2], [3, 4]]}))
    assert confusion_matrices(client, [run_id]) == {run_id: [[1, 2], [3, 4]]}
    for text in ("", "{", "[" * 100_000, "[]", "3", '{"confusion_matrix": ' + "9" * 5000 + "}"):
        report.write_text(text)
        assert confusion_matrices(client, [run_id]) == {}
    report.unlink()
    assert confusion_matrices(client, [run_id]) == {}
    os.mkfifo(report)
    assert confusion_matrices(client, [run_id]) == {}
    report.unlink()

"""A run's Keras model as MLflow logs one: with MLflow's public functions, and without importing Keras."""

import importlib.metadata
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import yaml

from experiments.tracking.places import link, own_file, put_model
from experiments.tracking.provenance import user
from experiments.tracking.search import UUID

KERAS_FILE = "model.keras"
REQUIREMENTS = ("mlflow", "keras", "tensorflow", "numpy")
CONDA, PIP, PYTHON = "conda.yaml", "requirements.txt", "python_env.yaml"
EXAMPLE, SERVING_EXAMPLE = "input_example.json", "serving_input_example.json"


def log(client: Any, run: Any, folder: Path, event: Mapping[str, Any], uri: str) -> None:
    """Log the model of a run, with signature and input example, unless the run has it.

    Args:
        client: MLflow's.
        run: As MLflow has it.
        folder: Of the run's journal, with the file ``model.keras``.
        event: Of the journal: ``uuid``, ``step``, ``classes``, and ``example``, the file of an array (1, ...).
        uri: The store.
    """
    from mlflow.entities import LoggedModelOutput, Metric

    run_id, step = run.info.run_id, event["step"]
    linked = [output.model_id for output in (run.outputs and run.outputs.model_outputs) or ()]
    models = [client.get_logged_model(each) for each in linked]
    if any(model.status == "READY" for model in models):
        return
    own = [model for model in models or _unlinked(client, run) if model.tags.get(UUID) == event["uuid"]]
    model = own[0] if own else _create(client, run, event["uuid"])
    if model.model_id not in linked:
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step)])
    points = [
        Metric(name, point.value, point.timestamp, step, model_id=model.model_id, run_id=run_id)
        for name in run.data.metrics
        for point in client.get_metric_history(run_id, name)
        if point.step == step and point.model_id is None
    ]
    client.log_batch(run_id, points)  # the model's page shows the run's metrics of this step
    with TemporaryDirectory(dir=folder) as made:
        keras, example = own_file(folder, KERAS_FILE), own_file(folder, event["example"])
        write(Path(made), keras, example, event, run_id=run_id, model=model)
        put_model(client, model, Path(made), uri)
    client.finalize_logged_model(model.model_id, "READY")


def _create(client: Any, run: Any, uuid: str) -> Any:
    tags = {
        "mlflow.source.name": run.data.tags.get("mlflow.source.name", ""),
        "mlflow.source.type": run.data.tags.get("mlflow.source.type", ""),
        "mlflow.user": run.data.tags.get("mlflow.user", user()),
        UUID: uuid,
    }
    return client.create_logged_model(
        run.info.experiment_id, "model", source_run_id=run.info.run_id, tags=tags, params=run.data.params
    )


def _unlinked(client: Any, run: Any) -> list[Any]:
    """Models of the run that were created when the answer of the store was lost."""
    return list(client.search_logged_models([run.info.experiment_id], f"source_run_id = '{run.info.run_id}'"))


def write(folder: Path, file: Path, example_file: Path, event: Mapping[str, Any], *, run_id: str, model: Any) -> None:
    """Write a Keras file into a folder as MLflow's Keras flavour lays it out; the file is linked, not copied."""
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    (folder / "data").mkdir()
    link(file, folder / "data" / KERAS_FILE)
    (folder / "data" / "keras_module.txt").write_text("keras")
    example = np.load(example_file, allow_pickle=False).astype(np.float32)
    (folder / EXAMPLE).write_text(json.dumps(example.tolist()))
    (folder / SERVING_EXAMPLE).write_text(json.dumps({"inputs": example.tolist()}, indent=2))
    _write_environment(folder)
    described = Model(
        artifact_path=model.artifact_location,
        run_id=run_id,
        model_uuid=model.model_id,
        model_id=model.model_id,
        signature=ModelSignature(
            Schema([TensorSpec(np.dtype(np.float32), (-1, *example.shape[1:]))]),
            Schema([TensorSpec(np.dtype(np.float32), (-1, event["classes"]))]),
        ),
        saved_input_example_info={"artifact_path": EXAMPLE, "type": "ndarray", "serving_input_path": SERVING_EXAMPLE},
    )
    described.add_flavor(
        "keras",
        data="data",
        keras_version=importlib.metadata.version("keras"),
        keras_backend="tensorflow",
        save_exported_model=False,
    )
    described.add_flavor(
        "python_function",
        loader_module="mlflow.keras",
        python_version=platform.python_version(),
        env={"conda": CONDA, "virtualenv": PYTHON},
    )
    described.model_size_bytes = sum(each.stat().st_size for each in folder.rglob("*") if each.is_file())
    described.save(folder / "MLmodel")


def _write_environment(folder: Path) -> None:
    """Write down which packages the model needs, for each of MLflow's ways to install them."""
    pinned = [f"{name}=={importlib.metadata.version(name)}" for name in REQUIREMENTS]
    (folder / PIP).write_text("\n".join(pinned))
    installer = f"pip<={importlib.metadata.version('pip')}"
    python = f"python={platform.python_version()}"
    conda = {"channels": ["conda-forge"], "dependencies": [python, installer, {"pip": pinned}], "name": "mlflow-env"}
    (folder / CONDA).write_text(yaml.safe_dump(conda, default_flow_style=False))
    tools = [f"{name}=={version}" for name in ("pip", "setuptools", "wheel") if (version := _version(name))]
    environment = {"python": platform.python_version(), "build_dependencies": tools, "dependencies": [f"-r {PIP}"]}
    (folder / PYTHON).write_text(yaml.safe_dump(environment, sort_keys=False))


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""

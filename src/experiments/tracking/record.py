"""What is recorded of a run, as plain data: parameters, tags, the data set, the report. No MLflow needed."""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.config import Config, RunFailed
from experiments.config.objective import goals_of, objective_of, written
from experiments.tracking.provenance import origin
from experiments.tracking.store import redact_all

if TYPE_CHECKING:
    from experiments.data import Dataset
    from experiments.task import Report

# What commands say at their end, by which a program finds the record.
RECORDED, BENEATH = "recorded as run {}", "recorded beneath run {}"
LONGEST_PARAMETER = 6000  # characters, MLflow's limit
# Keys of the config that may hold passwords, or that differ between identical runs.
NOT_RECORDED: Any = {"tracking": {"uri", "parent", "run_name", "offline"}, "resume": True}


def run_name(overrides: Sequence[str], limit: int = 120) -> str:
    """Name a run by what was overridden, so that the runs of a comparison differ by name."""
    telling = [item.lstrip("+") for item in overrides if not item.lstrip("+~").startswith(("tracking", "trust"))]
    name = " ".join(telling) or "reference"
    return name if len(name) <= limit else f"{name[: limit - 1]}…"


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted keys: ``{"optimizer.learning_rate": 0.001}``."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def as_parameter(value: Any) -> str:
    """Write a value of the config as MLflow stores it.

    A text that is too long ends with a digest of the whole. MLflow would only cut it, and `compare` would take two
    models that differ late for one.
    """
    text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
    if len(text) <= LONGEST_PARAMETER:
        return text
    digest = f"… sha256:{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    return text[: LONGEST_PARAMETER - len(digest)] + digest


def recorded_config(config: Config) -> dict[str, Any]:
    """The config without passwords, and without what is not recorded."""
    plain: dict[str, Any] = redact_all(config.model_dump(exclude=NOT_RECORDED, exclude_unset=True))
    return plain


def parameters_of(recorded: Mapping[str, Any], chosen: Mapping[str, Any]) -> dict[str, str]:
    """Parameters by their dotted keys; `chosen`: what ``runtime: auto`` became."""
    flat = flatten({**recorded, "runtime": dict(chosen)})
    return {key: as_parameter(value) for key, value in flat.items()}


def tags_of(config: Config, dataset: "Dataset", overrides: Sequence[str]) -> dict[str, str]:
    """Tags: where the run comes from, what it is ranked by, and on which data."""
    command = "python -m experiments.run"
    return {**origin(config.tracking, overrides, command), **objective_tags(config, dataset.digest)}


def objective_tags(config: Config, digest: str) -> dict[str, str]:
    """Tags: what a run is ranked by, and on which data.

    Args:
        config: Of the run.
        digest: The sha256 of its data set.
    """
    objective = objective_of(config, digest)
    return {
        "objective": objective.metric,
        "objective.mode": objective.mode,
        "measured_as": objective.measured_as,
        **({"objectives": written(goals)} if (goals := goals_of(config)) else {}),
        "dataset": config.data.name,
        "dataset.digest": digest,
    }


def described(dataset: "Dataset") -> dict[str, Any]:
    """A data set as an input of the run."""
    parts = {"train": dataset.train, "validation": dataset.validation or (), "test": dataset.test}
    sizes = {name: len(part) for name, part in parts.items()}
    outputs = "classes" if dataset.task == "classification" else "outputs"
    profile = sizes | {outputs: dataset.outputs, "input_shape": dataset.input_shape}
    return {"name": dataset.name, "digest": dataset.digest, "source": dataset.source, "profile": profile}


def failure_of(trace: str) -> str:
    """The last line of a traceback, without the name of our own exception."""
    last = trace.strip().splitlines()[-1] if trace.strip() else ""
    return last.removeprefix(f"{RunFailed.__module__}.{RunFailed.__qualname__}: ")[:500]


def rejections(reasons: Sequence[str]) -> str:
    """Say what a store rejected, and why."""
    return f"the store rejected: {'; '.join(reasons)}"


def packed(array: Any) -> bytes:
    """An array as an ``.npy`` file."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def packed_report(task: str, history: Mapping[str, Sequence[float]], report: "Report") -> bytes:
    """A report and the curves as an ``.npz`` file, from which pictures are drawn when they are delivered."""
    curves = {name: [float(value) for value in values] for name, values in history.items()}
    plain = {"task": task, "history": curves, "measures": dict(report.measures)}
    file = io.BytesIO()
    kept: dict[str, Any] = dict(report.kept)
    np.savez(file, plain=json.dumps(plain), **kept)
    return file.getvalue()


def unpacked_report(content: bytes) -> "tuple[dict[str, list[float]], Report]":
    """The curves and the report that `packed_report` wrote."""
    from experiments import task

    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        plain = json.loads(str(archive["plain"]))
        kept = {name: archive[name] for name in archive.files if name != "plain"}
    if plain["task"] not in task.names():  # of a journal that came from elsewhere
        raise ValueError(f"there is no task {plain['task']}")
    return plain["history"], task.of(plain["task"]).report(plain["measures"], kept)

"""MLflow's model registry: versions of a model, and aliases for those in use. It is in the same store as the runs."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from experiments.config import Problem, Refused, RunFailed, suggest
from experiments.config.objective import Objective, recorded_objective
from experiments.tracking.search import measures
from experiments.tracking.sqlite import alone

# Tags and metrics of a run that its version has, too, so that versions can be compared without their runs.
EVIDENCE = ("objective", "dataset", "dataset.digest", "fingerprint", "git.commit", "weights.digest")


@dataclass(frozen=True)
class Promotion:
    """What became of an alias.

    Attributes:
        version: MLflow's version that it names.
        previous: The one that it named before, if any.
        previous_did_better: By the same measure, so that the two can be compared.
    """

    version: Any
    previous: Any | None
    previous_did_better: bool = False

    @property
    def replaced(self) -> bool:
        """Whether the alias named another version before."""
        return self.previous is not None and self.previous.version != self.version.version


def promote(client: Any, run: Any, model: Any, name: str, alias: str, *, chosen: str, force: bool) -> Promotion:
    """Register a run's model with its evidence, unless it is, and have the alias name it.

    A step that was done before is left out: after a crash the same call does the rest.

    Args:
        client: MLflow's.
        run: A finished run of ours.
        model: The model that it logged.
        name: Of the registered model.
        alias: Alias to set to the run's version.
        chosen: How the run was chosen, for the description of a new version.
        force: Replace a version that cannot be compared with the run, too.

    Raises:
        Refused: The alias names a version that cannot be compared with the run.
        RunFailed: The registry does not take it.
    """
    from mlflow.exceptions import MlflowException

    try:
        with alone(client.tracking_uri):
            previous = _named(client, name, alias)
            if previous is not None and previous.run_id != run.info.run_id and not force:
                _refuse_another_measure(client, run, previous, name, alias)
            version = _version_of(client, run, name) or _register(client, run, model, name)
            _add_evidence(client, run, version, chosen)
            _link(client, model, version)
            client.set_registered_model_alias(name, alias, version.version)
        version = client.get_model_version(name, version.version)
        objective = recorded_objective(run.data.tags, run.data.params)
        comparable = previous is not None and objective == measured(client, previous)
        return Promotion(version, previous, comparable and _did_better(previous, version, objective))
    except MlflowException as error:
        raise RunFailed(f"MLflow's registry: {error.message}") from error


def _version_of(client: Any, run: Any, name: str) -> Any:
    found = client.search_model_versions(f"name = '{name}' and run_id = '{run.info.run_id}'")
    return max(found, key=lambda version: int(version.version), default=None)


def _register(client: Any, run: Any, model: Any, name: str) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    import mlflow

    mlflow.set_tracking_uri(client.tracking_uri)  # where MLflow looks for the source
    source = f"models:/{model.model_id}"
    return client.create_model_version(name, source, run.info.run_id, model_id=model.model_id)


def _add_evidence(client: Any, run: Any, version: Any, chosen: str) -> None:
    """Tags and description, where the version has none: a person may have written one since, or registered the run."""
    tags = {"run_id": run.info.run_id, "value": str(measures(run)["objective"])}
    tags |= {key: run.data.tags[key] for key in EVIDENCE if key in run.data.tags}
    if objective := recorded_objective(run.data.tags, run.data.params):
        tags |= {"objective.mode": objective.mode, "measured_as": objective.measured_as}
    for key, value in tags.items():
        if key not in version.tags:
            client.set_model_version_tag(version.name, version.version, key, value)
    if not version.description:
        client.update_model_version(version.name, version.version, _description(client, run, chosen))


def _description(client: Any, run: Any, chosen: str) -> str:
    """What speaks for a run, in Markdown."""
    tags, metrics = run.data.tags, measures(run)
    facts = {
        "chosen": chosen,
        "sweep": _sweep(client, tags),
        "data": f"{tags['dataset']}, sha256 {tags['dataset.digest']}",
        "code": _code(tags),
        "command": tags.get("mlflow.note.content", "").partition("\n")[0],
    }
    lines = [f"**{tags['objective']} {metrics['objective']:.4f}** of run {run.info.run_id}, {run.info.run_name}", ""]
    lines += [f"- {key}: {value}" for key, value in facts.items() if value]
    lines += ["", "| metric | at the end |", "| --- | --- |"]
    lines += [f"| {key} | {metrics[key]:.6g} |" for key in sorted(metrics) if not key.startswith("system/")]
    return "\n".join(lines)


def _code(tags: Mapping[str, str]) -> str:
    if "git.commit" not in tags:
        return ""
    return f"commit {tags['git.commit']}{', with uncommitted changes' * (tags.get('git.dirty') == 'true')}"


def _sweep(client: Any, tags: Mapping[str, str]) -> str:
    """The sweep that a run is of, and how many runs it was compared with there."""
    if "mlflow.parentRunId" not in tags:
        return ""
    parent = client.get_run(tags["mlflow.parentRunId"])
    runs = parent.data.metrics.get("finished_runs")
    compared = f", {runs:.0f} finished runs" if runs else ""
    return f"run {parent.info.run_id}, {parent.info.run_name}{compared}"


def _link(client: Any, model: Any, version: Any) -> None:
    """Have the model's own page name the version, as `mlflow.register_model` does."""
    from mlflow.utils.mlflow_tags import MLFLOW_MODEL_VERSIONS

    linked = json.loads(model.tags.get(MLFLOW_MODEL_VERSIONS, "[]"))
    entry = {"name": version.name, "version": version.version}
    if entry not in linked:
        client.set_logged_model_tags(model.model_id, {MLFLOW_MODEL_VERSIONS: json.dumps([*linked, entry])})


def _named(client: Any, name: str, alias: str) -> Any | None:
    from mlflow.exceptions import MlflowException

    try:
        client.get_registered_model(name)  # a server with access control says of an unknown name's alias: 403
        return client.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):  # no such name, or alias
            raise
        return None


def run_behind(client: Any, which: str) -> str:
    """Return the id of the run whose model ``NAME@ALIAS`` stands for.

    Raises:
        Refused: There is no such name or alias, or the version came from elsewhere.
    """
    name, _, alias = which.rpartition("@")
    if (version := _named(client, name, alias)) is None:
        known = client.search_registered_models(max_results=1000)
        names = sorted(f"{model.name}@{alias}" for model in known for alias in model.aliases)
        what = f"there is no {which!r} in this store's registry; "
        if not names:
            what += "promote a run first: python -m experiments.promote"
            raise Refused(Problem("run", what, "run=latest"))
        raise Refused(Problem("run", what + suggest(which, names), f"run={names[0]}"))
    if not version.run_id:
        raise Refused(Problem("run", f"version {version.version} of {name} came from no run", "run=latest"))
    return str(version.run_id)


def measured(client: Any, version: Any) -> Objective | None:
    """The objective that a version's value belongs to; None where neither its tags nor its run say so."""
    if "measured_as" in version.tags:
        return recorded_objective(version.tags, {})
    from mlflow.exceptions import MlflowException

    try:  # it was registered before that was noted
        run = client.get_run(version.run_id)
    except MlflowException:
        return None
    return recorded_objective(run.data.tags, run.data.params)


def _refuse_another_measure(client: Any, run: Any, previous: Any, name: str, alias: str) -> None:
    """Refuse to replace a version that was measured otherwise: on other data, or less of it, or by another metric.

    Raises:
        Refused: It was.
    """
    now, before = recorded_objective(run.data.tags, run.data.params), measured(client, previous)
    if now != before:
        then = before.measured_as if before else "it is not known how"
        what = (
            f"{name}@{alias} is version {previous.version}, measured as {then}; {run.info.run_id} was measured as "
            f"{now.measured_as if now else 'its record does not say'}, so the two cannot be compared"
        )
        raise Refused(Problem("run", what, "force=true"))


def _did_better(previous: Any, version: Any, objective: Objective | None) -> bool:
    """Whether the version before did better, by the objective that both were measured by."""
    if objective is None or not ("value" in previous.tags and "value" in version.tags):
        return False
    before, now = float(previous.tags["value"]), float(version.tags["value"])
    return before < now if objective.lower_is_better else before > now

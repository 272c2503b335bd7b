"""From winner to use, a recorded run's model into MLflow's registry: ``python -m experiments.promote run=best``."""

import os
import shlex
from typing import Any

from experiments.cli.command import command
from experiments.config import Problem, PromoteConfig, Refused
from experiments.config.problems import assign
from experiments.config.schema import Tracking
from experiments.system.terminal import Console, say
from experiments.tracking import registry
from experiments.tracking.recorded_run import RecordedRun
from experiments.tracking.runs import look_up
from experiments.tracking.store import redact, store_uri


def promote(config: PromoteConfig) -> None:
    """Register the run's model, have the alias name it, and say what it replaced and what to do next."""
    environment = _environment(config.tracking)  # before MLflow sets it
    run = look_up(config.run, config.tracking, writing=True)
    _refuse_unusable(run)
    name = config.name or run.tags["dataset"]
    done = registry.promote(
        run.client, run.stored, run.logged_model(), name, config.alias, chosen=run.chosen, force=config.force
    )
    console = Console()
    say(console, *_outcome(done, config).splitlines())
    if config.run == "best":
        say(console, f"chosen {run.chosen}")
    say(console, *_next(f"{name}@{config.alias}", config.tracking, environment), whole=True)


def _refuse_unusable(run: RecordedRun) -> None:
    if run.status != "FINISHED":
        what = f"{run.run_id} is {run.status}; only a finished run can be promoted"
        raise Refused(Problem("run", what, "run=best"))
    if not {"objective", "dataset", "dataset.digest"} <= run.tags.keys() or "objective" not in run.metrics:
        raise Refused(Problem("run", f"{run.run_id} has no objective and data set: not a run of ours", "run=best"))


def _outcome(done: registry.Promotion, config: PromoteConfig) -> str:
    now, before, name = done.version, done.previous, f"{done.version.name}@{config.alias}"
    if before is None:
        return f"{name} is {_described(now)}"
    if not done.replaced:
        return f"{name} is {_described(now)}, as before"
    return "\n".join([f"{name} was {_described(before)}, is now {_described(now)}", *_warning(done, config)])


def _described(version: Any) -> str:
    measured = f", {version.tags['objective']} {float(version.tags['value']):.4f}" if "value" in version.tags else ""
    return f"version {version.version} (run {version.run_id}{measured})"


def _warning(done: registry.Promotion, config: PromoteConfig) -> list[str]:
    if not (done.previous and done.previous_did_better):
        return []
    chosen = {"name": config.name, "alias": config.alias, "tracking.uri": config.tracking.uri}
    own = [assign(key, redact(value)) for key, value in chosen.items() if value and value != "champion"]
    back = " ".join(["python -m experiments.promote", f"run={done.previous.run_id}", *own])
    return [f"version {done.previous.version} did better, by the same measure; to go back: {back}"]


def _environment(tracking: Tracking) -> str:
    """The variable that names the store for `mlflow`, as it is typed in front of the command."""
    uri = store_uri(tracking)
    return "" if os.environ.get("MLFLOW_TRACKING_URI") == uri else f"MLFLOW_TRACKING_URI={shlex.quote(redact(uri))} "


def _next(name: str, tracking: Tracking, environment: str) -> list[str]:
    """The commands that take the model from here."""
    own = f" {assign('tracking.uri', redact(tracking.uri))}" if tracking.uri else ""
    return [
        f"predict  python -m experiments.predict run={name}{own}",
        f"serve    {environment}mlflow models serve -m models:/{name} --env-manager local",
    ]


main = command("promote", PromoteConfig)(promote)

if __name__ == "__main__":
    main()

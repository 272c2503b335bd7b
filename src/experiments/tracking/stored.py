"""A recorded run as data: its config, what it measured and where it came from. Nothing in it is executed."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.config import Config, Problem, Refused
from experiments.config.checks import find_problems
from experiments.config.schema import Tracking
from experiments.tracking.artifacts import plain_value, stored_text
from experiments.tracking.runs import look_up, stored_config
from experiments.tracking.search import measured, reads_store

# What a run measures of the machine, not of the model.
TIMINGS = ("fit_seconds", "samples_per_second")


@dataclass(frozen=True)
class StoredRun:
    """A finished run.

    Attributes:
        config: With the choices that ``runtime: auto`` became.
        tags: MLflow's.
        metrics: (step, value) of every metric but the timings, in the order of steps.
        environment: Its ``environment.txt``; empty if that is lost.
        trusted: The packages that were trusted when it was made. None of them is imported for that.
        chosen: How it was chosen, in words.
    """

    run_id: str
    name: str
    config: Config
    tags: Mapping[str, str]
    metrics: Mapping[str, Sequence[tuple[int, float]]]
    environment: str
    trusted: Sequence[str] = ()
    chosen: str = ""


@reads_store
def read_run(which: str, tracking: Tracking, trust: Sequence[str], data_path: str | None) -> StoredRun:
    """Read a finished run from the record.

    Args:
        which: See `look_up`.
        tracking: The store.
        trust: Packages whose classes the config may name. What the record says about that does not count.
        data_path: Where the data lies now; None: where the config says.

    Raises:
        Refused: There is no such run, it did not finish, or its config is no longer a valid one.
    """
    client, run, how = look_up(which, tracking)
    run_id, status = run.info.run_id, run.info.status
    if status != "FINISHED":
        what = f"{run_id} is {status}: there is no result to compare with"
        raise Refused(Problem("run", what, "run=latest"))
    plain = stored_config(run_id)
    trusted = recorded_trust(plain)
    named = {key: value for key, value in plain.items() if key != "trust"}
    if untrusted := sorted({name for name in _own_names(named, trusted) if not _within(name, trust)}):
        packages = ",".join(sorted({name.partition(".")[0] for name in untrusted}))
        what = f"the run {run_id[:8]} needs the code of {', '.join(untrusted)}; if you trust it, say so"
        raise Refused(Problem("trust", what, f"trust=[{packages}]"))
    chosen = {key.partition(".")[2]: value for key, value in run.data.params.items() if key.startswith("runtime.")}
    plain |= {"trust": list(trust), "tracking": {"enabled": False}, "resume": False}
    plain["runtime"] = {key: plain_value(value) for key, value in chosen.items()} | {"checkpoint_every": "auto"}
    if data_path and isinstance(plain.get("data"), dict):
        plain["data"]["path"] = data_path
    if problems := find_problems(plain, Config, {}):
        where = f"run {run_id[:8]}: config/config.yaml"
        raise Refused([Problem(f"{where}: {problem.where}", problem.what) for problem in problems])
    names = [name for name in run.data.metrics if name not in TIMINGS and not name.startswith("system/")]
    histories = {name: client.get_metric_history(run_id, name) for name in names}
    metrics = {
        name: sorted((point.step, measured(point.value)) for point in points) for name, points in histories.items()
    }
    environment = stored_text(run_id, "environment.txt") or ""
    config = Config.model_validate(plain)
    return StoredRun(run_id, run.info.run_name, config, run.data.tags, metrics, environment, trusted, how)


def recorded_trust(plain: Mapping[str, Any]) -> list[str]:
    """The packages that a stored config says were trusted. It grants nothing."""
    listed = plain.get("trust")
    names = [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []
    return [name for name in names if all(part.isidentifier() for part in name.split("."))]


def _own_names(value: Any, packages: Sequence[str]) -> Iterator[str]:
    """Find the classes of packages that a stored config names."""
    if isinstance(value, str) and "." in value and _within(value, packages):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _own_names(inner, packages)
    if isinstance(value, dict):
        yield from _own_names([key for key in value if isinstance(key, str)], packages)


def _within(name: str, packages: Sequence[str]) -> bool:
    return f"{name}.".startswith(tuple(f"{package}." for package in packages))

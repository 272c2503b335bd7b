"""The config of a recorded run, to train it again."""

from experiments.config import Config, Problem, Refused
from experiments.config.checks import find_problems
from experiments.config.files import plain_value
from experiments.tracking.recorded_run import RecordedRun


def checked_config(run: RecordedRun, data_path: str | None = None) -> Config:
    """Its config as it would be trained again: with the choices that ``runtime: auto`` became, and not recorded.

    Args:
        run: The recorded run.
        data_path: Where the data lies now; None: where the config says.

    Raises:
        Refused: It is no longer a valid one, or names classes of packages that are not trusted.
    """
    plain = run.config | {"trust": list(run.trust), "tracking": {"enabled": False}, "resume": False}
    recorded = run.stored.data.params.items()
    chosen = {key.partition(".")[2]: value for key, value in recorded if key.startswith("runtime.")}
    plain["runtime"] = {key: plain_value(value) for key, value in chosen.items()} | {"checkpoint_every": "auto"}
    if data_path and isinstance(plain.get("data"), dict):
        plain["data"] = {**plain["data"], "path": data_path}
    if problems := find_problems(plain, Config, {}):
        where = f"run {run.run_id[:8]}: config/config.yaml"
        trust = [problem.remedy if problem.remedy.startswith("trust=") else "" for problem in problems]
        found = zip(problems, trust, strict=True)  # the others mend a config that is typed
        raise Refused([Problem(f"{where}: {problem.where}", problem.what, remedy) for problem, remedy in found])
    return Config.model_validate(plain)


def trusted_then(run: RecordedRun) -> list[str]:
    """The packages that were trusted when it was made. It grants nothing."""
    listed = run.config.get("trust")
    texts = [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []
    return [name for name in texts if all(part.isidentifier() for part in name.split("."))]

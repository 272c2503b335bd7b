"""The commands as functions of Python: ``experiments.train("optimizer=adam", "epochs=3")``."""

import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from omegaconf import OmegaConf

from experiments.compare import select
from experiments.config import CompareConfig, Problem, Refused, RunFailed, check
from experiments.config.files import plain_value
from experiments.config.schema import Tracking
from experiments.tracking.record import BENEATH, RECORDED
from experiments.tracking.recorded_run import RecordedRun
from experiments.tracking.runs import look_up

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["RecordedRun", "Refused", "RunFailed", "load", "sweep", "table", "train"]


def train(*overrides: str) -> RecordedRun:
    """Train one config in a process of its own, as ``python -m experiments.run`` does, to the last bit.

    Args:
        overrides: What is typed behind the command: ``"optimizer=adam"``, ``"epochs=3"``.

    Returns:
        The recorded run: its ``metrics``, ``curves``, ``config``, ``model()`` and ``predict(images)``.

    Raises:
        Refused: An override cannot be used. Nothing was recorded.
        RunFailed: The run did not finish, or is recorded but was not sent to the store.

    Example:
        >>> run = train("data=digits", "epochs=2", "model.layer_sizes=[16]")
        epoch 1/2 ...
        >>> run.status
        'FINISHED'
    """
    return load(_started(RECORDED, overrides), uri=_uri(overrides), trust=_trusted(overrides))


def sweep(*overrides: str) -> "pd.DataFrame":
    """Train every combination of values, as ``python -m experiments.run -m`` does.

    Args:
        overrides: ``"optimizer=adam,sgd"``, ``"seed=0,1,2"``.

    Returns:
        A row for each run, see `table`.

    Raises:
        Refused: An override cannot be used. Nothing was recorded.
        RunFailed: Runs did not finish. `table` has the others.

    Example:
        >>> runs = sweep("data=digits", "epochs=1", "model.layer_sizes=[16]", "optimizer=adam,sgd")
        2 runs, ...
        >>> sorted(runs["optimizer.name"])
        ['adam', 'sgd']
    """
    return table(sweep=_started(BENEATH, overrides, "--multirun"), uri=_uri(overrides))


def load(
    run: str = "latest", *, uri: str | None = None, experiment: str = "", trust: Sequence[str] = ()
) -> RecordedRun:
    """Find a recorded run. TensorFlow is not imported.

    Args:
        run: ``"latest"``, ``"best"`` (by validation), an id or how it begins, or ``"NAME@ALIAS"`` of the registry.
        uri: The store; None: ``$MLFLOW_TRACKING_URI``, else ``mlruns/mlflow.db`` of the current folder.
        experiment: The MLflow experiment that latest and best are looked for in; empty: all.
        trust: Packages whose classes its model may name.

    Raises:
        Refused: There is no such run.
    """
    _refuse_other_than_text({"run": run, "uri": uri or "", "experiment": experiment})
    return look_up(run, Tracking(enabled=True, uri=uri, experiment=experiment), trust=trust)


def table(
    *,
    sweep: str | None = None,
    runs: Sequence[str] = (),
    filter: str | Sequence[str] = (),  # noqa: A002 - as the command calls it
    experiment: str = "",
    uri: str | None = None,
) -> "pd.DataFrame":
    """Recorded runs: those of a sweep, of an MLflow experiment, or chosen ones; of the latest sweep if nothing is said.

    Args:
        sweep: ``"latest"``, or the id of its parent run.
        runs: Ids, or how they begin.
        filter: Conditions such as ``"val_accuracy > 0.97"``, all of which have to hold.
        experiment: The MLflow experiment.
        uri: The store; None: ``$MLFLOW_TRACKING_URI``, else ``mlruns/mlflow.db`` of the current folder.

    Returns:
        A row for each run, those with the best objective first: the parameters in which they differ, the last value of
        each metric, ``objective``, ``status``, ``seconds``, ``name`` and ``measured_as``. The index is ``run_id``. Runs
        are comparable if their ``measured_as`` is the same.

    Raises:
        Refused: There are none.
    """
    conditions = list(filter) if isinstance(filter, list | tuple) else [filter]
    _refuse_other_than_text({f"filter[{place}]": each for place, each in enumerate(conditions)} | {"uri": uri or ""})
    tracking = {"enabled": True, "uri": uri, "experiment": experiment}
    wanted = {"sweep": sweep, "runs": list(runs), "filter": conditions, "tracking": tracking}
    config = check(OmegaConf.create({**wanted, "sort": None, "format": "text", "report": None}), CompareConfig)
    return _public(select(config)[1].runs)


def _public(runs: "pd.DataFrame") -> "pd.DataFrame":
    """The columns that `table` promises."""
    import pandas as pd

    from experiments.ranking.comparison import best_first
    from experiments.ranking.frame import METRICS, differing, parameters, section

    runs = best_first(runs)
    settings = parameters(runs, differing(runs)).map(plain_value)
    metrics = section(runs, METRICS).drop(columns="objective", errors="ignore")
    shown = [runs["run_id"], settings, runs[["objective", "status", "seconds"]], metrics]
    found = pd.concat([*shown, runs["name"], runs["measured_as"].fillna("")], axis=1)
    return found.infer_objects().set_index("run_id")


def _started(promised: str, overrides: Sequence[str], *options: str) -> str:
    """Run a command, show what it prints, and return the id that it prints in a promised line."""
    _refuse_other_than_text({f"overrides[{place}]": word for place, word in enumerate(overrides)})
    if strange := [word for word in overrides if word.startswith("-")]:
        raise Refused(Problem(strange[0], "is an option of the command, expected KEY=VALUE"))
    command = [sys.executable, "-m", "experiments.run", *options, *overrides]
    found = ""
    with tempfile.TemporaryFile("w+") as errors:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process:
            assert process.stdout
            try:
                for line in process.stdout:
                    print(line, end="", flush=True)
                    if said := re.match(promised.format("([0-9a-f]+)"), line):
                        found = said[1]
            except KeyboardInterrupt:  # a notebook sends it to us only
                process.send_signal(signal.SIGINT)
                process.wait()
                raise
        errors.seek(0)
        message = errors.read().strip()
    if process.returncode == 2:
        raise Refused.by_a_command(message)
    if process.returncode == 130:
        raise KeyboardInterrupt
    if process.returncode or not found:
        raise RunFailed(message or "the run left no readable record: is tracking off, or was the record not sent?")
    if message:
        print(message, file=sys.stderr)
    return found


def _refuse_other_than_text(values: Mapping[str, object]) -> None:
    if problems := [
        Problem(where, f"got {value!r}, expected text" + " without the character 0" * isinstance(value, str))
        for where, value in values.items()
        if not isinstance(value, str) or "\0" in value
    ]:
        raise Refused(problems)


def _uri(overrides: Sequence[str]) -> str | None:
    values = [word.partition("=")[2].strip("'\"") for word in overrides if word.lstrip("+").startswith("tracking.uri=")]
    return values[-1] if values else None


def _trusted(overrides: Sequence[str]) -> list[str]:
    values = [word for word in overrides if word.lstrip("+").startswith("trust=")]
    return re.findall(r"[\w.]+", values[-1].partition("=")[2]) if values else []

"""Recorded runs as a pandas DataFrame, a row each: the shape in which runs are filtered, compared and shown.

Every frame has the columns `FIELDS`, which `row` explains. Parameters and metrics are columns too:
``params.optimizer.name`` and ``metrics.val_loss``, as MLflow names them in its own tables.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from experiments.config.objective import Objective

if TYPE_CHECKING:
    import pandas as pd

PARAMS, METRICS = "params.", "metrics."
OBJECTIVE = ("ranked_by", "lower_is_better", "measured_as")  # as in `Objective`
OF_RUN = (
    "run_id",
    "name",
    "status",
    "objective",
    "seconds",
    "curves",
    "failure",
    "log",
    "uuid",
    "fingerprint",
    "goals",
    "chosen",
)
FIELDS = (*OF_RUN, *OBJECTIVE)
# Parameters, by what their keys start with, that say how a run is carried out, or what it is ranked by, not what it is.
CIRCUMSTANCES = ("runtime.", "tracking.", "trust", "resume", "data.path", "objective")
Row = dict[str, Any]


def row(
    run_id: str,
    name: str,
    status: str,
    parameters: Mapping[str, str],
    objective: float | None = None,
    seconds: float | None = None,
    metrics: Mapping[str, float] | None = None,
    curves: Mapping[str, Sequence[float]] | None = None,
    failure: str = "",
    log: str = "",
    uuid: str = "",
    fingerprint: str = "",
    goals: str = "",
    chosen: Collection[str] = (),
    measured: Objective | None = None,
) -> Row:
    """One run, as a row of a frame.

    Args:
        run_id: MLflow's; empty where nothing was recorded.
        name: Of the run, for people.
        status: FINISHED, FAILED, KILLED, RUNNING, or "not run".
        parameters: The config as it was recorded, dotted keys to text.
        objective: The value that it is ranked by; None unless it finished.
        seconds: From its start to its end.
        metrics: The last value of every metric.
        curves: The values of the metrics of each epoch, by epoch.
        failure: Why it failed.
        log: The file that its output went to.
        uuid: Its own id, which its journal has too.
        fingerprint: Of its config; empty where the record does not say.
        goals: Its objectives as `objective.written` writes them, if it has several.
        chosen: The keys that its command, or its search, has set.
        measured: The `Objective` that the value belongs to; None where the record does not say.
    """
    values = (run_id, name, status, objective, seconds, curves or {}, failure, log, uuid, fingerprint, goals, chosen)
    return {
        **dict(zip(FIELDS, (*values, *(measured or (None, None, None))), strict=True)),
        **{PARAMS + key: value for key, value in parameters.items()},
        **{METRICS + key: value for key, value in (metrics or {}).items()},
    }


def frame(rows: Iterable[Row]) -> "pd.DataFrame":
    """Runs as a frame, in their order. What a run did not record is missing: NaN."""
    import pandas as pd

    listed = list(rows)
    found = pd.DataFrame(listed, columns=None if listed else FIELDS, dtype=object)
    numbers = ["objective", "seconds", *(column for column in found if column.startswith(METRICS))]
    return found.astype(dict.fromkeys(numbers, float)).copy()  # in one block: pandas warns of columns one by one


def section(runs: "pd.DataFrame", prefix: str) -> "pd.DataFrame":
    """The parameters, or the metrics, that any of the runs has, by their keys."""
    found = runs[[column for column in runs if column.startswith(prefix)]].dropna(axis=1, how="all")
    return found.rename(columns=lambda column: column.removeprefix(prefix))


def parameters(runs: "pd.DataFrame", keys: Iterable[str] | None = None) -> "pd.DataFrame":
    """Parameters as text, by key: these, or all that any of the runs has. Empty where a run has none."""
    found = section(runs, PARAMS)
    return (found if keys is None else found.reindex(columns=list(keys))).astype(object).fillna("")


def records(runs: "pd.DataFrame") -> list[Row]:
    """The runs as plain data, with parameters and metrics as mappings of their own."""
    inner = {
        name: [run.dropna().to_dict() for _, run in section(runs, prefix).iterrows()]
        for name, prefix in (("parameters", PARAMS), ("metrics", METRICS))
    }
    shown = ["run_id", "name", "status", "parameters", "objective", "seconds", "metrics", "curves", "failure", "log"]
    return plain(runs.assign(**inner)[[*shown, "uuid", "fingerprint"]])


def unfinished_status(run: Row, metric: str, digits: int) -> str:
    """Why a run has no result; of one that is under way, how far it is."""
    if run["status"] == "RUNNING" and (curve := run["curves"].get(metric)):
        return f"{curve[-1]:.{digits}f}, epoch {len(curve)}/{run['parameters'].get('epochs', '')}"
    return "no result" if run["status"] == "FINISHED" else str(run["status"])


def plain(frame: "pd.DataFrame") -> list[Row]:
    """The rows as mappings; None: missing."""
    return frame.astype(object).where(frame.notna(), None).to_dict("records")  # type: ignore[no-any-return]


def facts(runs: "pd.DataFrame") -> "pd.DataFrame":
    """All that a filter can ask for, by key; where a parameter and a metric have the same name, the metric."""
    found = section(runs, METRICS).combine_first(section(runs, PARAMS))
    own = runs[["name", "status", "run_id", "ranked_by", "measured_as", "seconds"]]
    return found.assign(**own, dataset=parameters(runs, ["data.name"])["data.name"]).dropna(axis=1, how="all")


def has_parameters(runs: "pd.DataFrame") -> "pd.Series[bool]":
    """Whether each run has any recorded parameter; a worker that died early recorded none."""
    return runs[[column for column in runs if column.startswith(PARAMS)]].notna().any(axis=1)


def chosen_keys(runs: "pd.DataFrame") -> set[str]:
    """The keys that the commands, or the searches, of any of the runs have set."""
    return set[str]().union(*runs["chosen"])


def differing(runs: "pd.DataFrame", circumstances: Collection[str] = CIRCUMSTANCES) -> list[str]:
    """The parameters that are not the same in all runs, in the runs' order.

    ``optimizer.name`` brings a default for ``optimizer.rho``, for example. A parameter that follows from such a name
    is left out, unless somebody has set it. Circumstances are left out unless nothing else differs.
    """
    chosen = chosen_keys(runs)
    known = parameters(runs[has_parameters(runs)]).replace("{}", "")
    found = [key for key in known if known[key].nunique() > 1]
    settings = [key for key in found if not key.startswith(tuple(circumstances))] or found
    return [key for key in settings if key in chosen or not _follows(key, settings, known)]


def _follows(key: str, differing: Sequence[str], known: "pd.DataFrame") -> bool:
    """Whether the name of a section that the parameter is in decides its value, in all runs."""
    sections = key.split(".")
    names = [".".join([*sections[:depth], "name"]) for depth in range(1, len(sections))]
    return any(
        name != key and name in differing and len(known[[name, key]].drop_duplicates()) == known[name].nunique()
        for name in names
    )

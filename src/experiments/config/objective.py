"""What a run is ranked by, and what makes two runs comparable: the one definition of both."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import yaml

from experiments.config import measures
from experiments.config.measures import base_name, mode_of, named_metrics
from experiments.config.schema import Config

# What a finished model costs, by the names of its measures. Lower is better.
MODEL_BYTES = "model_bytes"
COSTS = ("parameters", "seconds_per_epoch", MODEL_BYTES)
# Keys of the loss that say what it is given, not what it computes.
NOT_THE_LOSS = ("name", "labels", "output_activation")


class Objective(NamedTuple):
    """What a run is ranked by.

    Attributes:
        metric: Its name, such as ``val_accuracy``.
        lower_is_better: Whether it is to be made small.
        measured_as: Metric and mode, the class and arguments of the metric or loss, for a loss also the regularizers
            that are part of it, the data's digest, and how much of the data is used and held out. Runs are comparable
            if this text is the same.
    """

    metric: str
    lower_is_better: bool
    measured_as: str

    @property
    def mode(self) -> measures.Mode:
        """The same as ``lower_is_better``, as Keras's callbacks write it."""
        return "min" if self.lower_is_better else "max"


def objective_of(config: Config, digest: str) -> Objective:
    """The objective of a config.

    Args:
        config: Checked, so that its ``objective_mode`` is known.
        digest: The sha256 of its data set.
    """
    return _objective(
        config.objective_metric,
        bool(config.lower_is_better),
        config.metrics,
        config.loss.model_dump(exclude_unset=True),
        config.model.model_dump(exclude_unset=True),
        {"name": config.data.name, "digest": digest, **config.data.model_dump()},
    )


class Goal(NamedTuple):
    """One of several objectives.

    Attributes:
        name: A metric, or one of `COSTS`.
        lower_is_better: Whether it is to be made small.
    """

    name: str
    lower_is_better: bool

    @property
    def measure(self) -> str:
        """The measure of a finished model that has its value."""
        return f"final_{self.name}" if self.name.startswith("val_") else self.name


def goals_of(config: Config) -> list[Goal]:
    """The objectives of a config that has several; else none."""
    more = config.objectives[1:]
    modes = {name: "min" if name in COSTS else mode_of(name, config.metrics) for name in more}
    first = Goal(config.objective_metric, bool(config.lower_is_better))
    return [first, *(Goal(name, modes[name] == "min") for name in more)] if more else []


def written(goals: Sequence[Goal]) -> str:
    """Several objectives as a tag of a run: ``val_accuracy max, parameters min``."""
    return ", ".join(f"{goal.name} {'min' if goal.lower_is_better else 'max'}" for goal in goals)


def recorded_goals(text: str) -> list[Goal]:
    """The objectives that `written` wrote."""
    pairs = (each.rpartition(" ") for each in text.split(", ") if each)
    return [Goal(name, mode == "min") for name, _, mode in pairs]


def excess(limits: Mapping[str, float], values: Mapping[str, float]) -> dict[str, float]:
    """By how much a finished run exceeds each constraint; 0 or less: it keeps it.

    Args:
        limits: The constraints: the largest value of measures.
        values: The run's measures.
    """
    return {name: values.get(Goal(name, True).measure, math.inf) - limit for name, limit in limits.items()}


def broken(constraints: str, values: Mapping[str, float]) -> bool:
    """Whether a finished run breaks one of the constraints of its search.

    Args:
        constraints: The tag of the run that names the largest value of measures, as JSON; empty: none.
        values: Its measures.
    """
    try:
        exceeded = excess(dict(json.loads(constraints or "{}")), values)
        return any(by > 0 for by in exceeded.values())
    except (ValueError, TypeError, AttributeError, RecursionError):  # a tag of the user's own
        return False


def recorded_objective(tags: Mapping[str, str], parameters: Mapping[str, str]) -> Objective | None:
    """The objective of a recorded run; None if the record does not say.

    Args:
        tags: Of the run. Runs that were made before ``measured_as`` was recorded lack it; it follows from the rest.
        parameters: Of the run, dotted keys to text.
    """
    if not (metric := tags.get("objective")):
        return None
    if "measured_as" in tags:
        return Objective(metric, tags.get("objective.mode") == "min", tags["measured_as"])
    specs = _read(parameters.get("metrics", ""))
    specs = specs if isinstance(specs, list) and specs else [base_name(metric)]
    if (mode := mode_of(metric, specs)) is None:
        return None
    loss = {key.partition(".")[2]: _read(value) for key, value in parameters.items() if key.startswith("loss.")}
    model = {key: _read(value) for key, value in parameters.items() if key.startswith("model.")}
    data = {key: _read(parameters.get(f"data.{key}", "")) for key in ("limit", "validation_size")}
    data |= {"name": tags.get("dataset", ""), "digest": tags.get("dataset.digest", "")}
    return _objective(metric, mode == "min", specs, loss, model, data)


def _read(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _objective(
    metric: str,
    lower: bool,
    specs: list[Any],
    loss: Mapping[str, Any],
    model: Mapping[str, Any],
    data: Mapping[str, Any],
) -> Objective:
    base = base_name(metric)
    if base == "loss":
        measure = _described(str(loss.get("name", base)), {key: loss[key] for key in loss if key not in NOT_THE_LOSS})
        measure = " ".join([measure, *dict.fromkeys(_penalties(model))])
    else:
        one = next((each for each in named_metrics(specs) if each.name == base), None)
        arguments = {key: value for key, value in one.arguments.items() if key != "name"} if one else {}
        measure = _described(one.cls, arguments) if one else base
    same = measures.plain(measure) == measures.plain(base)
    used = [f"{key}={json.dumps(data[key])}" for key in ("limit", "validation_size") if data.get(key)]
    where = " ".join([str(data["name"]), str(data["digest"])[:12], *used])
    better = "lower is better" if lower else "higher is better"
    return Objective(metric, lower, f"{metric}{'' if same else f' ({measure})'}, {better}, on {where}")


def _penalties(model: Any) -> Iterator[str]:
    """What a network adds to its loss: all regularizers of its layers."""
    for key, value in model.items() if isinstance(model, Mapping) else ():
        name = measures.plain(str(key).rpartition(".")[2])
        if value is not None and name.endswith(("regularizer", "activityregularization")):
            yield f"{name}={json.dumps(value, sort_keys=True)}"
        else:
            yield from _penalties(value)
    for entry in model if isinstance(model, list | tuple) else ():
        yield from _penalties(entry)


def _described(name: str, arguments: Mapping[str, Any]) -> str:
    return " ".join([name, *(f"{key}={json.dumps(arguments[key], sort_keys=True)}" for key in sorted(arguments))])

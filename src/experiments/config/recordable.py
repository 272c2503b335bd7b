"""What MLflow refuses to record: names and lengths, known before a run trains. MLflow is not imported."""

import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from experiments.config.measures import identity, named_metrics, without_repeats
from experiments.config.objective import COSTS
from experiments.config.problems import Problem, assign, dotted, shown
from experiments.config.schema import Config

# Numbers of characters, as in mlflow/utils/validation.py. A run's name has 250 in MLflow's tables.
LONGEST_EXPERIMENT, LONGEST_KEY, LONGEST_TAG, LONGEST_RUN_NAME = 500, 250, 8000, 250
# Names of measures that a run records itself.
TAKEN = frozenset({"loss", "objective", "fit_seconds", "samples_per_second", "learning_rate", "epoch", *COSTS})
PREFIXES = ("val_", "test_", "final_", "system/")
ALLOWED = "letters, digits, blanks and _ - . : /, and neither .. nor // nor a / at an end"


def unrecordable(config: Config) -> Iterator[Problem]:
    """Find what cannot be recorded, if the config says that the run is recorded at all."""
    yield from _metrics(config)
    if not config.tracking.enabled:
        return
    for path in _without_encoding(config.model_dump(exclude_unset=True)):
        yield Problem(dotted(path), "holds bytes that are no UTF-8 text, which cannot be recorded")
    tracking = config.tracking
    if not 0 < (length := len(tracking.experiment)) <= LONGEST_EXPERIMENT:
        what = f"got a name of {length} characters, expected 1 to {LONGEST_EXPERIMENT}"
        yield Problem("tracking.experiment", what, assign("tracking.experiment", "${data.name}"))
    if (length := len(tracking.run_name or "")) > LONGEST_RUN_NAME:
        what = f"got a name of {length} characters, expected at most {LONGEST_RUN_NAME}"
        yield Problem("tracking.run_name", what, "tracking.run_name=null")
    for key, value in tracking.tags.items():
        where = f"tracking.tags.{key}"
        if not (_is_key(key) and _is_key(where)):
            yield Problem(where[:120], f"a tag's name has at most {LONGEST_KEY} of {ALLOWED}")
        elif (length := len(str(value))) > LONGEST_TAG:
            yield Problem(where, f"got {length} characters, expected at most {LONGEST_TAG}")
    for key in _keys(config.model_dump(include={"callbacks", "model", "optimizer", "loss"}, exclude_unset=True)):
        if not _is_key(key):
            what = f"cannot be recorded as a parameter: its name has at most {LONGEST_KEY} of {ALLOWED}"
            yield Problem(key[:120], what)


def _without_encoding(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The places of texts that came from other bytes than UTF-8, as those of a command line may."""
    if isinstance(value, str):
        if any("\ud800" <= letter <= "\udfff" for letter in value):
            yield path
    elif isinstance(value, Mapping | list | tuple):
        for key, item in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _without_encoding(item, (*path, key))


def _metrics(config: Config) -> Iterator[Problem]:
    if found := [*_misnamed(config.metrics)]:
        remedy = assign("metrics", _renamed(config.metrics))  # of all at once
        yield from (Problem(f"metrics[{index}]", what, remedy) for index, what in found)


def _misnamed(metrics: Sequence[Any]) -> Iterator[tuple[int, str]]:
    """The places of metrics that cannot be recorded under their names, and why."""
    seen: dict[str, Any] = {"loss": None}
    for index, metric in enumerate(named_metrics(metrics)):
        name, same = metric.name, identity(metrics[index])
        if not isinstance(given := metric.arguments.get("name", ""), str):
            yield index, f"got the name {shown(given)}, expected text"
        elif not (_is_key(name) and _is_key(f"final_val_{name}")):
            yield index, f"got a name that MLflow cannot record: it has at most {LONGEST_KEY} of {ALLOWED}"
        elif name in seen:
            yield index, f"{name} is there already; give one of them another name: {{auc: {{name: area}}}}"
        elif other := next((other for other, known in seen.items() if known == same), ""):
            yield index, f"{name} is the same as {other}, which is there already"
        elif name in TAKEN or name.startswith(PREFIXES):
            yield index, f"got {name}, a name under which a run records something else"
        seen.setdefault(name, same)


def _renamed(given: Sequence[Any]) -> list[Any]:
    """The metrics that can be recorded, those of them by their usual names that have one that cannot."""
    wrong, metrics = {index for index, _ in _misnamed(given)}, list[Any]()
    for index, metric in enumerate(named_metrics(given)):
        arguments = {key: value for key, value in metric.arguments.items() if key != "name"}
        metrics.append(given[index] if index not in wrong else {metric.cls: arguments} if arguments else metric.cls)
    metrics = without_repeats(metrics)
    wrong = {index for index, _ in _misnamed(metrics)}
    return [metric for index, metric in enumerate(metrics) if index not in wrong]


def _is_key(name: str) -> bool:
    """Whether MLflow takes a name for a parameter, metric or tag."""
    normal = posixpath.normpath(name)
    return (
        0 < len(name) <= LONGEST_KEY
        and re.fullmatch(r"[/\w.\- :]*", name) is not None
        and normal == name
        and normal != "."
        and not normal.startswith(("..", "/"))
    )


def _keys(tree: Mapping[str, Any], path: str = "") -> Iterator[str]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _keys(value, f"{path}{key}.")
        else:
            yield f"{path}{key}"

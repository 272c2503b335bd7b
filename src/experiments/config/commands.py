"""Types of the keys of the commands that train nothing. The defaults are in ``conf/NAME.yaml``."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from experiments.config.schema import Auto, Package, Section, Tracking, matching


def _id(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Span = Annotated[str, BeforeValidator(str), matching(r"\d+:\d+", "FROM:TO, counted from 0, without the last")]
RegisteredName = Annotated[str, matching(r"(?a:\w[\w.-]*)", "letters, digits, _, . and -, and neither . nor - first")]
Alias = Annotated[
    str,
    matching(r"(?!(?i:latest|v\d+)$)[A-Za-z0-9_-]+", "letters, digits, _ and -; latest, v1, v2, … are MLflow's own"),
]
RunId = Annotated[str, BeforeValidator(_id)]
"""A run's id or its beginning, which YAML files and Hydra take for a number if it has no letters.

Digits with an ``e`` among them cannot be turned back: see `overrides.ids_as_text`.
"""


class PredictConfig(Section):
    run: RunId
    test: Span
    images: list[str]
    inverted: bool | Auto
    format: Literal["text", "json"]
    tracking: Tracking
    trust: list[Package]


class DataPlace(Section):
    path: str | None


class ReproduceConfig(Section):
    run: RunId
    data: DataPlace
    tracking: Tracking
    trust: list[Package]


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str | int) and not isinstance(value, bool) else value


class SyncConfig(Section):
    folders: Annotated[list[str], BeforeValidator(_listed)]
    list: bool
    all: bool
    tracking: Tracking


class PromoteConfig(Section):
    run: RunId
    name: RegisteredName | None
    alias: Alias
    force: bool
    tracking: Tracking


CHOICES_OF_A_RUN = ("latest", "best")
"""What `run` takes beside an id, and `runs` does not."""


class CompareConfig(Section):
    sweep: RunId | None
    runs: Annotated[list[RunId], BeforeValidator(_listed)]
    filter: Annotated[list[str], BeforeValidator(_listed)]
    sort: str | None
    format: Literal["text", "csv", "json", "markdown"]
    report: str | None
    tracking: Tracking

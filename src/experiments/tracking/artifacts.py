"""Files that a run left, read as data: they may be damaged or foreign, and nothing in them is executed."""

import json
import stat
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from experiments.config import Problem, Refused
from experiments.config.files import ShallowLoader
from experiments.config.keras_names import NEVER
from experiments.data.archive import check_growth
from experiments.tracking.places import local_folder

MOST_BYTES = 20_000_000  # of a text; ours have a few thousand


class SavedModel(NamedTuple):
    """The file of a run's model, which may be a copy that does not stay; `name` says what it is a copy of."""

    file: Path
    name: str


class PlainLoader(ShallowLoader):
    """Reads YAML without aliases, which we never write: a few lines of them can stand for billions of values."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Read the next value, which must not refer to an earlier one."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it has aliases")
        return super().compose_node(parent, index)


def plain_yaml(text: str) -> Any:
    """Read plain YAML: mappings, lists, texts, numbers.

    Raises:
        Exception: Of any class, where it is not YAML, or more than that.
    """
    return yaml.load(text, PlainLoader)  # noqa: S506 - it is a safe loader


def plain_value(text: str) -> Any:
    """A recorded parameter: a number, truth value, list or text."""
    try:
        return plain_yaml(text)
    except Exception:  # whatever the parser raises
        return text


def stored_text(run_id: str, file: str) -> str | None:
    """A text among a run's artifacts; None if it is lost, or no ordinary file of a reasonable size."""
    import mlflow

    try:
        address = mlflow.get_run(run_id).info.artifact_uri
        with tempfile.TemporaryDirectory() as folder:  # MLflow copies the file, and its own folder would stay
            here = local_folder(address, mlflow.get_tracking_uri())
            path = (
                here / file if here else Path(mlflow.artifacts.download_artifacts(f"{address}/{file}", dst_path=folder))
            )
            return path.read_text() if is_file(path) and path.stat().st_size <= MOST_BYTES else None
    except (mlflow.MlflowException, OSError, ValueError):
        return None


def is_file(path: Path) -> bool:
    """Whether a path is an ordinary file, which can be opened without waiting: no pipe, no device."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def own_classes(model: SavedModel, trust: Sequence[str]) -> dict[str, str]:
    """Find the classes and functions of a saved model that are not Keras's own: their modules, by name.

    Nothing is imported.

    Raises:
        Refused: One is not of a trusted package, the model holds code, or it is damaged.
    """
    named = dict(_saved_classes(model))
    if code := sorted(named.keys() & (NEVER | {"__lambda__"})):
        raise Refused(Problem(model.name, f"the model holds code ({', '.join(code)}), which is never run"))
    own = {name: module for name, module in named.items() if not _within(module, ("keras", "builtins"))}
    foreign = sorted({module for module in own.values() if not _within(module, trust)})
    if foreign:
        packages = ",".join(sorted({module.partition(".")[0] for module in foreign}))
        what = f"the run's model needs the code of {', '.join(foreign)}; if you trust it, say so"
        raise Refused(Problem("trust", what, f"trust=[{packages}]"))
    return own


def unusable_model(model: SavedModel, reason: object) -> Refused:
    """The refusal of a model that cannot be read."""
    told = " ".join(str(reason).replace(str(model.file), model.file.name).split())[:300] or type(reason).__name__
    return Refused(Problem(model.name, f"is damaged, or not a model that Keras saved ({told})"))


def _saved_classes(model: SavedModel) -> list[tuple[str, str]]:
    if not is_file(model.file):
        raise unusable_model(model, "it is not there, or no ordinary file")
    try:
        with zipfile.ZipFile(model.file) as archive:
            members = archive.infolist()
            check_growth(model.name, sum(m.compress_size for m in members), sum(m.file_size for m in members))
            if archive.getinfo("config.json").file_size > MOST_BYTES:
                raise ValueError("its config.json is too large")
            config = json.loads(archive.read("config.json"))
        if not isinstance(config, dict):
            raise TypeError("its config.json holds no object")
        return list(_classes(config))
    except Refused:
        raise
    except Exception as error:  # whatever zipfile, zlib and json raise
        raise unusable_model(model, error) from error


def _within(module: str, packages: Sequence[str]) -> bool:
    return f"{module}.".startswith(tuple(f"{package}." for package in packages))


def _classes(value: Any) -> Iterator[tuple[str, str]]:
    """Names of classes and functions with their modules; of functions, Keras writes the name as their config."""
    if isinstance(value, dict):
        if "class_name" in value or "module" in value:
            is_function = value.get("class_name") == "function"
            yield str(value.get("config" if is_function else "class_name")), str(value.get("module") or "keras")
        for inner in value.values():
            yield from _classes(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _classes(inner)

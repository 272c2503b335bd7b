"""Where artifacts lie, and how they get there: on this machine they are linked, so that nothing is stored twice."""

import os
import shutil
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from experiments.tracking.sqlite import sqlite_file


def local_folder(address: str, uri: str) -> Path | None:
    """The folder of an address of artifacts; None if it is not on this machine.

    Args:
        address: As MLflow has it: ``.../RUN/artifacts`` or ``.../models/MODEL/artifacts``.
        uri: The store. Where its folder was moved, the artifacts are found beside it.
    """
    parts = urlsplit(address)
    if parts.scheme not in ("", "file"):
        return None
    recorded = Path(unquote(parts.path))
    if file := sqlite_file(uri):
        own = recorded.parts[-3:] if recorded.parts[-3:-2] == ("models",) else recorded.parts[-2:]
        beside = file.parent.joinpath("artifacts", *own)
        root = recorded.parents[len(own) - 1]
        if beside.is_dir() or not root.is_dir():
            return beside
    return recorded


def own_file(folder: Path, name: str) -> Path:
    """A file in the folder of a journal, which may be a foreign one.

    Raises:
        ValueError: It is not there, may lie outside of the folder, or is no ordinary file.
    """
    place, file = PurePosixPath(name), folder / name
    ways = (folder.joinpath(*place.parts[:depth]) for depth in range(1, len(place.parts) + 1))
    if place.is_absolute() or ".." in place.parts or any(way.is_symlink() for way in ways) or not file.is_file():
        raise ValueError(f"{name} is no file of this journal")
    return file


def put(client: Any, info: Any, file: Path, name: str, uri: str) -> None:
    """Add a file to the artifacts of a run.

    Args:
        client: MLflow's.
        info: MLflow's, of the run.
        file: The file.
        name: Its place among the artifacts.
        uri: The store.
    """
    place = PurePosixPath(name)
    if (folder := local_folder(info.artifact_uri, uri)) is None:
        parent = str(place.parent)
        client.log_artifact(info.run_id, file, None if parent == "." else parent)
    else:
        link(file, folder / place)


def put_model(client: Any, model: Any, made: Path, uri: str) -> None:
    """Add the files in a folder to a logged model."""
    if (folder := local_folder(model.artifact_location, uri)) is None:
        client.log_model_artifacts(model.model_id, made)
        return
    for file in made.rglob("*"):
        if file.is_file():
            link(file, folder / file.relative_to(made))


def link(file: Path, place: Path) -> None:
    """Have a file at a place, too, in one step; copy it where the file system has no links."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.exists() and place.samefile(file):
        return
    new = place.with_name(f".{place.name}.new")
    new.unlink(missing_ok=True)
    try:
        os.link(file, new)
    except OSError:
        with suppress(OSError):
            new.unlink(missing_ok=True)
        shutil.copyfile(file, new)
    new.replace(place)

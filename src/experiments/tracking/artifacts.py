"""Files that a run left, read as data: they may be damaged or foreign, and nothing in them is executed."""

import stat
import tempfile
from pathlib import Path
from typing import Any

from experiments.tracking.places import local_folder

MOST_BYTES = 20_000_000  # of a file; ours have a few thousand


def stored_file(client: Any, run: Any, name: str) -> bytes | None:
    """A file among a run's artifacts; None if it is lost, or no ordinary file of a reasonable size.

    Args:
        client: MLflow's.
        run: As MLflow has it.
        name: Its place among the artifacts.
    """
    import mlflow

    here = local_folder(run.info.artifact_uri, client.tracking_uri)
    try:
        with tempfile.TemporaryDirectory() as folder:  # MLflow copies the file, and its own folder would stay
            path = here / name if here else Path(client.download_artifacts(run.info.run_id, name, folder))
            found = path.stat()
            return path.read_bytes() if stat.S_ISREG(found.st_mode) and found.st_size <= MOST_BYTES else None
    except (mlflow.MlflowException, OSError, ValueError):
        return None


def stored_text(client: Any, run: Any, name: str) -> str | None:
    """The same as text; None also if it is not UTF-8."""
    content = stored_file(client, run, name)
    try:
        return None if content is None else content.decode()
    except ValueError:
        return None
